"""state.db as everybody but the sync process sees it: read-only, in short transactions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shardsync.journal.database import ReadOnly
from shardsync.journal.records import (
    NODE_COLUMNS,
    ROUND_COLUMNS,
    WORK_COLUMNS,
    Answer,
    AuditPiece,
    Cursor,
    LinkedFile,
    NodeKey,
    NodeRow,
    Round,
    RoundKind,
    Work,
    WorkReason,
    node_row,
    round_row,
    work_row,
)
from shardsync.journal.related import related
from shardsync.journal.requests import RequestState
from shardsync.model import Scope

_SELECT_NODES = f"SELECT {', '.join(NODE_COLUMNS)} FROM nodes"  # noqa: S608 (our own names)
_SELECT_WORK = f"SELECT {', '.join(WORK_COLUMNS)} FROM work WHERE tree = ? AND node = ?"  # noqa: S608 (our own names)


class StateReader:
    """What the CLI and /metrics read. Every method raises StateUnusable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = ReadOnly(path, name="state")

    def nodes(self) -> dict[NodeKey, NodeRow]:
        """Every Node that the sync process has known."""
        return {(row[0], row[1]): node_row(row) for row in self._database.rows(_SELECT_NODES)}

    def node(self, key: NodeKey) -> NodeRow | None:
        """One of them, or None: what each Batch asks costs the same however many there are."""
        rows = self._database.rows(f"{_SELECT_NODES} WHERE tree = ? AND name = ?", key)
        return node_row(rows[0]) if rows else None

    def cursors(self, key: NodeKey) -> dict[str, Cursor]:
        """Shard id -> Cursor of one Node."""
        rows = self._database.rows(
            "SELECT shard, journal_id, position FROM cursors WHERE tree = ? AND node = ?", key
        )
        return {shard: Cursor(journal_id=name, position=at) for shard, name, at in rows}

    def cursors_at(self, key: NodeKey, at_us: int) -> dict[str, Cursor]:
        """Where the Node's Cursors were at a time in the past, from the minutely history."""
        rows = self._database.rows(
            "SELECT shard, journal_id, position, max(at) FROM cursor_history"
            " WHERE tree = ? AND node = ? AND at <= ? GROUP BY shard",
            (*key, at_us),
        )
        return {shard: Cursor(journal_id=name, position=at) for shard, name, at, _ in rows}

    def work(self, key: NodeKey) -> list[Work]:
        """All open work of one Node, oldest first."""
        rows = self._database.rows(_SELECT_WORK + " ORDER BY id", key)
        return [work_row(row) for row in rows]

    def work_due(self, key: NodeKey, *, now_us: int, limit: int) -> list[Work]:
        """Open work that may be tried now: single paths, what audits found, comparisons, links.

        Of comparisons the levels come first, then the trees, then single entries: those are
        the directories above trees, whose times every tree that is written spoils. Big files
        go another way.
        """
        rows = self._database.rows(
            _SELECT_WORK + " AND not_before <= ? AND reason != 'big'"
            " ORDER BY reason NOT IN ('retry', 'after_big', 'settling'), reason != 'audit',"
            " reason = 'links', CASE scope WHEN 3 THEN 0 WHEN 2 THEN 1 ELSE 2 END, id LIMIT ?",
            (*key, now_us, limit),
        )
        return [work_row(row) for row in rows]

    def big_due(self, key: NodeKey, *, now_us: int) -> Work | None:
        """The big file that waits longest to be sent, of those that may be."""
        rows = self._database.rows(
            _SELECT_WORK + " AND reason = 'big' AND not_before <= ? ORDER BY attempts, id LIMIT 1",
            (*key, now_us),
        )
        return work_row(rows[0]) if rows else None

    def work_of(self, key: NodeKey, path: bytes, reason: WorkReason) -> Work | None:
        """The open work of one path for this reason, whatever its scope."""
        rows = self._database.rows(
            _SELECT_WORK + " AND path = ? AND reason = ?", (*key, path, reason.value)
        )
        return work_row(rows[0]) if rows else None

    def settling(self, key: NodeKey) -> dict[bytes, Work]:
        """The paths that are held until they come to rest."""
        rows = self._database.rows(_SELECT_WORK + " AND reason = 'settling'", key)
        return {item.path: item for item in map(work_row, rows)}

    def work_reasons(self, key: NodeKey) -> dict[WorkReason, int]:
        """How many rows are open for which reason."""
        rows = self._database.rows(
            "SELECT reason, count(*) FROM work WHERE tree = ? AND node = ? GROUP BY reason", key
        )
        return {WorkReason(reason): count for reason, count in rows}

    def has_work_at(self, key: NodeKey, path: bytes, *, until_us: int) -> bool:
        """Whether work is open that says something of `path` and stands for Changes of then.

        A bootstrap or a reconcile does, however late it was opened: its Cursors begin behind all
        that it compares.
        """
        condition, values = related(path)
        rows = self._database.rows(
            "SELECT 1 FROM work WHERE tree = ? AND node = ? AND"  # noqa: S608 (marks only)
            f" (since <= ? OR reason IN ('bootstrap', 'reconcile')) AND {condition} LIMIT 1",
            (*key, until_us, *values),
        )
        return bool(rows)

    def move_rows(self, key: NodeKey, paths: Iterable[bytes]) -> list[int]:
        """The ids of the rows that say of these old names that their files are shared."""
        found: list[int] = []
        for path in paths:
            rows = self._database.rows(
                "SELECT id FROM work WHERE tree = ? AND node = ? AND path = ? AND reason = 'move'",
                (*key, path),
            )
            found += (row[0] for row in rows)
        return found

    def round(self, key: NodeKey, kind: RoundKind) -> Round | None:
        """How far the comparison is that is open, or None."""
        rows = self._database.rows(
            f"SELECT {', '.join(ROUND_COLUMNS)} FROM rounds"  # noqa: S608 (our own names)
            " WHERE tree = ? AND node = ? AND kind = ?",
            (*key, kind.value),
        )
        return round_row(rows[0]) if rows else None

    def audit_piece(self, key: NodeKey) -> AuditPiece | None:
        """The next piece of the audit that is open, or None."""
        rows = self._database.rows(
            "SELECT id, path, scope, first, beyond FROM audit_pieces"
            " WHERE tree = ? AND node = ? ORDER BY id LIMIT 1",
            key,
        )
        if not rows:
            return None
        number, path, scope, first, beyond = rows[0]
        return AuditPiece(id=number, path=path, scope=Scope(scope), first=first, beyond=beyond)

    def next_due(self, key: NodeKey, *, now_us: int) -> int | None:
        """When the next open work may be tried, Unix microseconds; None: nothing is open.

        Big files that are due go their own way, and are not waited for.
        """
        rows = self._database.rows(
            "SELECT min(not_before) FROM work WHERE tree = ? AND node = ?"
            " AND NOT (reason = 'big' AND not_before <= ?)",
            (*key, now_us),
        )
        return None if rows[0][0] is None else int(rows[0][0])

    def has_work_of(self, key: NodeKey, request_id: str) -> bool:
        """Whether work that this request opened is still open."""
        return self.count_work_of(key, request_id) > 0

    def count_work_of(self, key: NodeKey, request_id: str) -> int:
        """How much of the work that this request opened is still open."""
        rows = self._database.rows(
            "SELECT count(*) FROM work WHERE tree = ? AND node = ? AND request = ?",
            (*key, request_id),
        )
        return int(rows[0][0])

    def has_only_failures_of(self, key: NodeKey, request_id: str, *, attempts: int) -> bool:
        """Whether all that a request left open are paths that failed at least so often."""
        rows = self._database.rows(
            "SELECT count(*), coalesce(sum(reason IN ('retry', 'big') AND attempts >= ?), 0)"
            " FROM work"
            " WHERE tree = ? AND node = ? AND request = ?",
            (attempts, *key, request_id),
        )
        count, failures = rows[0]
        return bool(count and count == failures)

    def failures(self, key: NodeKey, *, limit: int = -1) -> list[Work]:
        """The paths that failed and are tried again, oldest first; all without a `limit`."""
        rows = self._database.rows(
            _SELECT_WORK
            + " AND (reason = 'retry' OR (reason = 'big' AND attempts > 0)) ORDER BY id LIMIT ?",
            (*key, limit),
        )
        return [work_row(row) for row in rows]

    def work_summary(self, key: NodeKey) -> tuple[int, int, int | None]:
        """(open rows, those of them that are retries, since when the oldest)."""
        rows = self._database.rows(
            "SELECT count(*),"
            " coalesce(sum(reason = 'retry' OR (reason = 'big' AND attempts > 0)), 0), min(since)"
            " FROM work WHERE tree = ? AND node = ?",
            key,
        )
        return (int(rows[0][0]), int(rows[0][1]), rows[0][2])

    def shipped_at(self, key: NodeKey, shard: str, position: int) -> int | None:
        """When the Batch that held this Position was on the Node, Unix microseconds, or None."""
        rows = self._database.rows(
            "SELECT finished_at FROM batches WHERE tree = ? AND node = ? AND shard = ?"
            " AND position >= ? ORDER BY position LIMIT 1",
            (*key, shard, position),
        )
        return int(rows[0][0]) if rows else None

    def link_names(self, tree: str, file: LinkedFile, *, with_gone: bool = False) -> set[bytes]:
        """The names under which this file was met last, perhaps not all its own any more.

        `with_gone`: also those that it was seen to have lost.
        """
        rows = self._database.rows(
            "SELECT path FROM links WHERE tree = ? AND device = ? AND inode = ? AND is_gone <= ?",
            (tree, file.device, file.inode, int(with_gone)),
        )
        return {row[0] for row in rows}

    def has_links(self, tree: str) -> bool:
        """Whether any file with several names was ever met."""
        return bool(self._database.rows("SELECT 1 FROM links WHERE tree = ? LIMIT 1", (tree,)))

    def linked_files(self, tree: str, path: bytes) -> list[LinkedFile]:
        """The files that were met under this name, with 0 for how many names each has."""
        rows = self._database.rows(
            "SELECT device, inode FROM links WHERE tree = ? AND path = ?", (tree, path)
        )
        return [LinkedFile(device=device, inode=inode, links=0) for device, inode in rows]

    def is_link_searched(self, tree: str, file: LinkedFile) -> bool:
        """Whether the Tree was searched for its names since it has so many."""
        rows = self._database.rows(
            "SELECT 1 FROM link_searches"
            " WHERE tree = ? AND device = ? AND inode = ? AND links = ?",
            (tree, file.device, file.inode, file.links),
        )
        return bool(rows)

    def deleted_since(self, key: NodeKey, since_us: int) -> int:
        """Entries deleted on the Node since then: what `max_delete` counts."""
        return int(
            self._database.rows(
                "SELECT coalesce(sum(entries), 0) FROM deletions"
                " WHERE tree = ? AND node = ? AND at >= ?",
                (*key, since_us),
            )[0][0]
        )

    def foreign_paths(self, key: NodeKey) -> list[bytes]:
        """What the Node holds that the Tree does not, and that is kept: the Node is not owned."""
        rows = self._database.rows(
            "SELECT path FROM foreign_paths WHERE tree = ? AND node = ? ORDER BY path", key
        )
        return [row[0] for row in rows]

    def tree_halted(self, tree: str) -> str:
        """Why a Tree is halted, "" where it is not."""
        rows = self._database.rows("SELECT halted FROM trees WHERE tree = ?", (tree,))
        return str(rows[0][0]) if rows else ""

    def metrics_error(self) -> str:
        """Why the sync process does not serve /metrics, "" where it does or should not."""
        rows = self._database.rows("SELECT metrics_error FROM sync_process")
        return str(rows[0][0]) if rows else ""

    def settings(self) -> str:
        """The mark of the settings that the sync process runs, "" before it has them all."""
        rows = self._database.rows("SELECT settings FROM sync_process")
        return str(rows[0][0]) if rows else ""

    def root_identity(self, tree: str) -> str:
        """The identity of the root that was accepted, "" before the first."""
        rows = self._database.rows("SELECT identity FROM trees WHERE tree = ?", (tree,))
        return str(rows[0][0]) if rows else ""

    def answer(self, request_id: str) -> Answer | None:
        """How a request stands; None: not yet received."""
        rows = self._database.rows(
            "SELECT state, exit_code, message, done, total FROM requests WHERE id = ?",
            (request_id,),
        )
        if not rows:
            return None
        state, exit_code, message, done, total = rows[0]
        return Answer(
            state=RequestState(state), exit_code=exit_code, message=message, done=done, total=total
        )

    def open_requests(self) -> list[str]:
        """The bodies (JSON) of the requests that are still running."""
        rows = self._database.rows(
            "SELECT body FROM requests WHERE state = ? ORDER BY created_at",
            (RequestState.RUNNING.value,),
        )
        return [row[0] for row in rows]

    def close(self) -> None:
        """Let go of the file. Idempotent; the next call opens it anew."""
        self._database.close()
