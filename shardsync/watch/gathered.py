"""What the next commit will journal: Changes folded by path, pure, bounded by the commits.

Both ways of seeing a change, events and scans, end here.
"""

from __future__ import annotations

from typing import Protocol

from shardsync.journal.writer import Row
from shardsync.model import Kind, Scope

_ENTRY = int(Scope.ENTRY)
_CONTENT = int(Kind.CONTENT)
_ATTRIBUTES = int(Kind.ATTRIBUTES)


class Filter(Protocol):
    """Which paths are no business of ours (config's PathFilter)."""

    def excludes(self, path: bytes, is_dir: bool) -> bool:  # noqa: FBT001 (config's signature)
        """Whether the settings exclude `path`."""
        ...

    def suspects(self, name: bytes) -> bool:
        """False where no path with this last name is excluded for it. For hot loops."""
        ...


class NoFilter:
    """Excludes nothing."""

    def excludes(self, path: bytes, is_dir: bool) -> bool:  # noqa: ARG002, FBT001 (as Filter)
        return False

    def suspects(self, name: bytes) -> bool:  # noqa: ARG002 (as Filter)
        return False


class Gathered:
    """Rows for one commit. A path stands once per Scope; `content` outweighs `attributes`."""

    def __init__(self) -> None:
        self.entries: dict[bytes, int] = {}
        self._folders: set[bytes] = set()
        self._moved: dict[bytes, bytes] = {}
        self._wide: dict[tuple[bytes, int], bytes | None] = {}
        self.skipped: list[bytes] = []
        """What `take` left out of its last rows."""

    def __len__(self) -> int:
        return len(self.entries) + len(self._wide)

    def entry(self, path: bytes, *, is_dir: bool = False, moved_from: bytes | None = None) -> None:
        """`path` alone, its bytes included."""
        self.entries[path] = _CONTENT
        if is_dir:
            self._folders.add(path)
        if moved_from is not None:
            self._moved[path] = moved_from

    def attributes(self, path: bytes, *, is_dir: bool = False) -> None:
        """`path` alone, its attributes only."""
        self.entries.setdefault(path, _ATTRIBUTES)
        if is_dir:
            self._folders.add(path)

    def tree(self, path: bytes, *, moved_from: bytes | None = None) -> None:
        """`path` and all below it."""
        key = (path, int(Scope.TREE))
        self._wide[key] = moved_from or self._wide.get(key)

    def listing(self, path: bytes) -> None:
        """The names in the directory `path`."""
        self._wide[path, int(Scope.LISTING)] = None

    def take(self, *, observed_at: int, excluded: Filter) -> list[Row]:
        """The rows, excluded paths left out, and begin anew. The root is never a row by itself."""
        excludes = excluded.excludes
        folders, moved = self._folders, self._moved
        rows: list[Row] = [
            (path, _ENTRY, kind, observed_at, moved.get(path))
            for path, kind in self.entries.items()
            if path and not excludes(path, path in folders)
        ]
        rows += [
            (path, scope, _CONTENT, observed_at, moved_from)
            for (path, scope), moved_from in self._wide.items()
            if not excludes(path, True)
        ]
        told = len(self.entries) + len(self._wide)
        self.skipped = [] if len(rows) == told else self._left_out({row[0] for row in rows})
        if moved or self._wide:
            rows = [_without_excluded_origin(row, excluded) for row in rows]
        self.entries, self._folders, self._moved, self._wide = {}, set(), {}, {}
        return rows

    def _left_out(self, told: set[bytes]) -> list[bytes]:
        contents = [path for path, kind in self.entries.items() if kind == _CONTENT]
        return [
            path for path in [*contents, *(path for path, _ in self._wide)] if path not in told
        ]


def _without_excluded_origin(row: Row, excluded: Filter) -> Row:
    """A Node has nothing at an excluded path, so nothing can be taken from there."""
    path, scope, kind, observed_at, moved_from = row
    if moved_from is None or not excluded.excludes(moved_from, scope != _ENTRY):
        return row
    return path, scope, kind, observed_at, None
