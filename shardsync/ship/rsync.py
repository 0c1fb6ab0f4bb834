"""One run of rsync: started, handed its list, listened to, ended, judged. An adapter.

It owns the process from start to end and never decides what to ship. A started
run that waits for its list is what makes a warm start (ship.transport).
Memory is bounded whatever the Node says; time is bounded by the caller's
deadline and by silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Sequence

from shardsync.clock import Clock
from shardsync.config.settings import Target
from shardsync.escape import printable, printable_text
from shardsync.ship.command import FLAT, TIMEOUT_SECONDS, Purpose, RsyncCommand, list_bytes
from shardsync.ship.messages import Failure, MessageReader, OutLine, out_line
from shardsync.ship.outcome import BUSY_WORDS, Outcome, RunResult, Trouble, judge
from shardsync.ship.process import Child, start_child
from shardsync.ship.slots import Pulse

_LINE_BYTES = 40_000
"""A name of 4,096 bytes, each printed as `\\#ooo`, and the rest of the line."""
_PATH_BYTES = select.PIPE_BUF - 3
"""With `/` in front, `/` and NUL behind, it is still written whole; PATH_MAX is the same."""
_CHATTER_BYTES = 16 * 1024**2
"""What a Node may say beside its report before we end it."""
_SILENCE_SECONDS = 2.0 * TIMEOUT_SECONDS
"""Neither output nor I/O for that long: stuck, and rsync's own timeout did not notice."""
_LOOK_SECONDS = 0.5
_STILL_SECONDS = 2.0
_STARTED_SECONDS = 1.5
"""I/O after that is not only that of the start, which a Node that hangs sees, too."""
_DISCARD_SECONDS = 1.0
_NEW_DIRECTORY = b"cd+"
_MADE_AT_MOST = 10_000


_FIFO = "a file became a FIFO while rsync went through its list, and held it up"
_FIFO_WAITS = frozenset({b"wait_for_partner", b"fifo_open"})
"""Functions of fs/pipe.c."""
_SENT = b"@send|"
"""How a line of OUT_FORMAT begins that tells of a path sent."""


