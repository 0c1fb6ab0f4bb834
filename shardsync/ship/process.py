"""A child process on the event loop: list in, lines out, ended with its children. No threads.

asyncio's own subprocess starts a thread per child on Python 3.11 and writes to
pipes in pieces of any length. Here the list is written in pieces of whole
entries that the kernel takes at once or not at all (pipe(7), PIPE_BUF): if we are
killed in between, rsync never reads half a name, which it might take for a
missing path and delete on the Node.

Crash safety: the child gets SIGTERM when we die (setpriv --pdeathsig, where there
is one), and the end of its list in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable

from shardsync.failpoints import Point, reach
from shardsync.ship.command import RsyncCommand

_READ_BYTES = 65_536
_MUCH_BYTES = 4_096
_BREATH_SECONDS = 0.02
"""rsync writes line by line: to be woken for each costs it and us more than the line itself."""
_PIPE_BYTES = 262_144
"""More than the busiest rsync says in that time."""
_EXIT_GRACE_SECONDS = 2.0
_DRAIN_SECONDS = 0.3


class EntryTooLong(ValueError):
    """A list entry is longer than what can be written whole, which rsync would refuse as well."""


class Child:
    """One running process, made by `start_child`. All calls on the event loop it was started on.

    `on_stdout` and `on_stderr` get what it prints, in pieces, as it comes.
    """

    def __init__(
        self,
        *,
        process: subprocess.Popen[bytes],
        stdin: int,
        pidfd: int,
        ended: asyncio.Future[int],
    ) -> None:
        self._process = process
        self._stdin: int | None = stdin
        self._outputs: dict[int, Callable[[bytes], None]] = {}
        self._taken = 0
        self._breathing: dict[int, asyncio.TimerHandle] = {}
        self._pidfd = pidfd
        self._ended = ended
        self._drained = asyncio.Event()
        self._ending = False
        self.activity = 0
        """Grows with each piece written or read; tells a busy child from a stuck one."""

    @property
    def pid(self) -> int:
        """Its process id, which is its process group's too."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.done()

    def listen(self, *, outputs: dict[int, Callable[[bytes], None]]) -> None:
        """Read from now on: descriptor -> who takes what comes from it. `start_child` calls it."""
        loop = asyncio.get_running_loop()
        self._outputs = outputs
        for descriptor in outputs:
            self._heed(descriptor)
        loop.add_reader(self._pidfd, self._reap)

    def pause(self) -> None:
        """Read nothing until `resume()`, which makes it wait when the pipe is full. Idempotent."""
        for descriptor in self._outputs:
            self._ignore(descriptor)

    def resume(self) -> None:
        """Read again after `pause()`. Idempotent."""
        for descriptor in self._outputs:
            self._heed(descriptor)

    async def write_list(self, entries: Iterable[bytes]) -> None:
        """Write the whole list, each entry with its end, and close stdin.

        Returns early, without an error, where the child no longer reads. Raises
        EntryTooLong before anything of that entry is written.
        """
        for piece in whole_pieces(entries):
            if not await self._write_piece(piece):
                break
            reach(Point.SHIP_LIST)
        self.close_stdin()

    def close_stdin(self) -> None:
        """End the list. Idempotent."""
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    async def wait(self) -> int:
        """Its exit code (negative: signal), once it ended and all it printed was read.

        A grandchild that keeps the pipes open (ssh's master does) is not waited for.
        """
        code = await asyncio.shield(self._ended)
        for descriptor in tuple(self._breathing):
            self._heed(descriptor)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), _DRAIN_SECONDS)
        # Where nobody read for so long, as it was paused or we were busy, its last words are there
        # still: as much as a pipe holds, and no more of what a grandchild goes on saying.
        for descriptor in tuple(self._outputs) * (_PIPE_BYTES // _READ_BYTES):
            if descriptor in self._outputs:
                self._read(descriptor)
        self._close_pipes()
        return code

    async def end(self) -> int:
        """End it and its children: SIGTERM, so that temporary files go, and SIGKILL in the end.

        Its stdin stays open until it is dead, so that it does not take a list that was cut
        short for a complete one and begin to work on it.
        """
        self._ending = True
        if self.is_running:
            self._signal(signal.SIGTERM)
            # A stopped process gets SIGTERM only when it goes on.
            self._signal(signal.SIGCONT)
            await asyncio.wait({self._ended}, timeout=_EXIT_GRACE_SECONDS)
        self.kill()
        return await self.wait()

    def kill(self) -> None:
        """SIGKILL to its whole group, if it still runs."""
        self._ending = True
        if self.is_running:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Not reaped yet (is_running), so neither pid nor group can have been used again.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _write_piece(self, piece: bytes) -> bool:
        loop = asyncio.get_running_loop()
        while self._stdin is not None and self.is_running:
            try:
                os.write(self._stdin, piece)
            except BlockingIOError:
                await self._await_room(loop)
            except (BrokenPipeError, ConnectionResetError):
                return False
            else:
                self.activity += 1
                return True
        return False

    async def _await_room(self, loop: asyncio.AbstractEventLoop) -> None:
        descriptor, room = self._stdin, loop.create_future()
        if descriptor is None:
            return
        loop.add_writer(descriptor, _settle, room)
        try:
            await asyncio.wait({room, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_writer(descriptor)

    def _read(self, descriptor: int) -> None:
        try:
            piece = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        if piece:
            reach(Point.SHIP_OUTPUT)
            self.activity += 1
            self._taken += len(piece)
            if self._taken > _MUCH_BYTES and self.is_running:
                self._breathe(descriptor)
            self._outputs[descriptor](piece)
        else:
            self._close_pipe(descriptor)

    def _heed(self, descriptor: int) -> None:
        self._ignore(descriptor)
        asyncio.get_running_loop().add_reader(descriptor, self._read, descriptor)

    def _ignore(self, descriptor: int) -> None:
        breath = self._breathing.pop(descriptor, None)
        if breath is not None:
            breath.cancel()
        asyncio.get_running_loop().remove_reader(descriptor)

    def _breathe(self, descriptor: int) -> None:
        """Let more of it come together; its pipe holds what rsync says meanwhile."""
        self._ignore(descriptor)
        later = asyncio.get_running_loop().call_later
        self._breathing[descriptor] = later(_BREATH_SECONDS, self._heed, descriptor)

    def _reap(self) -> None:
        if self._ending:
            # Its children go with it; before it is reaped, while its group's number is still its.
            self._signal(signal.SIGKILL)
        code = self._process.poll()
        if code is None:
            return
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set_result(code)
        self.close_stdin()

    def _close_pipe(self, descriptor: int) -> None:
        self._ignore(descriptor)
        os.close(descriptor)
        del self._outputs[descriptor]
        if not self._outputs:
            self._drained.set()

    def _close_pipes(self) -> None:
        for descriptor in tuple(self._outputs):
            self._close_pipe(descriptor)


def start_child(
    command: RsyncCommand,
    *,
    pass_fds: tuple[int, ...],
    on_stdout: Callable[[bytes], None],
    on_stderr: Callable[[bytes], None],
) -> Child:
    """Start `command` in a session of its own and listen to it. Raises OSError.

    Blocks for the 1 ms that fork and exec take.
    """
    run_as = command.run_as
    reach(Point.SHIP_SPAWN)
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        stdin, writer = _pipe(read=theirs, write=ours)
        stdout_reader, stdout = _pipe(read=ours, write=theirs)
        stderr_reader, stderr = _pipe(read=ours, write=theirs)
        # Not to be had by users who have many pipes already: it waits for us more often then.
        with contextlib.suppress(OSError):
            fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        process = subprocess.Popen(
            [*_mortal(), *command.argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            env=dict(command.environment),
            cwd="/",
            start_new_session=True,
            user=None if run_as is None else run_as.uid,
            group=None if run_as is None else run_as.gid,
            extra_groups=None if run_as is None else list(run_as.groups),
        )
        pidfd = _pidfd(process)
        ours.pop_all()
    for descriptor in (writer, stdout_reader, stderr_reader):
        os.set_blocking(descriptor, False)
    child = Child(
        process=process,
        stdin=writer,
        pidfd=pidfd,
        ended=asyncio.get_running_loop().create_future(),
    )
    child.listen(outputs={stdout_reader: on_stdout, stderr_reader: on_stderr})
    reach(Point.SHIP_SPAWNED)
    return child


def _pipe(*, read: contextlib.ExitStack, write: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe, each end closed with its stack: where the next one cannot be had, none is left."""
    ends = os.pipe()
    read.callback(os.close, ends[0])
    write.callback(os.close, ends[1])
    return ends


def _pidfd(process: subprocess.Popen[bytes]) -> int:
    """Without one nobody would learn of its end: it is ended at once. Raises OSError."""
    try:
        return os.pidfd_open(process.pid)
    except OSError:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def whole_pieces(entries: Iterable[bytes]) -> Iterable[bytes]:
    """`entries` joined into pieces of at most PIPE_BUF bytes, none cut. Raises EntryTooLong."""
    piece = bytearray()
    for entry in entries:
        if len(entry) > select.PIPE_BUF:
            raise EntryTooLong(f"a list entry of {len(entry)} bytes")
        if len(piece) + len(entry) > select.PIPE_BUF:
            yield bytes(piece)
            piece.clear()
        piece += entry
    if piece:
        yield bytes(piece)


def _mortal() -> tuple[str, ...]:
    """What makes a program die with us: 1 ms; a preexec_fn costs 8 (it forks the whole heap)."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
