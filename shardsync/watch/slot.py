"""One program of the pool: `python -m shardsync.watch.slot --state S --settings F --slot NN`.

A slot without a Shard sleeps on the standard library alone, in under 10 MB of
anonymous memory; what a Watcher needs is imported when the Plan assigns one.
Trouble is waited out in here: an exit would lead supervisord to FATAL.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
from pathlib import Path

from shardsync.clock import SystemClock
from shardsync.errors import AlreadyRunning, ShardsyncError, StateUnusable
from shardsync.journal.locks import FileLock
from shardsync.journal.plan import Plan, PlannedShard, plan_mark, read_plan
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log, start_logging
from shardsync.patience import patiently

WAIT_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1
_USAGE = "usage: python -m shardsync.watch.slot --state DIR --settings FILE --slot NN"


class Stop:
    """Whether SIGTERM or SIGINT came, or SIGHUP; `fd` becomes readable when one did."""

    def __init__(self, *, fd: int, write_fd: int) -> None:
        self.fd = fd
        self.wanted = False
        self._write_fd = write_fd
        self._must_reload = False

    @classmethod
    def on_signals(cls) -> Stop:
        """Handlers that only set a flag and wake a poll."""
        fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        stop = cls(fd=fd, write_fd=write_fd)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.now())
        signal.signal(signal.SIGHUP, lambda *_: stop.reload())
        return stop

    def now(self) -> None:
        """Wanted from now on. Safe in a signal handler."""
        self.wanted = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_fd, b"x")

    def reload(self) -> None:
        """The settings are to be read again. Safe in a signal handler."""
        self._must_reload = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_fd, b"x")

    def take_reload(self) -> bool:
        """Whether the settings are to be read again; once for each time they are."""
        if not self._must_reload:
            return False
        # In this order: what comes in between is read again, once too often.
        self._must_reload = False
        if not self.wanted:
            with contextlib.suppress(BlockingIOError):
                os.read(self.fd, 4096)
        return True

    def wait(self, seconds: float) -> bool:
        """Sleep, or less if it is wanted; returns whether it is."""
        if not self.wanted:
            select.select([self.fd], [], [], seconds)
            # Whoever waits has no settings yet, and reads them afterwards.
            self.take_reload()
        return self.wanted


class Slot:
    """A place for one Watcher."""

    def __init__(
        self, *, number: int, state: StateDirectory, settings: Path | None, stop: Stop, log: Log
    ) -> None:
        self._number = number
        self._state = state
        self._settings = settings
        self._stop = stop
        self._log = log
        self._said = ChangeOnly(clock=SystemClock(), repeat_seconds=3600.0)
        self._free_in: tuple[int, int, int] | None = None

    def run(self) -> None:
        """Observe whatever Shard the Plan puts here, until told to stop. Raises StateUnusable."""
        try:
            self._state.make()
        except OSError as error:
            raise StateUnusable(str(error)) from error
        lock = self._lock(f"slot-{self._number:02d}")
        if lock is None:
            return
        with lock:
            while not self._stop.wanted:
                plan, shard = self._assignment()
                if shard is None:
                    self._say_free()
                    self._stop.wait(WAIT_SECONDS)
                else:
                    self._said.reset()
                    self._observe(plan, shard)

    def _observe(self, plan: Plan, shard: PlannedShard) -> None:
        lock = self._lock(f"journal-{shard.id}", once=True)
        if lock is None:
            self._stop.wait(WAIT_SECONDS)
            return
        # Imported here: 20 MB that a free slot does not need.
        from shardsync.watch.service import observe  # noqa: PLC0415 (start-up cost, see above)

        with lock:
            observe(
                shard=shard, plan=plan, state=self._state, settings_file=self._settings,
                stop=self._stop, log=self._log.bind(shard=shard.id),
            )  # fmt: skip

    def _assignment(self) -> tuple[Plan, PlannedShard | None]:
        # Before it is read: one that comes in between is read the next time.
        mark = plan_mark(self._state.plan)
        if mark is not None and mark == self._free_in:
            return Plan(), None
        try:
            plan = read_plan(self._state.plan)
        except StateUnusable as error:
            if self._said.is_due(str(error)):
                self._log.error("plan.unusable", error=error)
            return Plan(), None
        if plan is None:
            return Plan(), None
        shard = plan.in_slot(self._number)
        self._free_in = mark if shard is None else None
        return plan, shard

    def _lock(self, name: str, *, once: bool = False) -> FileLock | None:
        """The lock, waited for (a second copy must not end in FATAL); None when told to stop."""
        while not self._stop.wanted:
            try:
                return FileLock.acquire(self._state.lock(name))
            except (AlreadyRunning, StateUnusable) as error:
                if self._said.is_due(str(error)):
                    self._log.warning("slot.waits", error=error)
            if once:
                break
            self._stop.wait(WAIT_SECONDS)
        return None

    def _say_free(self) -> None:
        if self._said.is_due("free"):
            self._log.info("slot.free", slot=self._number)


def main(arguments: list[str]) -> int:
    """Run the slot named on the command line; returns the exit code."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if set(options) != {"--state", "--settings", "--slot"} or not options["--slot"].isdigit():
        sys.stderr.write(_USAGE + "\n")
        return 2
    # An orphan of a killed supervisord must not go on beside its successor's slots.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    stop = Stop.on_signals()
    start_logging()
    number = int(options["--slot"])
    log = Log("watcher", slot=f"{number:02d}")
    state = StateDirectory(Path(options["--state"]))
    settings = Path(options["--settings"]) if options["--settings"] else None
    slot = Slot(number=number, state=state, settings=settings, stop=stop, log=log)
    try:
        patiently(slot.run, clock=SystemClock(), log=log, wait=stop.wait)
    except ShardsyncError as error:
        log.error("slot.failed", error=error, hint=error.remedy)  # noqa: TRY400 (as in the log)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
