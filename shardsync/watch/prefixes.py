"""Which part of a Tree is one Shard's: the longest listed prefix owns a path."""

from __future__ import annotations

from collections.abc import Iterable

from shardsync.journal.plan import covers


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

    def set_apart(self, points: frozenset[bytes]) -> None:
        """These are scanned on their own from now on."""
        self.apart = points
        self.listed = self.mine | self.foreign | points

    def is_foreign(self, path: bytes) -> bool:
        """Whether a scan from above must not enter: another Shard's, or listed on its own."""
        return path in self.listed

    def owns(self, path: bytes) -> bool:
        """Whether the longest listed prefix of `path` is one of `mine`."""
        covering = [p for p in self.mine | self.foreign if covers(p, path)]
        return bool(covering) and max(covering, key=len) in self.mine

    def touches_foreign(self, *paths: bytes | None) -> bool:
        """Whether another owner's prefix lies below one of `paths`."""
        return any(
            other.startswith(path + b"/")
            for path in paths
            if path is not None
            for other in self.listed
        )
