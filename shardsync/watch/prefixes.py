"""Which part of a Tree is one Shard's: the longest listed prefix owns a path."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable


class Prefixes:
    """Which paths are this Shard's: below `mine`, and not below one of `foreign`.

    `apart`: directories of the Shard that a scan from above must not enter,
    because they are scanned on their own (bind mounts of the Tree itself).
    """

    def __init__(self, *, mine: Iterable[bytes], foreign: Iterable[bytes]) -> None:
        self.mine = frozenset(mine)
        self.foreign = frozenset(foreign) - self.mine
        self.apart: frozenset[bytes] = frozenset()
        self.listed = self.mine | self.foreign
        self._sorted = sorted(self.listed)

    def set_apart(self, points: frozenset[bytes]) -> None:
        """These are scanned on their own from now on."""
        self.apart = points
        self.listed = self.mine | self.foreign | points
        self._sorted = sorted(self.listed)

    def is_foreign(self, path: bytes) -> bool:
        """Whether a scan from above must not enter: another Shard's, or listed on its own."""
        return path in self.listed

    def owns(self, path: bytes) -> bool:
        """Whether the longest listed prefix of `path` is one of `mine`."""
        while path not in self.mine:
            if not path or path in self.foreign:
                return False
            path = path.rpartition(b"/")[0]
        return True

    def touches_foreign(self, *paths: bytes | None) -> bool:
        """Whether another owner's prefix lies below one of `paths`."""
        # A Plan can list 100,000 prefixes, and this is asked for each directory that comes.
        return any(self._is_listed_below(path + b"/") for path in paths if path is not None)

    def _is_listed_below(self, start: bytes) -> bool:
        place = bisect_left(self._sorted, start)
        return place < len(self._sorted) and self._sorted[place].startswith(start)
