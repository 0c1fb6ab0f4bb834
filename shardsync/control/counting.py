"""How many directories lie where: bounded estimates for the planner, never exact figures.

Reads names and link counts only and gives up early: a Plan that is a little
uneven costs less than a start that waits for a full walk. What was not opened
is taken to be like its neighbours that were.
"""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shardsync.clock import Clock, SystemClock
from shardsync.watch.ground import Ground

_OPEN_COSTS_ENTRIES = 20
_LEAF = 2
"""The link count of a directory without subdirectories, on file systems that count them."""
_ENOUGH = 3
_TOP_LEVELS = 2
_GRAINS = 512
"""Detail below this part of the Tree helps no Plan: it is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a count may cost.

    `seconds` on the clock; up to `patience_seconds` where the top two levels
    are not known by then (a cold disk): without them nothing can be split.
    `entries`: names read; `looks`: directories looked at, `sample` of one
    directory's at most.
    """

    seconds: float
    entries: int
    looks: int
    patience_seconds: float = 0.0
    sample: int = 1 << 30


QUICK = Budget(seconds=0.3, patience_seconds=1.5, entries=400_000, looks=40_000, sample=256)
"""For a start: nothing is watched before it is through."""

THOROUGH = Budget(seconds=60.0, entries=50_000_000, looks=4_000_000)
"""For a re-plan: beside the Watchers, so only patience and memory bound it."""


class Excludes(Protocol):
    """What the settings exclude (config's PathFilter): not watched, so not counted."""

    def excludes(self, path: bytes, is_dir: bool) -> bool:  # noqa: FBT001 (config's signature)
        """Whether `path` is excluded."""
        ...


def processors() -> int:
    """Processors that this process may use (a container may have fewer than the machine)."""
    return len(os.sched_getaffinity(0))


def count_directories(
    root: Path,
    *,
    clock: Clock | None = None,
    excluded: Excludes | None = None,
    budget: Budget = QUICK,
) -> dict[bytes, int]:
    """Directories at and below each prefix, b"" being the root; at least {b"": 1}.

    A child's count lies within its parent's. Prefixes are named as far down
    as a Plan can want to cut. Never raises: what cannot be read counts as
    one directory, and the Watcher reports it.
    """
    survey = _Survey(
        root=os.fsencode(root), clock=clock or SystemClock(), excluded=excluded, budget=budget
    )
    survey.explore()
    return survey.counts()


