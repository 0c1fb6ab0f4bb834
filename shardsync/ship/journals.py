"""All Journals of one Tree as its Nodes read them: what is pending after a set of Cursors.

Follows the Plan: Shards come by re-planning, retired ones stay until they are
drained everywhere. One unreadable Journal keeps back only its own Changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from shardsync.errors import StateDamaged, StateUnusable
from shardsync.journal.plan import Origin, Plan, PlannedShard, covers
from shardsync.journal.progress import Progress
from shardsync.journal.reader import ChangeRow, JournalReader, Span
from shardsync.journal.records import Cursor
from shardsync.layout import StateDirectory
from shardsync.log import Log
from shardsync.model import ShardState

_OBSERVING = frozenset({ShardState.FOLLOWING, ShardState.POLLING})


@dataclass(slots=True, kw_only=True)
class Unread:
    """Changes after some Cursors. `cursors`: where they stand once these are shipped.

    `held_until`: observed_at of the first Change that is still settling, or None.
    `is_cut`: a Shard has perhaps more of them, beyond the limit.
    """

    rows: list[ChangeRow] = field(default_factory=list)
    cursors: dict[str, Cursor] = field(default_factory=dict)
    held_until: int | None = None
    is_cut: bool = False


@dataclass(slots=True, kw_only=True)
class Standing:
    """How a Node's Cursors stand against the Journals.

    `fresh`: Cursors to take up without a word. `lost`: Shards whose Journal the
    Node cannot be led on from (unknown id), `behind`: those pruned beyond its
    Cursor; both are reconciled.
    """

    fresh: dict[str, Cursor] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)


class TreeJournals:
    """The Journals of one Tree. Shared by its Nodes."""

    def __init__(self, *, tree: str, state_dir: StateDirectory, log: Log) -> None:
        self._tree = tree
        self._state_dir = state_dir
        self._log = log
        self._shards: tuple[PlannedShard, ...] = ()
        self._readers: dict[str, JournalReader] = {}
        self._unreadable: set[str] = set()

    def follow(self, plan: Plan) -> None:
        """Take up the Shards of a new Plan, let go of those that are gone from it."""
        self._shards = plan.of_tree(self._tree)
        wanted = {shard.id for shard in self._shards}
        for shard_id in self._readers.keys() - wanted:
            self._readers.pop(shard_id).close()
        for shard_id in wanted - self._readers.keys():
            self._readers[shard_id] = JournalReader(self._state_dir.journal(shard_id))

    def shard_ids(self) -> list[str]:
        """All Shards that a Node of this Tree has Cursors in."""
        return [shard.id for shard in self._shards]

    def divides(self, path: bytes) -> bool:
        """Whether another Shard observes a part of what lies below: its Changes come apart."""
        return any(
            covers(path, prefix) for shard in self._shards for prefix in shard.prefixes if prefix
        )

    def are_observing(self) -> bool:
        """Whether every active Shard watches all it owns: from here on nothing is missed."""
        observing = [shard for shard in self._shards if shard.state != "retired"]
        return bool(observing) and all(self._is_observing(shard) for shard in observing)

    def directories(self) -> int:
        """How many directories the Tree has, as far as its Watchers have counted."""
        found = (self._try_progress(shard.id) for shard in self._shards)
        return sum(progress.directories for progress in found if progress is not None)

    def watermark_us(self) -> int:
        """All that changed in the Tree before then is journaled; 0 where that is not known."""
        marks = [
            None if (progress := self._try_progress(shard.id)) is None else progress.watermark_us
            for shard in self._shards
            if shard.state != "retired"
        ]
        return min((mark or 0 for mark in marks), default=0)

    def ask_watermark(self) -> None:
        """Have `watermark_us` move on now, and not only with the Watchers' next heartbeat.

        What is in their queues counts, not the file, so it goes at once.
        """
        cookie = self._state_dir.progress_cookie(self._tree)
        with contextlib.suppress(OSError):
            cookie.touch(mode=0o600)
            cookie.unlink()

    def newest(self) -> dict[str, Cursor]:
        """Cursors behind the newest Change of each Journal. Raises StateUnusable."""
        found: dict[str, Cursor] = {}
        for shard in self._shards:
            span = self._readers[shard.id].span()
            found[shard.id] = Cursor(journal_id=span.journal_id, position=span.last_position)
        return found

    def reader(self, shard_id: str) -> JournalReader | None:
        """The Journal of one Shard, or None where the Plan does not know it."""
        return self._readers.get(shard_id)

    def standing(self, cursors: Mapping[str, Cursor]) -> Standing:
        """Hold a Node's Cursors against the Journals."""
        standing = Standing()
        for shard in self._shards:
            span = self._try_span(shard.id)
            if span is None:
                continue
            cursor = cursors.get(shard.id)
            if cursor is not None and cursor.journal_id == span.journal_id:
                if cursor.position < span.pruned_to:
                    standing.behind.append(shard.id)
            elif cursor is None and _is_followed_from_its_start(shard, span.journal_id):
                standing.fresh[shard.id] = Cursor(journal_id=span.journal_id, position=0)
            else:
                standing.lost.append(shard.id)
        return standing

    def unread(
        self, cursors: Mapping[str, Cursor], *, limit: int, young: range | None = None
    ) -> Unread:
        """At most `limit` Changes per Shard after the Cursors, in the order of each Journal.

        The first that was observed within `young` (Unix microseconds), and what comes after
        it, are left for later.
        Where an Epoch began and nothing changed since, the Cursor comes forward without rows.
        """
        found = Unread()
        for shard_id, cursor in cursors.items():
            reader = self._readers.get(shard_id)
            if reader is None:
                continue
            try:
                span, rows = reader.stretch(after=cursor.position, limit=limit)
            except StateUnusable as error:
                self._say_unreadable(shard_id, error)
                continue
            self._unreadable.discard(shard_id)
            if span.journal_id != cursor.journal_id or span.pruned_to > cursor.position:
                # It is another, or was pruned, since `standing` was asked, which tells next time.
                continue
            if not rows and span.last_position > cursor.position:
                found.cursors[shard_id] = dataclasses.replace(cursor, position=span.last_position)
            is_full = len(rows) == limit
            rows = _settled(rows, young, found)
            if rows:
                found.is_cut = found.is_cut or (is_full and len(rows) == limit)
                found.rows += rows
                found.cursors[shard_id] = Cursor(
                    journal_id=cursor.journal_id, position=rows[-1][0]
                )
        return found

    def has_after(self, cursors: Mapping[str, Cursor]) -> bool:
        """Whether anything was journaled after these Cursors; True where that cannot be told."""
        for shard_id, cursor in cursors.items():
            if shard_id not in self._readers:
                continue
            span = self._try_span(shard_id)
            if span is None or span.last_position > cursor.position:
                return True
        return False

    def close(self) -> None:
        """Let go of all files."""
        for reader in self._readers.values():
            reader.close()

    def _is_observing(self, shard: PlannedShard) -> bool:
        progress = self._try_progress(shard.id)
        return progress is not None and progress.state in _OBSERVING

    def _try_span(self, shard_id: str) -> Span | None:
        try:
            return self._readers[shard_id].span()
        except StateUnusable as error:
            self._say_unreadable(shard_id, error)
            return None

    def _try_progress(self, shard_id: str) -> Progress | None:
        try:
            return self._readers[shard_id].progress()
        except StateUnusable as error:
            self._say_unreadable(shard_id, error)
            return None

    def _say_unreadable(self, shard_id: str, error: StateUnusable) -> None:
        if shard_id not in self._unreadable:
            self._unreadable.add(shard_id)
            self._log.warning("journal.unreadable", shard=shard_id, error=error)
            if isinstance(error, StateDamaged):
                # Only its Watcher may do something about it, who may never read that page.
                with contextlib.suppress(OSError):
                    self._state_dir.doubt(shard_id).touch(mode=0o600)


def _is_followed_from_its_start(shard: PlannedShard, journal_id: str) -> bool:
    """A re-plan's own Journal took over without a gap; any other unknown one may hide one."""
    return shard.made_by is Origin.REPLAN and shard.journal_id == journal_id


def _settled(rows: list[ChangeRow], young: range | None, found: Unread) -> list[ChangeRow]:
    if young is None:
        return rows
    for number, row in enumerate(rows):
        if row[4] in young:
            found.held_until = min(row[4], found.held_until or row[4])
            return rows[:number]
    return rows
