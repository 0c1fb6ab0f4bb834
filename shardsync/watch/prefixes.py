"""Which part of a Tree is one Shard's: the longest listed prefix owns a path."""

from __future__ import annotations

from collections.abc import Iterable

from shardsync.journal.plan import covers


class Prefixes:
    """Which paths are this Shard's: below `mine`, and not below one of `foreign`."""

    def __init__(self, *, mine: Iterable[bytes], foreign: Iterable[bytes]) -> None:
        self.mine = frozenset(mine)
        self.foreign = frozenset(foreign) - self.mine
        self.listed = self.mine | self.foreign

    def is_foreign(self, path: bytes) -> bool:
        """Whether a directory belongs to another Shard, or is a prefix listed on its own."""
        return path in self.listed

    def owns(self, path: bytes) -> bool:
        """Whether the longest listed prefix of `path` is one of `mine`."""
        covering = [p for p in self.listed if covers(p, path)]
        return bool(covering) and max(covering, key=len) in self.mine

    def touches_foreign(self, *paths: bytes | None) -> bool:
        """Whether another owner's prefix lies below one of `paths`."""
        return any(
            other.startswith(path + b"/")
            for path in paths
            if path is not None
            for other in self.listed
        )
