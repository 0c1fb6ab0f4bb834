"""What rsync does on a Node, seen by the kernel: how often a file came, and what went."""

from __future__ import annotations

import os
import select
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from shardsync.inotify import DELETE, ISDIR, MOVED_FROM, MOVED_TO, ONLYDIR, Inotify, decode


class Arrivals:
    """Watches folders of a Node that stay there. rsync renames each file it sent into place."""

    def __init__(self, node: Path, folders: Iterable[str]) -> None:
        self._inotify = Inotify.open()
        self._folders = {
            self._inotify.add(
                os.fsencode(node / folder), MOVED_TO | MOVED_FROM | DELETE | ONLYDIR
            ): folder
            for folder in folders
        }
        self._came: Counter[str] = Counter()
        self._went: list[str] = []
        self._lock = threading.Lock()
        self._wake, self._woken = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def take(self) -> tuple[Counter[str], list[str]]:
        """(how often each file came, files that went) since the last call; read up to now."""
        with self._lock:
            self._read()
            came, went = self._came, self._went
            self._came, self._went = Counter(), []
        return came, went

    def close(self) -> None:
        """Watch no more."""
        os.write(self._woken, b"x")
        self._thread.join()
        self._inotify.close()
        os.close(self._wake)
        os.close(self._woken)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._inotify.fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wake in ready:
                return
            with self._lock:
                self._read()

    def _read(self) -> None:
        for wd, mask, _, name in decode(self._inotify.read()):
            # A temporary file of rsync's has a name of its own, with a dot before it.
            if wd not in self._folders or mask & ISDIR or name.startswith(b"."):
                continue
            path = f"{self._folders[wd]}/{os.fsdecode(name)}"
            if mask & MOVED_TO:
                self._came[path] += 1
            else:
                self._went.append(path)
