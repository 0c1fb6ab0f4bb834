"""Who may write: one process per lock, decided by the kernel and gone with the process.

An flock(2) on a file in `locks/`, which names its holder's pid for people.
Small imports only: an idle Watcher slot holds one too.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Self

from shardsync.errors import AlreadyRunning, StateUnusable

_TRIES = 5
_BETWEEN_TRIES_SECONDS = 0.02


class FileLock:
    """An flock held by this process, until `release` or its death, however it dies."""

    def __init__(self, *, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, path: Path) -> FileLock:
        """Take the lock at once, or raise AlreadyRunning with the holder's pid.

        Raises StateUnusable where the file cannot be opened. The file stays
        when the lock goes: unlinking it would let two processes lock two files.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateUnusable(f"lock {path}: {error.strerror}") from error
        try:
            _lock(descriptor, path)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            os.close(descriptor)
            raise StateUnusable(f"lock {path}: {error.strerror}") from error
        except AlreadyRunning:
            os.close(descriptor)
            raise
        return cls(path=path, descriptor=descriptor)

    def release(self) -> None:
        """Let go. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        held = "released" if self._descriptor is None else "held"
        return f"<FileLock {self.path} {held}>"


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at `path`. False where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared and for a moment only; `FileLock.acquire` tries again for that long.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(path: Path) -> int | None:
    """The pid written by the last holder of the lock at `path`, None where none is readable."""
    try:
        return int(path.read_text("ascii").strip())
    except (OSError, ValueError):
        return None


def _lock(descriptor: int, path: Path) -> None:
    for attempt in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if attempt == _TRIES - 1:
                pid = holder(path)
                by = f"process {pid}" if pid else "another process"
                raise AlreadyRunning(f"lock {path}: held by {by}") from error
            time.sleep(_BETWEEN_TRIES_SECONDS)
        else:
            return
