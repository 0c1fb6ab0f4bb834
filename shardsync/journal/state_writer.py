"""state.db as the sync process alone writes it: Nodes, their Cursors, and their open work.

What else is in it has modules of its own, each with its tables. One transaction
records a Batch: the Cursors, what stays open, what is done. It is written after
rsync succeeded, never before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from shardsync.clock import Clock
from shardsync.errors import StateUnusable
from shardsync.failpoints import Point, reach
from shardsync.journal.foreign_paths import ForeignPaths
from shardsync.journal.link_names import LinkNames
from shardsync.journal.open_work_rows import add_work
from shardsync.journal.received import Received
from shardsync.journal.records import (
    NODE_COLUMNS,
    BatchRecord,
    Cursor,
    NodeKey,
    NodeRow,
    RoundKind,
    Work,
)
from shardsync.journal.requests import RequestState
from shardsync.journal.rounds import Rounds
from shardsync.journal.state_database import StateDatabase
from shardsync.journal.state_reader import StateReader
from shardsync.model import NodeState

_HISTORY_EVERY_US = 60_000_000
_BATCHES_KEPT = 100_000


class StateWriter:
    """The write side. Hold the sync process's flock before opening it.

    Crash safety: each method is one transaction. A state.db that is corrupt is
    set aside and made anew: Nodes without Cursors are then reconciled.
    """

    def __init__(self, *, database: StateDatabase, clock: Clock) -> None:
        self.path = database.path
        self.read = StateReader(database.path)
        self.rounds = Rounds(database=database, clock=clock)
        self.foreign = ForeignPaths(database=database)
        self.links = LinkNames(database=database, clock=clock)
        self.received = Received(database=database, clock=clock)
        self._database = database
        self._clock = clock
        self._history_at: dict[NodeKey, int] = {}

    @classmethod
    def open(cls, path: Path, *, clock: Clock) -> Self:
        """Open or make state.db. Raises StateUnusable where the disk refuses."""
        return cls(database=StateDatabase.open(path, clock=clock), clock=clock)

    def is_at_fault(self, error: StateUnusable) -> bool:
        """Whether state.db is damaged: nothing helps but to open it anew, which sets it aside."""
        return self._database.is_at_fault(error)

    def start(self, *, pid: int) -> None:
        """Note that a sync process begins."""
        self._database.run(
            "INSERT OR REPLACE INTO sync_process (only, pid, started_at) VALUES (1, ?, ?)",
            (pid, self._clock.wall_us()),
        )

    def set_metrics_error(self, message: str) -> None:
        """Note why /metrics is not served; "" where it is."""
        self._database.run("UPDATE sync_process SET metrics_error = ?", (message,))

    def set_settings(self, mark: str) -> None:
        """Note which settings are run by now: all that they ask for is under way."""
        self._database.run("UPDATE sync_process SET settings = ?", (mark,))

    def rename_node(self, key: NodeKey, new: NodeKey) -> None:
        """All that is remembered of a Node goes to its new name, which nothing is known of yet.

        Crash safety: one transaction; a Node is known under one of its names.
        """
        with self._database.transaction():
            for table, column in self._node_tables():
                self._database.connection.execute(
                    f"UPDATE {table} SET tree = ?, {column} = ?"  # noqa: S608 (our own names)
                    f" WHERE tree = ? AND {column} = ?",
                    (*new, *key),
                )

    def forget_node(self, key: NodeKey) -> None:
        """Drop all that is remembered of a Node: under this name it is a new one from now on."""
        with self._database.transaction():
            for table, column in self._node_tables():
                self._database.connection.execute(
                    f"DELETE FROM {table} WHERE tree = ? AND {column} = ?",  # noqa: S608 (as above)
                    key,
                )

    def _node_tables(self) -> list[tuple[str, str]]:
        """(table, column of the Node's name) of every table that remembers something of Nodes."""
        names = self._database.connection.execute(
            "SELECT m.name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c"
            " WHERE m.type = 'table' AND c.name = 'node'"
        )
        return [("nodes", "name"), *((row[0], "node") for row in names.fetchall())]

    def know_node(self, key: NodeKey) -> NodeRow:
        """The Node's row, made where it is new."""
        known = self.read.node(key) if self.path.exists() else None
        if known is not None:
            return known
        self._database.run(
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
        self._database.run(
            f"UPDATE nodes SET {assignments} WHERE tree = ? AND name = ?",  # noqa: S608 (checked)
            (*values.values(), *key),
        )

    def set_tree(
        self, tree: str, *, identity: str | None = None, halted: str | None = None
    ) -> None:
        """Remember a root's accepted identity, or why its Tree is halted ("" = no more)."""
        with self._database.transaction():
            execute = self._database.connection.execute
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
        with self._database.transaction():
            self._set_cursors(key, batch.cursors)
            self._database.connection.executemany(
                "DELETE FROM work WHERE id = ?", ((number,) for number in batch.work_done)
            )
            add_work(self._database.connection, key, batch.work_added)
            if batch.cursors and batch.finished_at:
                self._database.connection.executemany(
                    "INSERT OR REPLACE INTO batches (tree, node, shard, position, finished_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (
                        (*key, shard, cursor.position, batch.finished_at)
                        for shard, cursor in batch.cursors.items()
                    ),
                )
            if batch.gain is not None:
                self.rounds.add_gain(key, RoundKind.COMPARE, batch.gain)
                self.rounds.end_comparison(key)
            if batch.deleted_entries:
                self._database.connection.execute(
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
        with self._database.transaction():
            self._set_cursors(key, cursors)
            add_work(self._database.connection, key, work)
            self.rounds.begin_comparison(key, is_whole=is_whole)
            self._database.connection.execute(
                "UPDATE nodes SET state = ? WHERE tree = ? AND name = ?", (state.value, *key)
            )
            reach(Point.STATE_RESTART)

    def set_cursors(self, key: NodeKey, cursors: Mapping[str, Cursor]) -> None:
        """Set a Node's Cursors back: a replay."""
        with self._database.transaction():
            self._set_cursors(key, cursors)

    def add_work(self, key: NodeKey, work: Iterable[Work]) -> None:
        """Open work without moving a Cursor."""
        with self._database.transaction():
            add_work(self._database.connection, key, work)

    def set_retry_due(self, key: NodeKey) -> None:
        """Make all open work and the Node itself due now: a flush tries at once."""
        with self._database.transaction():
            self._database.connection.execute(
                "UPDATE work SET not_before = 0 WHERE tree = ? AND node = ?", key
            )
            self._database.connection.execute(
                "UPDATE nodes SET not_before = 0 WHERE tree = ? AND name = ?", key
            )

    def note_history(self, key: NodeKey, cursors: Mapping[str, Cursor]) -> bool:
        """Add a row a minute to the Cursors' history; returns whether one was due."""
        now = self._clock.wall_us()
        if now - self._history_at.get(key, 0) < _HISTORY_EVERY_US:
            return False
        self._history_at[key] = now
        with self._database.transaction():
            self._database.connection.executemany(
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
        with self._database.transaction():
            execute = self._database.connection.execute
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

    def close(self) -> None:
        """Checkpoint and close."""
        self.read.close()
        self._database.close()

    def _set_cursors(self, key: NodeKey, cursors: Mapping[str, Cursor]) -> None:
        now = self._clock.wall_us()
        self._database.connection.executemany(
            "INSERT OR REPLACE INTO cursors (tree, node, shard, journal_id, position, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                (*key, shard, cursor.journal_id, cursor.position, now)
                for shard, cursor in cursors.items()
            ),
        )