class _Survey:
    """Opens directories in the order in which they promise most, until the budget is spent.

    Three lanes take turns: the one with most subdirectories, the oldest known
    (so that no corner is left out), the newest (so that some ways are followed
    to the bottom). A node is a number; its fields stand in lists side by side.
    """

    def __init__(
        self, *, root: bytes, clock: Clock, excluded: Excludes | None, budget: Budget
    ) -> None:
        self._root = root
        self._ground = Ground(root=root)
        self._clock = clock
        self._excluded = excluded
        self._entries = budget.entries
        self._looks = budget.looks
        now = self._clock.monotonic()
        self._deadline = now + budget.seconds
        self._last_deadline = now + max(budget.seconds, budget.patience_seconds)
        self._sample = budget.sample
        self._links_count = True
        self._names = [b""]
        self._parents = [0]
        self._depths = [0]
        # Subdirectories, by the link count; None where that is not known.
        self._below: list[int | None] = [None]
        # Opened: node -> its path, and its children (first, end) with how many more it has.
        self._paths: dict[int, bytes] = {}
        self._children: dict[int, tuple[int, int, int]] = {}
        self._heap = [(0, 0)]
        self._oldest = deque([0])
        self._newest = [0]

    def explore(self) -> None:
        """Open what is worth it."""
        for node in self._lanes():
            if self._entries <= 0 or self._clock.monotonic() >= self._deadline:
                break
            self._open(node)
        self._open_top()

    def _open_top(self) -> None:
        """What is left of the top levels: all of it was known before anything deeper."""
        while self._oldest and self._depths[self._oldest[0]] < _TOP_LEVELS:
            if self._entries <= 0 or self._clock.monotonic() >= self._last_deadline:
                return
            node = self._oldest.popleft()
            if node not in self._children:
                self._open(node)

    def _lanes(self) -> Iterator[int]:
        lanes: tuple[Callable[[], int], ...] = (
            self._fullest,
            self._oldest.popleft,
            self._newest.pop,
        )
        while self._oldest:
            for lane in lanes:
                try:
                    node = lane()
                    while node in self._children:
                        node = lane()
                except IndexError:
                    continue
                yield node

    def _fullest(self) -> int:
        return heapq.heappop(self._heap)[1]

    def _open(self, node: int) -> None:
        path = self._path(node)
        self._paths[node] = path
        first = len(self._names)
        names, rest = self._list(path, self._below[node])
        if self._below[node] is None and not node:
            self._check_links(path, len(names))
        for name in names:
            self._names.append(name)
            self._parents.append(node)
            self._depths.append(self._depths[node] + 1)
            self._below.append(None)
        self._children[node] = (first, len(self._names), rest)
        self._look(path, first)

    def _path(self, node: int) -> bytes:
        if not node:
            return b""
        above = self._paths[self._parents[node]]
        return above + b"/" + self._names[node] if above else self._names[node]

    def _list(self, path: bytes, below: int | None) -> tuple[list[bytes], int]:
        """(names of real subdirectories, how many more there are); a link count ends it early."""
        names: list[bytes] = []
        read, wanted = 0, -1 if below is None or not self._links_count else below
        try:
            with self._ground.listing(path) as found:
                for entry in found:
                    read += 1
                    if entry.is_dir(follow_symlinks=False):
                        names.append(os.fsencode(entry.name))
                        if len(names) == wanted:
                            break
                    if not read % 4096 and self._is_spent(read):
                        break
        except OSError:
            # Gone, unreadable, or its path too long: the Watcher reports it, an estimate need not.
            pass
        self._entries -= read + _OPEN_COSTS_ENTRIES
        rest = max(wanted - len(names), 0)
        names = [name for name in names if not self._excludes(path, name)]
        return sorted(names), rest

    def _is_spent(self, read: int) -> bool:
        return read >= self._entries or self._clock.monotonic() >= self._last_deadline

    def _excludes(self, path: bytes, name: bytes) -> bool:
        if self._excluded is None:
            return False
        return self._excluded.excludes(path + b"/" + name if path else name, True)

    def _check_links(self, path: bytes, subdirectories: int) -> None:
        """Some file systems say 1, or 2, whatever a directory holds."""
        links = _links(os.path.join(self._root, path))
        self._links_count = links - _LEAF >= subdirectories

    def _look(self, path: bytes, first: int) -> None:
        """Link counts of the newest nodes, all below one directory: of a sample, if many."""
        end = len(self._names)
        sample = min(self._sample, max(self._looks, 1))
        step = -(-(end - first) // sample) or 1
        base = os.path.join(self._root, path, b"")
        for node in range(first, end):
            if (node - first) % step == 0 and self._links_count:
                links = _links(base + self._names[node])
                self._looks -= 1
                self._below[node] = links - _LEAF if links >= _LEAF else None
            self._await(node)

    def _await(self, node: int) -> None:
        below = self._below[node]
        if below != 0:
            heapq.heappush(self._heap, (-(below or 0), node))
            self._oldest.append(node)
            self._newest.append(node)

    # --- adding up --------------------------------------------------------------------------

    def counts(self) -> dict[bytes, int]:
        """Of all that was seen, as far down as is of use."""
        sizes = self._sizes()
        found = {b"": sizes[0]}
        grain = sizes[0] // _GRAINS
        for node, (first, end, _) in self._children.items():
            if sizes[node] > grain:
                above = self._paths[node]
                prefix = above + b"/" if above else b""
                for child in range(first, end):
                    found[prefix + self._names[child]] = sizes[child]
        return found

    def _sizes(self) -> list[int]:
        levels: list[list[int]] = [[] for _ in range(max(self._depths) + 1)]
        for node, depth in enumerate(self._depths):
            levels[depth].append(node)
        sizes = [1] * len(self._names)
        for level in reversed(levels):
            self._size_level(level, sizes)
        return sizes

    def _size_level(self, level: list[int], sizes: list[int]) -> None:
        """Sizes of all directories of one depth; those below are known."""
        everywhere = _Likeness()
        siblings: dict[int, _Likeness] = {}
        unopened = []
        for node in level:
            if node in self._children:
                first, end, rest = self._children[node]
                listed = sum(sizes[first:end])
                sizes[node] = 1 + listed + rest * max(1, round(listed / max(end - first, 1)))
                subdirectories = end - first + rest
            elif self._below[node] == 0:
                subdirectories = 0
            else:
                unopened.append(node)
                continue
            everywhere.add(sizes[node], subdirectories)
            siblings.setdefault(self._parents[node], _Likeness()).add(sizes[node], subdirectories)
        for node in unopened:
            near = siblings.get(self._parents[node])
            like = near if near is not None and near.opened >= _ENOUGH else everywhere
            sizes[node] = like.size(self._below[node])


@dataclass(slots=True)
class _Likeness:
    """What is known of directories of one kind, to guess at another one."""

    known: int = 0
    opened: int = 0
    directories: int = 0
    subdirectories: int = 0

    def add(self, size: int, subdirectories: int) -> None:
        self.known += 1
        self.opened += subdirectories > 0
        self.directories += size
        self.subdirectories += subdirectories

    def size(self, below: int | None) -> int:
        """Of one with so many subdirectories, or of any."""
        if below is None:
            return max(1, round(self.directories / self.known)) if self.known else 1
        if not self.subdirectories:
            return 1 + below
        return 1 + round(below * (self.directories - self.known) / self.subdirectories)


def _links(path: bytes) -> int:
    try:
        return os.lstat(path).st_nlink
    except OSError:
        return 0
