"""What must hold at every moment of a soak, whatever goes wrong: looked at all the time."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shardsync.errors import ShardsyncError
from shardsync.journal.state_reader import StateReader
from tools.soaks.ground import STILL
from tools.soaks.site import Site, Sizes

_LOOK_SECONDS = 0.02
_CURSOR_SECONDS = 0.5
_SIZE_SECONDS = 20.0
_MOST_RSS = 300_000_000
_MOST_DESCRIPTORS = 600
"""While it looks at what is pending, sync keeps up to 128 directories open for each Node."""
_MOST_JOURNAL = 600_000_000
_MOST_WAL = 300_000_000
_STILL_FOLDERS = 4
_MOST_TOLD = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was taken `seconds` after the beginning, and what had been done by then."""

    seconds: float
    operations: int
    faults: int
    sizes: Sizes


class Keeper:
    """`begin` after the tree has its still files and every Node has them; `end` joins.

    `excused`: names of Nodes from which files were taken by hand, and "cursors" where
    state.db was replaced. `progress`: how many operations and faults there were so far.
    """

    def __init__(self, site: Site, *, progress: Callable[[], tuple[int, int]]) -> None:
        self.samples: list[Sample] = []
        self._progress = progress
        self._began = time.monotonic()
        self.broken: list[str] = []
        self.excused: set[str] = set()
        self.looks = 0
        self._site = site
        self._still: list[str] = []
        self._cursors: dict[tuple[str, str, str], int] = {}
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []

    def make_still(self) -> None:
        """Files that nobody ever touches."""
        for number in range(_STILL_FOLDERS):
            folder = self._site.tree / f"{STILL.decode()}{number}" / "deeper"
            folder.mkdir(parents=True)
            for path in (folder / "file", folder.parent / "file"):
                path.write_text(f"still {number}")
                self._still.append(os.path.relpath(path, self._site.tree))

    def begin(self) -> None:
        """Look from now on."""
        self._began = time.monotonic()
        for work in (self._look_at_still, self._look_at_cursors, self._look_at_sizes):
            self._threads.append(threading.Thread(target=self._run, args=(work,), daemon=True))
            self._threads[-1].start()

    def end(self) -> None:
        """Look no more."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def forgive(self) -> None:
        """What was excused has healed; it holds again from here on."""
        self._cursors.clear()
        self.excused.clear()

    def _run(self, work: Callable[[], None]) -> None:
        """Whoever looks no more is told of: what it looked at may break unseen."""
        try:
            work()
        except Exception:  # noqa: BLE001 (a thread's end)
            self._tell(f"looking failed: {traceback.format_exc()}")

    def _tell(self, text: str) -> None:
        if len(self.broken) < _MOST_TOLD:
            self.broken.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}")

    def _look_at_still(self) -> None:
        while not self._ending.wait(_LOOK_SECONDS):
            for name, folder in self._site.nodes.items():
                gone = [path for path in self._still if not (folder / path).exists()]
                if gone and name not in self.excused:
                    self._tell(f"{name}: untouched and gone: {', '.join(gone)}")
            self.looks += 1

    def _look_at_cursors(self) -> None:
        while not self._ending.wait(_CURSOR_SECONDS):
            for name in self._site.nodes:
                try:
                    cursors = StateReader(self._site.state.state_db).cursors(("main", name))
                except ShardsyncError:
                    continue  # just being replaced
                if "cursors" in self.excused:
                    continue
                for shard, cursor in cursors.items():
                    key = (name, shard, cursor.journal_id)
                    before = self._cursors.get(key, 0)
                    if cursor.position < before:
                        self._tell(f"{name}: Cursor in {shard} {before} -> {cursor.position}")
                    self._cursors[key] = cursor.position

    def _look_at_sizes(self) -> None:
        while not self._ending.wait(_SIZE_SECONDS):
            sizes = self._site.sizes()
            operations, faults = self._progress()
            seconds = time.monotonic() - self._began
            self.samples.append(
                Sample(seconds=seconds, operations=operations, faults=faults, sizes=sizes)
            )
            for text in too_much(sizes):
                self._tell(text)


def too_much(sizes: Sizes) -> list[str]:
    """What is beyond any bound."""
    found = [
        f"{name}: {taken:,} bytes of memory"
        for name, taken in sizes.rss_bytes.items()
        if taken > _MOST_RSS
    ]
    found += [
        f"{name}: {count} descriptors"
        for name, count in sizes.descriptors.items()
        if count > _MOST_DESCRIPTORS
    ]
    if sizes.journal_bytes > _MOST_JOURNAL or sizes.wal_bytes > _MOST_WAL:
        found.append(f"Journals: {sizes.journal_bytes:,} bytes, WAL: {sizes.wal_bytes:,}")
    return found


def paths_below(folder: Path) -> set[str]:
    """Every path of a Node."""
    return {
        os.path.join(parent, name)
        for parent, *lists in os.walk(folder)
        for names in lists
        for name in names
    }
