"""state.db: Cursors, open work, Node states and answers. The sync process alone writes it.

One transaction records a Batch: the Cursors, what stays open, what is done.
It is written after rsync succeeded, never before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from shardsync.clock import Clock
from shardsync.errors import StateDamaged, StateUnusable
from shardsync.failpoints import Point, reach
from shardsync.journal.database import (
    STATE_VERSION,
    Transaction,
    connect_writer,
    is_damage,
    is_sound,
    unusable,
)
from shardsync.journal.records import (
    NODE_COLUMNS,
    AuditPiece,
    BatchRecord,
    Cursor,
    Gain,
    LinkedFile,
    NodeKey,
    NodeRow,
    RoundKind,
    Work,
)
from shardsync.journal.requests import RequestKind, RequestState
from shardsync.journal.state_reader import StateReader
from shardsync.journal.writer import set_aside
from shardsync.model import NodeState

_HISTORY_EVERY_US = 60_000_000
_BATCHES_KEPT = 100_000
_FOREIGN_LISTED = 100_000


class StateWriter:
    """The write side. Hold the sync process's flock before opening it.

    Crash safety: each method is one transaction. A state.db that is corrupt is
    set aside and made anew: Nodes without Cursors are then reconciled.
    """

    def __init__(self, *, connection: sqlite3.Connection, path: Path, clock: Clock) -> None:
        self.path = path
        self.read = StateReader(path)
        self._connection = connection
        self._clock = clock
        self._history_at: dict[NodeKey, int] = {}

    @classmethod
    def open(cls, path: Path, *, clock: Clock) -> Self:
        """Open or make state.db. Raises StateUnusable where the disk refuses."""
        try:
            connection = connect_writer(path, version=STATE_VERSION)
            if is_sound(connection, path):
                return cls(connection=connection, path=path, clock=clock)
            connection.close()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise unusable("state", path, error) from error
        except OSError as error:
            raise unusable("state", path, error) from error
        set_aside(path, clock)
        return cls.open(path, clock=clock)

    def is_at_fault(self, error: StateUnusable) -> bool:
        """Whether state.db is damaged: nothing helps but to open it anew, which sets it aside."""
        return isinstance(error, StateDamaged) and error.path == self.path

    def start(self, *, pid: int) -> None:
        """Note that a sync process begins."""
        self._run(
            "INSERT OR REPLACE INTO sync_process (only, pid, started_at) VALUES (1, ?, ?)",
            (pid, self._clock.wall_us()),
        )

    def set_metrics_error(self, message: str) -> None:
        """Note why /metrics is not served; "" where it is."""
        self._run("UPDATE sync_process SET metrics_error = ?", (message,))

    def set_settings(self, mark: str) -> None:
        """Note which settings are run by now: all that they ask for is under way."""
        self._run("UPDATE sync_process SET settings = ?", (mark,))

    def rename_node(self, key: NodeKey, new: NodeKey) -> None:
        """All that is remembered of a Node goes to its new name, which nothing is known of yet.

        Crash safety: one transaction; a Node is known under one of its names.
        """
        with self._transaction():
            for table, column in self._node_tables():
                self._connection.execute(
                    f"UPDATE {table} SET tree = ?, {column} = ?"  # noqa: S608 (our own names)
                    f" WHERE tree = ? AND {column} = ?",
                    (*new, *key),
                )

    def forget_node(self, key: NodeKey) -> None:
        """Drop all that is remembered of a Node: under this name it is a new one from now on."""
        with self._transaction():
            for table, column in self._node_tables():
                self._connection.execute(
                    f"DELETE FROM {table} WHERE tree = ? AND {column} = ?",  # noqa: S608 (as above)
                    key,
                )

    def _node_tables(self) -> list[tuple[str, str]]:
        """(table, column of the Node's name) of every table that remembers something of Nodes."""
        names = self._connection.execute(
            "SELECT m.name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c"
            " WHERE m.type = 'table' AND c.name = 'node'"
        )
        return [("nodes", "name"), *((row[0], "node") for row in names.fetchall())]

    def know_node(self, key: NodeKey) -> NodeRow:
        """The Node's row, made where it is new."""
        known = self.read.nodes().get(key) if self.path.exists() else None
        if known is not None:
            return known
        self._run(
            "INSERT OR IGNORE INTO nodes (tree, name, state) VALUES (?, ?, ?)",
            (*key, NodeState.BOOTSTRAPPING.value),
        )
        return self.read.nodes()[key]

    def set_node(self, key: NodeKey, **values: object) -> None:
        """Set columns of NodeRow."""
        unknown = values.keys() - set(NODE_COLUMNS)
        if unknown:
            raise ValueError(f"no columns of a Node: {sorted(unknown)}")
        assignments = ", ".join(f"{name} = ?" for name in values)
        self._run(
            f"UPDATE nodes SET {assignments} WHERE tree = ? AND name = ?",  # noqa: S608 (checked)
            (*values.values(), *key),
        )

    def set_tree(
        self, tree: str, *, identity: str | None = None, halted: str | None = None
    ) -> None:
        """Remember a root's accepted identity, or why its Tree is halted ("" = no more)."""
        with self._transaction():
            execute = self._connection.execute
            execute("INSERT OR IGNORE INTO trees (tree) VALUES (?)", (tree,))
            if identity is not None:
                execute("UPDATE trees SET identity = ? WHERE tree = ?", (identity, tree))
            if halted is not None:
                execute("UPDATE trees SET halted = ? WHERE tree = ?", (halted, tree))

    def record(self, key: NodeKey, batch: BatchRecord) -> None:
        """Move Cursors and work in one transaction: the progress that a Batch made.

        Crash safety: called after the effect. A crash before it ships the
        Batch again; the work rows of paths that failed come with the Cursors
        that have moved past them, or not at all.
        """
        with self._transaction():
            self._set_cursors(key, batch.cursors)
            self._connection.executemany(
                "DELETE FROM work WHERE id = ?", ((number,) for number in batch.work_done)
            )
            self._add_work(key, batch.work_added)
            if batch.cursors and batch.finished_at:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO batches (tree, node, shard, position, finished_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (
                        (*key, shard, cursor.position, batch.finished_at)
                        for shard, cursor in batch.cursors.items()
                    ),
                )
            if batch.gain is not None:
                self._add_gain(key, RoundKind.COMPARE, batch.gain)
                self._end_comparison(key)
            if batch.deleted_entries:
                self._connection.execute(
                    "INSERT INTO deletions (tree, node, at, entries) VALUES (?, ?, ?, ?)",
                    (*key, self._clock.wall_us(), batch.deleted_entries),
                )
            reach(Point.STATE_CURSORS if batch.cursors else Point.STATE_WORK)
        reach(Point.STATE_CURSORS_MOVED if batch.cursors else Point.STATE_WORK_DONE)

    def restart_node(
        self,
        key: NodeKey,
        *,
        cursors: Mapping[str, Cursor],
        work: Sequence[Work],
        state: NodeState,
        is_whole: bool = True,
    ) -> None:
        """Give a Node new Cursors and open work at once: a bootstrap or reconcile begins.

        `is_whole`: all of the Node is compared. Where one is under way, it is joined.
        """
        with self._transaction():
            self._set_cursors(key, cursors)
            self._add_work(key, work)
            self._begin_comparison(key, is_whole=is_whole)
            self._connection.execute(
                "UPDATE nodes SET state = ? WHERE tree = ? AND name = ?", (state.value, *key)
            )
            reach(Point.STATE_RESTART)

    def begin_audit(self, key: NodeKey, pieces: Sequence[AuditPiece]) -> None:
        """A round of the audit begins, with all its pieces; one that is open is dropped."""
        with self._transaction():
            execute = self._connection.execute
            execute("DELETE FROM audit_pieces WHERE tree = ? AND node = ?", key)
            execute(
                "INSERT OR REPLACE INTO rounds (tree, node, kind, began_at, is_whole, pieces)"
                " VALUES (?, ?, ?, ?, 1, ?)",
                (*key, RoundKind.AUDIT.value, self._clock.wall_us(), len(pieces)),
            )
            self._connection.executemany(
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
        with self._transaction():
            execute = self._connection.execute
            self._add_work(key, found)
            execute("DELETE FROM audit_pieces WHERE id = ?", (piece.id,))
            self._add_gain(key, RoundKind.AUDIT, gain)
            left = execute(
                "SELECT count(*) FROM audit_pieces WHERE tree = ? AND node = ?", key
            ).fetchone()[0]
            if not left:
                self._end_round(key, RoundKind.AUDIT)
        return not left

    def set_cursors(self, key: NodeKey, cursors: Mapping[str, Cursor]) -> None:
        """Set a Node's Cursors back: a replay."""
        with self._transaction():
            self._set_cursors(key, cursors)

    def add_work(self, key: NodeKey, work: Iterable[Work]) -> None:
        """Open work without moving a Cursor."""
        with self._transaction():
            self._add_work(key, work)

    def set_retry_due(self, key: NodeKey) -> None:
        """Make all open work and the Node itself due now: a flush tries at once."""
        with self._transaction():
            self._connection.execute(
                "UPDATE work SET not_before = 0 WHERE tree = ? AND node = ?", key
            )
            self._connection.execute(
                "UPDATE nodes SET not_before = 0 WHERE tree = ? AND name = ?", key
            )

    def set_foreign(self, key: NodeKey, paths: Sequence[bytes], *, unlisted: int = 0) -> None:
        """Add to the list of what is kept on a Node that is not owned.

        The list is cut where it grows long, the Node's count is not: `unlisted` are so many more,
        and the count then is the least that there is.
        """
        with self._transaction():
            known = self._connection.execute(
                "SELECT count(*) FROM foreign_paths WHERE tree = ? AND node = ?", key
            ).fetchone()[0]
            room = max(0, _FOREIGN_LISTED - known)
            paths, unlisted = paths[:room], unlisted + len(paths[room:])
            self._connection.executemany(
                "INSERT OR IGNORE INTO foreign_paths (tree, node, path) VALUES (?, ?, ?)",
                ((*key, path) for path in paths),
            )
            self._connection.execute(
                "UPDATE nodes SET foreign_paths = max(foreign_paths, ? + (SELECT count(*)"
                " FROM foreign_paths AS f WHERE f.tree = nodes.tree AND f.node = nodes.name))"
                " WHERE tree = ? AND name = ?",
                (unlisted, *key),
            )

    def clear_foreign(self, key: NodeKey) -> None:
        """Forget the list: the Node was adopted, or is compared anew."""
        with self._transaction():
            self._connection.execute("DELETE FROM foreign_paths WHERE tree = ? AND node = ?", key)
            self._connection.execute(
                "UPDATE nodes SET foreign_paths = 0 WHERE tree = ? AND name = ?", key
            )

    def note_links(self, tree: str, names: Mapping[bytes, LinkedFile]) -> None:
        """Remember names of files that have several.

        Whose they were before is kept for the retention, as by `forget_links`.
        """
        now = self._clock.wall_us()
        with self._transaction():
            self._connection.executemany(
                "UPDATE links SET is_gone = 1, noted_at = ? WHERE tree = ? AND path = ?"
                " AND is_gone = 0 AND (device, inode) != (?, ?)",
                ((now, tree, path, file.device, file.inode) for path, file in names.items()),
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO links (tree, path, device, inode, noted_at)"
                " VALUES (?, ?, ?, ?, ?)",
                ((tree, path, file.device, file.inode, now) for path, file in names.items()),
            )

    def forget_links(self, tree: str, file: LinkedFile, names: Iterable[bytes]) -> None:
        """These names are no longer that file's, nor is it known to have been searched for.

        Whose they were is kept for the retention: a Change may still be pending under one.
        """
        now = self._clock.wall_us()
        with self._transaction():
            self._connection.executemany(
                "UPDATE links SET is_gone = 1, noted_at = ? WHERE tree = ? AND path = ?"
                " AND device = ? AND inode = ?",
                ((now, tree, name, file.device, file.inode) for name in names),
            )
            self._connection.execute(
                "DELETE FROM link_searches WHERE tree = ? AND device = ? AND inode = ?",
                (tree, file.device, file.inode),
            )

    def note_link_search(self, tree: str, files: Iterable[LinkedFile]) -> None:
        """Remember that the whole Tree was searched for the names of these files."""
        with self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO link_searches (tree, device, inode, links)"
                " VALUES (?, ?, ?, ?)",
                ((tree, file.device, file.inode, file.links) for file in files),
            )

    def note_history(self, key: NodeKey, cursors: Mapping[str, Cursor]) -> bool:
        """Add a row a minute to the Cursors' history; returns whether one was due."""
        now = self._clock.wall_us()
        if now - self._history_at.get(key, 0) < _HISTORY_EVERY_US:
            return False
        self._history_at[key] = now
        with self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO cursor_history"
                " (tree, node, shard, at, journal_id, position) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (*key, shard, now, cursor.journal_id, cursor.position)
                    for shard, cursor in cursors.items()
                ),
            )
        return True

    def prune(self, *, before_us: int) -> None:
        """Drop history, finished requests and old Batch records: bounded by time and number."""
        with self._transaction():
            execute = self._connection.execute
            execute("DELETE FROM cursor_history WHERE at < ?", (before_us,))
            execute("DELETE FROM deletions WHERE at < ?", (before_us,))
            execute("DELETE FROM links WHERE is_gone = 1 AND noted_at < ?", (before_us,))
            execute("DELETE FROM batches WHERE finished_at < ?", (before_us,))
            execute(
                "DELETE FROM requests WHERE state != ? AND updated_at < ?",
                (RequestState.RUNNING.value, before_us),
            )
            for tree, node, shard, newest in execute(
                "SELECT tree, node, shard, count(*) FROM batches GROUP BY tree, node, shard"
            ).fetchall():
                if newest > _BATCHES_KEPT:
                    execute(
                        "DELETE FROM batches WHERE tree = ? AND node = ? AND shard = ?"
                        " AND position <= (SELECT position FROM batches WHERE tree = ?"
                        " AND node = ? AND shard = ? ORDER BY position DESC LIMIT 1 OFFSET ?)",
                        (tree, node, shard, tree, node, shard, _BATCHES_KEPT),
                    )

    def put_request(
        self, request_id: str, *, kind: RequestKind, body: str, total: int = 0
    ) -> None:
        """Record a request as running. Idempotent: the same id again changes nothing."""
        now = self._clock.wall_us()
        self._run(
            "INSERT OR IGNORE INTO requests (id, kind, body, state, total, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (request_id, kind.value, body, RequestState.RUNNING.value, total, now, now),
        )

    def answer_request(
        self,
        request_id: str,
        *,
        state: RequestState,
        exit_code: int = 0,
        message: str = "",
        done: int = 0,
        total: int = 0,
    ) -> None:
        """Say how a request stands."""
        self._run(
            "UPDATE requests SET state = ?, exit_code = ?, message = ?, done = ?, total = ?,"
            " updated_at = ? WHERE id = ?",
            (state.value, exit_code, message, done, total, self._clock.wall_us(), request_id),
        )

    def close(self) -> None:
        """Checkpoint and close."""
        self.read.close()
        self._connection.close()

    def _set_cursors(self, key: NodeKey, cursors: Mapping[str, Cursor]) -> None:
        now = self._clock.wall_us()
        self._connection.executemany(
            "INSERT OR REPLACE INTO cursors (tree, node, shard, journal_id, position, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                (*key, shard, cursor.journal_id, cursor.position, now)
                for shard, cursor in cursors.items()
            ),
        )

    def _add_work(self, key: NodeKey, work: Iterable[Work]) -> None:
        self._connection.executemany(
            "INSERT INTO work (tree, node, path, scope, compare, reason, since, request,"
            " attempts, not_before, last_error, first, beyond)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (tree, node, path, scope, reason, first) DO UPDATE SET"
            " since = min(since, excluded.since), attempts = excluded.attempts,"
            " compare = excluded.compare, not_before = excluded.not_before,"
            " last_error = excluded.last_error, beyond = CASE WHEN beyond = x''"
            " OR excluded.beyond = x'' THEN x'' ELSE max(beyond, excluded.beyond) END,"
            " request = CASE excluded.request WHEN '' THEN request ELSE excluded.request END",
            (
                (
                    *key,
                    item.path,
                    item.scope.value,
                    item.compare.value,
                    item.reason.value,
                    item.since,
                    item.request,
                    item.attempts,
                    item.not_before,
                    item.last_error,
                    item.first,
                    item.beyond,
                )
                for item in work
            ),
        )

    def _begin_comparison(self, key: NodeKey, *, is_whole: bool) -> None:
        """Join the round that is open, if any: `pieces` are those done and those left.

        What is joined has all its pieces still to come, or was compared since it began.
        """
        self._connection.execute(
            "INSERT INTO rounds (tree, node, kind, began_at, is_whole, pieces)"
            " VALUES (?, ?, 'compare', ?, ?, 0) ON CONFLICT (tree, node, kind) DO UPDATE SET"
            " is_whole = max(is_whole, excluded.is_whole),"
            # What was only a part had not begun to compare the rest.
            " began_at = CASE WHEN is_whole THEN began_at ELSE excluded.began_at END",
            (*key, self._clock.wall_us(), int(is_whole)),
        )
        self._connection.execute(
            "UPDATE rounds SET pieces = done + (SELECT count(*) FROM work AS w WHERE"
            " w.tree = rounds.tree AND w.node = rounds.node"
            " AND w.reason IN ('bootstrap', 'reconcile'))"
            " WHERE tree = ? AND node = ? AND kind = 'compare'",
            key,
        )

    def _end_comparison(self, key: NodeKey) -> None:
        """Where no piece is left, the round is over: the Node is what the Tree was."""
        left = self._connection.execute(
            "SELECT count(*) FROM work WHERE tree = ? AND node = ?"
            " AND reason IN ('bootstrap', 'reconcile')",
            key,
        ).fetchone()[0]
        if not left:
            self._end_round(key, RoundKind.COMPARE)

    def _end_round(self, key: NodeKey, kind: RoundKind) -> None:
        """The Node was compared as a whole; met first, and without a difference, it is owned."""
        self._connection.execute(
            "UPDATE nodes SET verified_at = max(coalesce(verified_at, 0), r.began_at),"
            " owned = CASE r.kind WHEN 'compare' THEN coalesce(owned, 1) ELSE owned END,"
            " audited_at = CASE r.kind WHEN 'audit' THEN r.began_at ELSE audited_at END"
            " FROM rounds AS r"
            " WHERE r.tree = nodes.tree AND r.node = nodes.name AND r.kind = ? AND r.is_whole"
            " AND nodes.tree = ? AND nodes.name = ?",
            (kind.value, *key),
        )
        self._connection.execute(
            "DELETE FROM rounds WHERE tree = ? AND node = ? AND kind = ?", (*key, kind.value)
        )

    def _add_gain(self, key: NodeKey, kind: RoundKind, gain: Gain) -> None:
        self._connection.execute(
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

    def _run(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise unusable("state", self.path, error) from error

    def _transaction(self) -> Transaction:
        return Transaction(self._connection, name="state", path=self.path)
