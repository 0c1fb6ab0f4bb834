"""How many directories lie where: bounded estimates for the planner, never exact figures.

Reads names only and gives up early: a Plan that is a little uneven costs
less than a start that waits for a full walk.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

_DEPTH = 3
_DIRECTORIES_MAX = 10_000
_ENTRIES_MAX = 500_000


def processors() -> int:
    """Processors that this process may use (a container may have fewer than the machine)."""
    return len(os.sched_getaffinity(0))


def count_directories(
    root: Path,
    *,
    depth: int = _DEPTH,
    directories_max: int = _DIRECTORIES_MAX,
    entries_max: int = _ENTRIES_MAX,
) -> dict[bytes, int]:
    """Directories at and below each prefix down to `depth`, b"" being the root; at least {b"": 1}.

    Breadth first, so a cap that is hit (`directories_max` opened,
    `entries_max` names read) costs detail evenly. What lies deeper, or was
    not opened, counts by its link count, which on most file systems is its
    number of subdirectories plus 2. Unreadable directories count as one.
    """
    own: dict[bytes, int] = {}
    waiting = deque([(b"", 0)])
    opened = entries = 0
    base = os.fsencode(root)
    while waiting:
        prefix, level = waiting.popleft()
        path = os.path.join(base, prefix)
        if level >= depth or opened >= directories_max or entries >= entries_max:
            own[prefix] = 1 + _subdirectories(path)
            continue
        own[prefix] = 1
        opened += 1
        names, read = _list(path, entries_max - entries)
        entries += read
        waiting.extend((os.path.join(prefix, name), level + 1) for name in names)
    return _totals(own)


def _list(path: bytes, entries_max: int) -> tuple[list[bytes], int]:
    """(names of real subdirectories, entries read)."""
    names = []
    read = 0
    try:
        with os.scandir(path) as found:
            for entry in found:
                read += 1
                if entry.is_dir(follow_symlinks=False):
                    names.append(entry.name)
                if read >= entries_max:
                    break
    except OSError:
        # Gone or unreadable: the Watcher reports it, an estimate need not.
        return names, read
    return sorted(names), read


def _subdirectories(path: bytes) -> int:
    try:
        return max(os.lstat(path).st_nlink - 2, 0)
    except OSError:
        return 0


def _totals(own: dict[bytes, int]) -> dict[bytes, int]:
    totals = dict(own)
    for prefix in sorted(own, key=lambda prefix: prefix.count(b"/"), reverse=True):
        if prefix:
            totals[prefix.rpartition(b"/")[0]] += totals[prefix]
    return totals
