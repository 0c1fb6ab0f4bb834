"""Whether a Node's target still is the folder that was met: told by rsync, and by the folder.

rsync makes a target that is missing, and the directories above a path, without being
asked; what was in them before is missing then, though nothing pending tells of
it. Of a plain folder device, inode and birth tell as well. It decides nothing and
compares nothing: the Node is looked at as after an outage (ship.first_contact).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable, Container

from shardsync.config.settings import Target, TargetKind
from shardsync.ship.fold import ancestors
from shardsync.ship.outcome import RunResult

_ANSWER_SECONDS = 5.0
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
        self._asked: asyncio.Future[Identity | None] | None = None

    @property
    def is_in_doubt(self) -> bool:
        """Whether anything says that it is not what was met."""
        return self._was_replaced or bool(self._made)

    @property
    def made(self) -> tuple[bytes, ...]:
        """Directories that a run had to make though they were not in its list."""
        return tuple(self._made)

    async def meet(self, *, is_missing: bool = False) -> None:
        """Forget all signs: the Node is compared from now on. `is_missing`: rsync will make it."""
        self._may_be_made = is_missing
        self._was_replaced = False
        self._made.clear()
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
        path = self._path
        if path is None or (self._asked is not None and not self._asked.done()):
            return None
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Identity | None] = loop.create_future()
        self._asked = answer

        def ask() -> None:
            found = _identity(path)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_answer(answer, found))

        threading.Thread(target=ask, daemon=True).start()
        done, _ = await asyncio.wait({answer}, timeout=_ANSWER_SECONDS)
        return answer.result() if done else None


def _answer(future: asyncio.Future[Identity | None], found: Identity | None) -> Callable[[], None]:
    def give() -> None:
        if not future.done():
            future.set_result(found)

    return give


def _identity(path: str) -> Identity | None:
    """By statx(2), as Python has it not: a folder made where one was removed gets its inode."""
    buffer = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statx(_AT_FDCWD, os.fsencode(path), 0, _INODE_AND_BIRTH, buffer):
        is_missing = ctypes.get_errno() in {errno.ENOENT, errno.ENOTDIR}
        return () if is_missing else None
    return _STATX.unpack_from(buffer)