class RsyncRun:
    """One process. `start()`, then `finish()` once or `discard()`.

    `on_line` gets each line of rsync's report as it comes (figures, progress, differences);
    `on_end` what `finish` returns.
    """

    def __init__(
        self,
        *,
        command: RsyncCommand,
        purpose: Purpose,
        target: Target,
        source_fd: int,
        clock: Clock,
        on_line: Callable[[OutLine], None] | None = None,
        on_end: Callable[[RunResult], None] | None = None,
    ) -> None:
        self._command = command
        self._purpose = purpose
        self._source_fd = source_fd
        self._clock = clock
        self._on_line = on_line
        self._on_end = on_end
        self._reader = MessageReader(source_fd=source_fd, target=target)
        too_long = "rsync printed a line of no sensible length"
        self._out = LineSplitter(
            take=self._take_out,
            max_bytes=_LINE_BYTES,
            overflow=lambda: self._cut(too_long),
            take_all=self._count_out,
        )
        self._error = LineSplitter(
            take=self._take_error, max_bytes=_LINE_BYTES, overflow=lambda: self._cut(too_long)
        )
        self._child: Child | None = None
        self._chatter_bytes = 0
        self._paused = False
        self._cut_off = ""
        self._is_stale = False
        self._sent = 0
        self._deleted = 0
        self._made: list[bytes] = []
        self.started_at = 0.0

    @property
    def is_running(self) -> bool:
        """Whether the process was started and still lives."""
        return self._child is not None and self._child.is_running

    @property
    def pid(self) -> int | None:
        """The process id, None before the start."""
        return None if self._child is None else self._child.pid

    @property
    def was_refused(self) -> bool:
        """Whether it ended because the daemon takes no more connections."""
        said = self._reader.messages.unattributed
        return not self.is_running and any(BUSY_WORDS in line for line in said)

    def start(self) -> None:
        """Start rsync; it connects and then waits for its list. Raises OSError."""
        self.started_at = self._clock.monotonic()
        self._child = start_child(
            self._command,
            pass_fds=(self._source_fd,),
            on_stdout=self._out.feed,
            on_stderr=self._error.feed,
        )

    def pause(self) -> None:
        """Let rsync wait with its report, because nobody takes it in at the moment."""
        if self._child is not None:
            self._paused = True
            self._child.pause()

    def resume(self) -> None:
        """Take in its report again."""
        if self._child is not None:
            self._paused = False
            self._child.resume()

    async def finish(
        self,
        *,
        paths: Sequence[bytes],
        gone: Sequence[bytes] = (),
        entries: Sequence[bytes] | None = None,
        deadline_seconds: float,
        warm: bool = False,
        pulse: Pulse | None = None,
    ) -> RunResult:
        """Hand over the list, wait for the end and judge it.

        `entries` replaces the list made from `paths` and `gone` (filters). `deadline_seconds`
        bounds the whole call. `pulse` is told how it gets on. Raises RuntimeError before
        `start()`.
        """
        child = self._started()
        began = self._clock.monotonic()
        # All of it is made before the first byte is written: a list is never cut short.
        paths, too_long = without_long(paths)
        gone, too_long_gone = without_long(gone)
        self._reader.messages.failed.update(too_long)
        self._reader.messages.failed.update(too_long_gone)
        if entries is None:
            entries = tuple(list_bytes([*paths, *gone], purpose=self._purpose))
        paths, gone = [*paths, *too_long], [*gone, *too_long_gone]
        writing = asyncio.ensure_future(child.write_list(entries))
        try:
            exit_code = await self._watched(child, began + deadline_seconds, pulse or Pulse())
        finally:
            await self._settle(child, writing)
        self._out.end()
        self._error.end()
        seconds = self._clock.monotonic() - began
        result = self._result(exit_code, paths, gone, seconds=seconds, warm=warm)
        if self._on_end is not None:
            self._on_end(result)
        return result

    async def discard(self) -> None:
        """End it without a list: nothing was asked of it, nothing is done.

        An empty list ends rsync in some 40 ms; SIGTERM makes it sleep for 400.
        """
        if self._child is None or not self._child.is_running:
            return
        self._child.close_stdin()
        waiting = asyncio.ensure_future(self._child.wait())
        done, _ = await asyncio.wait({waiting}, timeout=_DISCARD_SECONDS)
        if not done:
            await self._child.end()
            await waiting

    def _started(self) -> Child:
        if self._child is None:
            raise RuntimeError("rsync was not started")
        return self._child

    async def _settle(self, child: Child, writing: asyncio.Future[None]) -> None:
        if not writing.done():
            writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        if child.is_running:
            await child.end()

    async def _watched(self, child: Child, deadline: float, pulse: Pulse) -> int:
        """The exit code; ended here at the deadline, after silence or too much noise."""
        waiting = asyncio.ensure_future(child.wait())
        # The list first: rsync waits for it, and nobody for the watch.
        await asyncio.sleep(0)
        watch = _Watch(pulse=pulse, mark=_progress(child), now=self._clock.monotonic())
        try:
            while True:
                left = max(0.0, min(_LOOK_SECONDS, deadline - self._clock.monotonic()))
                done, _ = await asyncio.wait({waiting}, timeout=left)
                if done:
                    return waiting.result()
                now = self._clock.monotonic()
                watch.look(mark=_progress(child), now=now, is_held=self._paused)
                if watch.is_still and waits_for_fifo(child.pid):
                    self._is_stale = True
                    return await child.end()
                self._cut_off = self._cut_off or _excess(now, deadline, watch.alive_at)
                if self._cut_off:
                    return await child.end()
        finally:
            waiting.cancel()
            pulse.ended()

    def _count_out(self, lines: bytes) -> bool:
        """Whether these whole lines merely tell of paths sent, and nobody is to hear of each.

        To look at them one by one costs a third of what a Batch costs us.
        """
        text = b"\n" + lines
        count = text.count(b"\n" + _SENT)
        if self._on_line is not None or count != lines.count(b"\n"):
            return False
        if b"\n" + _SENT + _NEW_DIRECTORY in text:
            return False
        self._sent += count
        return True

    def _take_out(self, line: bytes) -> None:
        report = out_line(line)
        if report is None:
            self._take_error(line)
            return
        if report.operation == "del.":
            self._deleted += 1
        elif report.operation == "send":
            self._sent += 1
            is_made = line.startswith(_SENT + _NEW_DIRECTORY)
            if is_made and len(self._made) < _MADE_AT_MOST:
                self._made.append(report.path)
        if self._on_line is not None:
            self._on_line(report)

    def _take_error(self, line: bytes) -> None:
        self._chatter_bytes += len(line) + 1
        if self._chatter_bytes > _CHATTER_BYTES:
            self._cut("rsync said more than can be read")
            return
        self._reader.read(line)

    def _cut(self, why: str) -> None:
        self._cut_off = self._cut_off or why
        if self._child is not None:
            self._child.kill()

    def _result(
        self,
        exit_code: int,
        paths: Sequence[bytes],
        gone: Sequence[bytes],
        *,
        seconds: float,
        warm: bool,
    ) -> RunResult:
        messages = self._reader.messages
        verdict = judge(
            exit_code=exit_code,
            messages=messages,
            purpose=self._purpose,
            paths=paths,
            gone=gone,
            cut_off=self._cut_off,
            stale=_FIFO if self._is_stale else "",
        )
        return RunResult(
            exit_code=exit_code,
            outcome=verdict.outcome,
            trouble=verdict.trouble,
            message=printable_text(verdict.message),
            listed=len(paths) + len(gone),
            sent=self._sent,
            deleted=self._deleted,
            bytes_sent=messages.bytes_sent,
            files=messages.files,
            file_bytes=messages.file_bytes,
            failed=verdict.failed,
            vanished=tuple(messages.vanished),
            unattributed=tuple(messages.unattributed),
            notes=tuple(messages.notes),
            stopped_deletions=messages.stopped_deletions,
            made_target=messages.made_target,
            made=self._made_above(paths),
            seconds=seconds,
            warm=warm,
        )

    def _made_above(self, paths: Sequence[bytes]) -> tuple[bytes, ...]:
        """The directories that had to be made without being asked for."""
        if self._purpose not in FLAT or not self._made:
            return ()
        listed = frozenset(paths)
        return tuple(path for path in self._made if path not in listed)


