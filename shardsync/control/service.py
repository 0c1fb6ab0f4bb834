"""The Coordinator as a program: locks, signals, and one tick a second.

SIGTERM and SIGINT end it, SIGHUP has it read its settings again. It lives
through every failure that waiting can mend and says so in the log.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from shardsync.clock import Clock, SystemClock
from shardsync.config.load import load_again, load_settings
from shardsync.config.settings import Settings
from shardsync.control.balance import Pace, Scales
from shardsync.control.coordinator import Coordinator, Tick
from shardsync.control.counting import processors
from shardsync.control.journals import JournalFolder
from shardsync.control.rootlock import RootLock
from shardsync.control.supervisord import SupervisorClient, SupervisorSlots
from shardsync.control.survey import DiskSurvey
from shardsync.errors import ShardsyncError
from shardsync.journal.locks import FileLock
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log, start_logging
from shardsync.patience import patiently

_TICK_SECONDS = 1.0
_BUSY_TICK_SECONDS = 0.2

Load = Callable[[], Settings]


class Roots:
    """The locks on the Trees' roots. A missing root is taken when it is there again."""

    def __init__(self, *, log: Log, trouble: ChangeOnly) -> None:
        self._log = log
        self._trouble = trouble
        self._locks: dict[Path, RootLock] = {}

    def hold(self, settings: Settings) -> None:
        """Hold the roots of these settings and no others. Raises AlreadyRunning."""
        roots = {tree.root for tree in settings.trees}
        for root in self._locks.keys() - roots:
            self._locks.pop(root).release()
        for root in sorted(roots - self._locks.keys()):
            try:
                self._locks[root] = RootLock.acquire(root)
            except OSError as error:
                if self._trouble.is_due(f"{root} {error}"):
                    self._log.warning("root.not_locked", root=root, error=error)

    def release(self) -> None:
        """Let go of all. Idempotent."""
        while self._locks:
            self._locks.popitem()[1].release()


class Service:
    """The loop around a Coordinator."""

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        roots: Roots,
        load: Load,
        clock: Clock,
        log: Log,
    ) -> None:
        self._coordinator = coordinator
        self._roots = roots
        self._load = load
        self._log = log
        self._trouble = ChangeOnly(clock=clock)
        self._woken = threading.Event()
        self._is_stopping = False
        self._must_reload = False

    def install_signals(self) -> None:
        """Signals only set flags; the loop looks at them."""
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        signal.signal(signal.SIGINT, lambda *_: self.stop())
        signal.signal(signal.SIGHUP, lambda *_: self.reload())

    def stop(self) -> None:
        """Have `run` return after the turn it is in."""
        self._is_stopping = True
        self._woken.set()

    def reload(self) -> None:
        """Have the settings read again in the next turn."""
        self._must_reload = True
        self._woken.set()

    def run(self) -> None:
        """Tick until told to stop. Raises AlreadyRunning where a root is another's."""
        self._roots.hold(self._coordinator.settings)
        while not self._is_stopping:
            busy = self.turn()
            self._woken.wait(_BUSY_TICK_SECONDS if busy else _TICK_SECONDS)
            self._woken.clear()

    def turn(self) -> bool:
        """One turn of the loop: reload if asked to, then tick. Whether the next is due soon."""
        try:
            if self._must_reload:
                self._must_reload = False
                self._take_settings()
            self._roots.hold(self._coordinator.settings)
            tick = self._coordinator.tick()
        except Exception as error:  # noqa: BLE001 (the service loop: what is not understood is logged)
            self._complain(error)
            return False
        self._tell(tick)
        return tick.is_new or tick.is_moving

    def _take_settings(self) -> None:
        """New settings, or the old ones where the new are wrong or their root is another's."""
        try:
            settings = self._load()
            self._roots.hold(settings)
        except ShardsyncError as error:
            self._log.error("settings.refused", error=error, hint=error.remedy)
            return
        self._coordinator.settings = settings
        self._log.info("settings.loaded", file=settings.source)

    def _tell(self, tick: Tick) -> None:
        for waiting in tick.waiting:
            if self._trouble.is_due(f"{waiting.tree} {waiting.reason}"):
                self._log.info(
                    "plan.waiting",
                    tree=waiting.tree,
                    reason=waiting.reason,
                    remedy=waiting.remedy or "-",
                )
        for shard in tick.removed:
            self._log.info("journal.removed", shard=shard)

    def _complain(self, error: Exception) -> None:
        if self._trouble.is_due(repr(error)):
            self._log.error("coordinator.failed", kind=type(error).__name__, error=error)


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM. Returns the exit code."""
    options = _parser().parse_args(argv)
    start_logging()
    log = Log("coordinator")
    # Until its own handler is there: whoever starts reads the newest settings anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    state = StateDirectory(path=options.state)
    pace = Pace(
        floor_directories=options.balance_floor,
        hold_seconds=options.balance_hold,
        pause_seconds=options.balance_pause,
    )
    try:
        patiently(lambda: _serve(state, options.settings, pace, log), clock=SystemClock(), log=log)
    except ShardsyncError as error:
        # A refusal is no bug: its remedy helps, its traceback does not.
        log.error("coordinator.refused", error=error, hint=error.remedy)  # noqa: TRY400 (as above)
        return error.exit_code
    log.info("coordinator.stopped")
    return 0


def _serve(state: StateDirectory, settings_file: Path, pace: Pace, log: Log) -> None:
    clock = SystemClock()

    def load() -> Settings:
        return load_again(settings_file, os.environ, settings_file.parent, state_dir=state.path)

    with FileLock.acquire(state.lock("instance")):
        # A root that is missing is waited for: it is no reason to drop the Plan.
        settings = load_settings(
            settings_file, os.environ, settings_file.parent, root_must_exist=False
        )
        survey = DiskSurvey(settings_file=settings_file, clock=clock, log=log)
        roots = Roots(log=log, trouble=ChangeOnly(clock=clock))
        coordinator = Coordinator(
            state=state,
            settings=settings,
            clock=clock,
            log=log,
            journals=JournalFolder(state=state, clock=clock),
            slots=SupervisorSlots(client=SupervisorClient(socket=state.supervisor_socket)),
            survey=survey,
            scales=Scales(pace=pace),
            processors=processors(),
        )
        service = Service(coordinator=coordinator, roots=roots, load=load, clock=clock, log=log)
        service.install_signals()
        log.info("coordinator.started", pid=os.getpid())
        try:
            service.run()
        finally:
            survey.close()
            roots.release()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shardsync.control.coordinator")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    # For tests and trials; `up` gives none of these.
    usual = Pace()
    parser.add_argument("--balance-floor", type=int, default=usual.floor_directories)
    parser.add_argument("--balance-hold", type=float, default=usual.hold_seconds)
    parser.add_argument("--balance-pause", type=float, default=usual.pause_seconds)
    return parser
