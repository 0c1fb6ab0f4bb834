"""Rounds: comparisons and audits of a Node, piece by piece, and how far each has come.

A bootstrap or reconcile has its pieces in the open work, so it begins, advances and ends in
the transactions that move that; an audit has pieces of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardsync.clock import Clock
from shardsync.journal.open_work_rows import add_work
from shardsync.journal.records import AuditPiece, Gain, NodeKey, RoundKind, Work
from shardsync.journal.state_database import StateDatabase


class Rounds:
    """The write side; `StateReader.round` tells."""

    def __init__(self, *, database: StateDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def begin_audit(self, key: NodeKey, pieces: Sequence[AuditPiece]) -> None:
        """A round of the audit begins, with all its pieces; one that is open is dropped."""
        with self._database.transaction() as execute:
            execute("DELETE FROM audit_pieces WHERE tree = ? AND node = ?", key)
            execute(
                "INSERT OR REPLACE INTO rounds (tree, node, kind, began_at, is_whole, pieces)"
                " VALUES (?, ?, ?, ?, 1, ?)",
                (*key, RoundKind.AUDIT.value, self._clock.wall_us(), len(pieces)),
            )
            self._database.connection.executemany(
                "INSERT INTO audit_pieces (tree, node, path, scope, first, beyond)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                ((*key, item.path, item.scope.value, item.first, item.beyond) for item in pieces),
            )

    def note_audited(
        self, key: NodeKey, piece: AuditPiece, *, found: Sequence[Work], gain: Gain
    ) -> bool:
        """A piece was compared, `found` is to be repaired; whether it was the round's last.

        Crash safety: one transaction; a crash before compares the piece again.
        """
        with self._database.transaction() as execute:
            add_work(self._database.connection, key, found)
            execute("DELETE FROM audit_pieces WHERE id = ?", (piece.id,))
            self.add_gain(key, RoundKind.AUDIT, gain)
            left = execute(
                "SELECT count(*) FROM audit_pieces WHERE tree = ? AND node = ?", key
            ).fetchone()[0]
            if not left:
                self._end_round(key, RoundKind.AUDIT)
        return not left

    def begin_comparison(self, key: NodeKey, *, is_whole: bool) -> None:
        """Join the round that is open, if any: `pieces` are those done and those left.

        Within the caller's transaction. What is joined has all its pieces still to come, or was
        compared since it began.
        """
        self._database.connection.execute(
            "INSERT INTO rounds (tree, node, kind, began_at, is_whole, pieces)"
            " VALUES (?, ?, 'compare', ?, ?, 0) ON CONFLICT (tree, node, kind) DO UPDATE SET"
            " is_whole = max(is_whole, excluded.is_whole),"
            # What was only a part had not begun to compare the rest.
            " began_at = CASE WHEN is_whole THEN began_at ELSE excluded.began_at END",
            (*key, self._clock.wall_us(), int(is_whole)),
        )
        self._database.connection.execute(
            "UPDATE rounds SET pieces = done + (SELECT count(*) FROM work AS w WHERE"
            " w.tree = rounds.tree AND w.node = rounds.node"
            " AND w.reason IN ('bootstrap', 'reconcile'))"
            " WHERE tree = ? AND node = ? AND kind = 'compare'",
            key,
        )

    def end_comparison(self, key: NodeKey) -> None:
        """Where no piece is left, the round is over: the Node is what the Tree was.

        Within the caller's transaction.
        """
        left = self._database.connection.execute(
            "SELECT count(*) FROM work WHERE tree = ? AND node = ?"
            " AND reason IN ('bootstrap', 'reconcile')",
            key,
        ).fetchone()[0]
        if not left:
            self._end_round(key, RoundKind.COMPARE)

    def add_gain(self, key: NodeKey, kind: RoundKind, gain: Gain) -> None:
        """Within the caller's transaction: so much more of the round was done."""
        self._database.connection.execute(
            "UPDATE rounds SET done = done + ?, paths = paths + ?, bytes = bytes + ?,"
            " sent_bytes = sent_bytes + ?, differences = differences + ?,"
            " busy_us = busy_us + ? WHERE tree = ? AND node = ? AND kind = ?",
            (
                gain.done,
                gain.paths,
                gain.bytes,
                gain.sent_bytes,
                gain.differences,
                gain.busy_us,
                *key,
                kind.value,
            ),
        )

    def _end_round(self, key: NodeKey, kind: RoundKind) -> None:
        """The Node was compared as a whole; met first, and without a difference, it is owned."""
        self._database.connection.execute(
            "UPDATE nodes SET verified_at = max(coalesce(verified_at, 0), r.began_at),"
            " owned = CASE r.kind WHEN 'compare' THEN coalesce(owned, 1) ELSE owned END,"
            " audited_at = CASE r.kind WHEN 'audit' THEN r.began_at ELSE audited_at END"
            " FROM rounds AS r"
            " WHERE r.tree = nodes.tree AND r.node = nodes.name AND r.kind = ? AND r.is_whole"
            " AND nodes.tree = ? AND nodes.name = ?",
            (kind.value, *key),
        )
        self._database.connection.execute(
            "DELETE FROM rounds WHERE tree = ? AND node = ? AND kind = ?", (*key, kind.value)
        )