class _Watch:
    """Whether a run gets on, told from `mark`, which grows with its I/O."""

    def __init__(self, *, pulse: Pulse, mark: tuple[int, int], now: float) -> None:
        self._pulse = pulse
        self._mark = mark
        self._began_at = self._moved_at = self.alive_at = now
        self.is_still = False
        """No I/O for a while."""

    def look(self, *, mark: tuple[int, int], now: float, is_held: bool) -> None:
        """`is_held`: we ourselves take nothing in, so that it must wait."""
        if mark != self._mark:
            self._mark, self._moved_at = mark, now
            if now - self._began_at > _STARTED_SECONDS:
                self._pulse.moves()
        self.is_still = now - self._moved_at >= _STILL_SECONDS
        if self.is_still:
            self._pulse.still()
        self.alive_at = now if is_held else max(self.alive_at, self._moved_at)


class LineSplitter:
    """Bytes in, lines out; a line longer than `max_bytes` is dropped and told to `overflow`.

    `take_all` is asked first whether it takes all the lines that came, each with its end.
    """

    def __init__(
        self,
        *,
        take: Callable[[bytes], None],
        max_bytes: int,
        overflow: Callable[[], None],
        take_all: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self._take = take
        self._take_all = take_all
        self._max_bytes = max_bytes
        self._overflow = overflow
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Take in what came; hand on each line that is complete."""
        lines, end, self._rest = (self._rest + piece).rpartition(b"\n")
        if len(self._rest) > self._max_bytes:
            self._rest = b""
            self._overflow()
        if end and not self._take_all(lines + end):
            for line in lines.split(b"\n"):
                self._take(line)

    def end(self) -> None:
        """Hand on a last line that had no end."""
        if self._rest:
            self._take(self._rest)
            self._rest = b""


def without_long(paths: Sequence[bytes]) -> tuple[Sequence[bytes], dict[bytes, Failure]]:
    """(`paths` that rsync can take, the others with the reason)."""
    if all(len(path) <= _PATH_BYTES for path in paths):
        return paths, {}
    failure = Failure(reason=f"path is longer than the {_PATH_BYTES} bytes that rsync takes")
    return (
        [path for path in paths if len(path) <= _PATH_BYTES],
        {path: failure for path in paths if len(path) > _PATH_BYTES},
    )


def io_bytes(pid: int) -> int:
    """Bytes that the process has read and written so far, 0 where that cannot be told."""
    try:
        with open(f"/proc/{pid}/io", "rb", buffering=0) as file:
            lines = file.read(400).splitlines()
        return sum(int(line.split()[1]) for line in lines[:2])
    except (OSError, ValueError, IndexError):
        return 0


def waits_for_fifo(pid: int) -> bool:
    """Whether the process is held by opening a FIFO that nobody writes to; False where the kernel
    does not tell.
    """
    try:
        with open(f"/proc/{pid}/wchan", "rb", buffering=0) as file:
            return file.read(100) in _FIFO_WAITS
    except OSError:
        return False


def source_lost(error: OSError, *, listed: int) -> RunResult:
    """The result of a run that could not be started, as a rule because its source is gone."""
    return RunResult(
        exit_code=None,
        outcome=Outcome.NOTHING,
        trouble=Trouble.SOURCE,
        message=printable_text(f"cannot start: {error}"),
        listed=listed,
    )


def folder_moved_on(path: bytes) -> RunResult:
    """The result of a run that was not started, as its directory is at `path` no longer."""
    return RunResult(
        exit_code=None,
        outcome=Outcome.NOTHING,
        trouble=Trouble.MOVED_ON,
        message=f"{printable(path)}: renamed, or gone, since it was looked at",
        listed=1,
    )


def _progress(child: Child) -> tuple[int, int]:
    return (child.activity, io_bytes(child.pid) // 1024)


def _excess(now: float, deadline: float, last_progress_at: float) -> str:
    if now >= deadline:
        return "rsync ran beyond its deadline and was ended"
    if now - last_progress_at > _SILENCE_SECONDS:
        return f"rsync made no progress for {_SILENCE_SECONDS:.0f} s and was ended"
    return ""
