"""Pending Changes of a Node, over all Shards, become distinct paths. Pure.

Linear in the Changes, and bounded by what the caller hands over at a time.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace

from shardsync.journal.plan import covers
from shardsync.journal.reader import ChangeRow
from shardsync.model import Kind, Scope


class Want(enum.IntFlag):
    """What must be looked at for one path; several may be wanted at once."""

    ATTRIBUTES = 1
    CONTENT = 2
    TREE = 4
    LISTING = 8


_CONTENT = Want.CONTENT


@dataclass(slots=True, kw_only=True)
class Pending:
    """All pending Changes of one path. `since`: observed_at of the oldest."""

    path: bytes
    want: Want
    since: int
    moved_from: bytes | None = None

    @property
    def wants_tree(self) -> bool:
        """Whether all below it is wanted, too."""
        # Nearly all want content alone, and an operation on flags costs as much as a look.
        return self.want is not _CONTENT and bool(self.want & Want.TREE)


def fold(rows: Iterable[ChangeRow], into: dict[bytes, Pending]) -> None:
    """Add Changes to the distinct paths in `into`.

    Content outweighs attributes, a whole tree outweighs its own entry, the
    oldest time is kept, the newest hint of a move wins.
    """
    for _, path, scope, kind, observed_at, moved_from in rows:
        want = _WANTS[scope, kind]
        known = into.get(path)
        if known is None:
            into[path] = Pending(path=path, want=want, since=observed_at, moved_from=moved_from)
            continue
        if known.want is not want:
            known.want |= want
        known.since = min(known.since, observed_at)
        if moved_from is not None:
            known.moved_from = moved_from


def join(into: dict[bytes, Pending], item: Pending) -> None:
    """Add one to the distinct paths in `into`, with what is wanted there already; changes none."""
    known = into.get(item.path)
    if known is None:
        into[item.path] = item
        return
    into[item.path] = replace(
        known,
        want=known.want | item.want,
        since=min(known.since, item.since),
        moved_from=known.moved_from or item.moved_from,
    )


def rebase(path: bytes, want: Want, subtree: bytes) -> tuple[bytes, Want] | None:
    """The path and want as a Node that takes only `subtree` sees them, or None: not its business.

    What happens to the subtree's own folder, or above it, concerns all of the
    Node where names below may have come or gone with it.
    """
    if not subtree:
        return (path, want)
    if covers(subtree, path) and path != subtree:
        return (path[len(subtree) + 1 :], want)
    if covers(path, subtree) and want & (Want.TREE | Want.LISTING | Want.CONTENT):
        below = Want.LISTING if path == subtree and not want & Want.TREE else Want.TREE
        return (b"", below)
    return None


def ancestors(path: bytes) -> Iterable[bytes]:
    """The directories above `path`, the shallowest first, without the root."""
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)


_WANTS = {
    (int(Scope.ENTRY), int(Kind.CONTENT)): Want.CONTENT,
    (int(Scope.ENTRY), int(Kind.ATTRIBUTES)): Want.ATTRIBUTES,
    (int(Scope.TREE), int(Kind.CONTENT)): Want.TREE,
    (int(Scope.TREE), int(Kind.ATTRIBUTES)): Want.TREE,
    (int(Scope.LISTING), int(Kind.CONTENT)): Want.LISTING | Want.ATTRIBUTES,
    (int(Scope.LISTING), int(Kind.ATTRIBUTES)): Want.LISTING | Want.ATTRIBUTES,
}
"""Looked up for each Change: operations on enums cost more than all else here."""
