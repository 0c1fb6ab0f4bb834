"""Whether a Node's target still is the folder that was met: told by rsync, and by the folder.

rsync makes a target that is missing, and the directories above a path, without being
asked; what was in them before is missing then, though nothing pending tells of
it. Of a plain folder device, inode and birth tell as well. It decides nothing and
compares nothing: the Node is looked at as after an outage (ship.first_contact).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import queue
import struct
import threading
from collections.abc import Container
from concurrent.futures import Future

from shardsync.config.settings import Target, TargetKind
from shardsync.ship.fold import ancestors
from shardsync.ship.outcome import RunResult

_ANSWER_SECONDS = 5.0
_IDLE_SECONDS = 60.0
_MADE_AT_MOST = 200

_AT_FDCWD = -100
_INODE_AND_BIRTH = 0x100 | 0x800
_STATX = struct.Struct("=32xQ40xqI44xII")
"""statx(2): the inode number, when it was made (s, ns), the device (major, minor)."""

Identity = tuple[int, ...]


class TargetFolder:
    """Signs that the folder is another, from runs and looks, until the Node is met again."""

    def __init__(self, *, target: Target) -> None:
        self._path = target.path if target.kind is TargetKind.LOCAL else None
        self._met: Identity | None = None
        self._may_be_made = False
        self._was_replaced = False
        self._made: dict[bytes, None] = {}
        self._asker = _Asker()
        self._answer: Future[Identity | None] | None = None
        self._late: Future[Identity | None] | None = None

    @property
    def is_in_doubt(self) -> bool:
        """Whether anything says that it is not what was met."""
        return self._was_replaced or bool(self._made)

    @property
    def made(self) -> tuple[bytes, ...]:
        """Directories that a run had to make though they were not in its list."""
        return tuple(self._made)

    def close(self) -> None:
        """The Node is not served any more."""
        self._asker.end()

    async def meet(self, *, is_missing: bool = False) -> None:
        """Forget all signs: the Node is compared from now on. `is_missing`: rsync will make it."""
        self._may_be_made = is_missing
        self._was_replaced = False
        self._made.clear()
        self._answer = None
        self._met = await self._identity()

    def note(self, result: RunResult) -> None:
        """Take in what a run that was to write said, whatever it came to."""
        if result.made_target:
            self._was_replaced = self._was_replaced or not self._may_be_made
            self._may_be_made = False
            self._met = None
        for path in result.made:
            if len(self._made) < _MADE_AT_MOST:
                self._made[path] = None

    def explain(self, named: Container[bytes]) -> None:
        """Forget the directories that are `named`, or below what is: b"" stands for all."""
        for path in list(self._made):
            if any(above in named for above in (path, *ancestors(path), b"")):
                del self._made[path]

    def ask(self) -> None:
        """Begin to look at a plain folder: the next `look` takes the answer, which may be there
        by then. A file system that hangs is asked no more until it goes on.
        """
        if self._path is not None and (self._late is None or self._late.done()):
            self._answer = self._asker.ask(self._path)

    async def look(self) -> None:
        """Look at a plain folder's identity: before a Batch, and before it counts."""
        if self._path is None or self._was_replaced:
            return
        now = await self._identity()
        if now is not None and self._met is not None and now != self._met:
            self._was_replaced = True
        self._met = self._met or now

    async def _identity(self) -> Identity | None:
        """Device, inode and birth, () where it is not there, None where that cannot be told.

        In a thread of its own, one at a time: it may lie on a file system that hangs, which
        holds this Node alone and is rsync's to tell.
        """
        if self._answer is None:
            self.ask()
        answer, self._answer = self._answer, None
        if answer is None:
            return None
        if not answer.done():
            await asyncio.wait({asyncio.wrap_future(answer)}, timeout=_ANSWER_SECONDS)
        if answer.done():
            return answer.result()
        self._late = answer
        return None


class _Asker:
    """A thread for questions that may hang; it ends when none came for a while.

    One for each question would take longer to start than to ask, and a pool's thread that
    hangs would hold up our exit.
    """

    def __init__(self) -> None:
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_running = False

    def ask(self, path: str) -> Future[Identity | None]:
        """The answer, whenever it comes; None where no thread can be had to look."""
        answer: Future[Identity | None] = Future()
        with self._lock:
            try:
                self._start(f"target {path}")
            except RuntimeError:
                answer.set_result(None)
            else:
                self._questions.put((path, answer))
        return answer

    def _start(self, name: str) -> None:
        if not self._is_running:
            threading.Thread(target=self._answer_all, name=name, daemon=True).start()
            self._is_running = True

    def end(self) -> None:
        """Do not wait for the next question, if none is asked yet."""
        with self._lock:
            if self._is_running:
                self._questions.put(None)

    def _answer_all(self) -> None:
        while True:
            try:
                question = self._questions.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                question = None
            if question is None:
                with self._lock:
                    if self._questions.empty():
                        self._is_running = False
                        return
                continue
            path, answer = question
            # Whoever asked may have gone: then nobody wants it.
            if answer.set_running_or_notify_cancel():
                answer.set_result(_identity(path))


_Question = tuple[str, Future[Identity | None]]

_LIBC = ctypes.CDLL(None, use_errno=True)


def _identity(path: str) -> Identity | None:
    """By statx(2), as Python has it not: a folder made where one was removed gets its inode."""
    buffer = ctypes.create_string_buffer(256)
    if _LIBC.statx(_AT_FDCWD, os.fsencode(path), 0, _INODE_AND_BIRTH, buffer):
        is_missing = ctypes.get_errno() in {errno.ENOENT, errno.ENOTDIR}
        return () if is_missing else None
    return _STATX.unpack_from(buffer)
