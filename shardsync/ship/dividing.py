"""What a Node takes of the Tree, divided into pieces that are compared each by itself.

As the Tree is now, and by how many directories its Shards have.
"""

from __future__ import annotations

from shardsync.clock import Clock
from shardsync.journal.records import AuditPiece, Compare, Work, WorkReason
from shardsync.model import Scope
from shardsync.ship.batch import IsExcluded
from shardsync.ship.journals import TreeJournals
from shardsync.ship.look import LookKind
from shardsync.ship.pieces import Piece, held, split, wanted_pieces
from shardsync.ship.view import NodeView

_MOST_TOPS = 2_000
"""Directories at the top of which the second level is looked at."""


class Dividing:
    """Looks at directories only, and writes nothing."""

    def __init__(
        self, *, journals: TreeJournals, view: NodeView, is_excluded: IsExcluded, clock: Clock
    ) -> None:
        self._journals = journals
        self._view = view
        self._is_excluded = is_excluded
        self._clock = clock

    def tops(self) -> list[bytes]:
        """The root and the directories in it, as far as they can be listed in one run."""
        names = [name for name in self._view.folders(b"") if not self._is_excluded(name, True)]
        return [b"", *names[:_MOST_TOPS]]

    def work(
        self, path: bytes, reason: WorkReason, compare: Compare, request: str = ""
    ) -> list[Work]:
        """All at and below `path` as rows; a path that is no directory is one row."""
        now = self._clock.wall_us()
        pieces = [Piece(path=path, scope=Scope.ENTRY)]
        if not path or self._view.look(path).kind is LookKind.DIRECTORY:
            pieces = self._split(path)
        return [
            Work(
                path=piece.path,
                scope=piece.scope,
                compare=compare,
                reason=reason,
                since=now,
                request=request,
                first=piece.first,
                beyond=piece.beyond,
            )
            for piece in pieces
        ]

    def for_audit(self) -> list[AuditPiece]:
        """All of the Node as an audit goes through it."""
        return [
            AuditPiece(path=piece.path, scope=piece.scope, first=piece.first, beyond=piece.beyond)
            for piece in self._split(b"")
            if piece.scope is not Scope.ENTRY
        ]

    def paths_of(self, piece: AuditPiece) -> list[bytes]:
        """The paths that a TREE of an audit stands for now. Raises OSError."""
        found = Piece(path=piece.path, scope=piece.scope, first=piece.first, beyond=piece.beyond)
        return held([found], self._view.folders, self._is_excluded)

    def _split(self, path: bytes) -> list[Piece]:
        wanted = wanted_pieces(self._journals.directories())
        return split(path, folders=self._folders, wanted=wanted)

    def _folders(self, path: bytes) -> list[bytes]:
        prefix = path + b"/" if path else b""
        try:
            names = self._view.folders(path)
        except OSError:
            if not path:
                raise
            # As a piece of its own it is rsync that says why it cannot be read.
            return []
        return [name for name in names if not self._is_excluded(prefix + name, True)]
