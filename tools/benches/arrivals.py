"""When files arrive on a Node: the kernel tells of each rename into place.

rsync writes a file under another name and renames it, so what is told is whole.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

_IN_MOVED_TO = 0x80
_EVENT = struct.Struct("iIII")
_BUFFER = 1 << 20


class Arrivals:
    """Watches directories (not what is below) in a thread; `at`: name -> monotonic time."""

    def __init__(self, folders: Iterable[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        for folder in folders:
            libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _IN_MOVED_TO)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.at: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join()
        os.close(self._descriptor)

    def _read(self) -> None:
        news = select.poll()
        news.register(self._descriptor, select.POLLIN)
        while not self._ending.is_set():
            if news.poll(50):
                now = time.monotonic()
                self._take(os.read(self._descriptor, _BUFFER), now)

    def _take(self, buffer: bytes, now: float) -> None:
        offset = 0
        while offset < len(buffer):
            length = _EVENT.unpack_from(buffer, offset)[3]
            offset += _EVENT.size
            name = buffer[offset : offset + length].rstrip(b"\0")
            self.at.setdefault(os.fsdecode(name), now)
            offset += length
