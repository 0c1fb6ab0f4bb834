"""Lag: what of the Journals is not on a Node yet, as a count and as an age."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shardsync.journal.plan import Origin, PlannedShard, PlanState
from shardsync.journal.reader import JournalReader
from shardsync.journal.records import Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """`changes` not yet on the Node; `oldest_us`: since when the oldest waits, None where none."""

    changes: int = 0
    oldest_us: int | None = None

    def plus(self, other: Lag) -> Lag:
        """Both together."""
        ages = [at for at in (self.oldest_us, other.oldest_us) if at is not None]
        return Lag(changes=self.changes + other.changes, oldest_us=min(ages, default=None))

    def seconds(self, now_us: int) -> float:
        """Age of the oldest, 0 where none waits; never negative, whatever the clocks did."""
        return 0.0 if self.oldest_us is None else max(0.0, (now_us - self.oldest_us) / 1_000_000)


class LagMeter:
    """Measures Lags of one moment; each row of a backlog is counted once for all Nodes."""

    def __init__(self, *, journal: Callable[[str], JournalReader]) -> None:
        self._journal = journal
        self._counts: dict[str, dict[int, int]] = {}

    def of_node(self, shards: tuple[PlannedShard, ...], cursors: Mapping[str, Cursor]) -> Lag:
        """Lag in all Shards of the Node's Tree, open work not counted. Raises StateUnusable."""
        lag = Lag()
        for shard in shards:
            lag = lag.plus(self._in_shard(shard, cursors.get(shard.id)))
        return lag

    def _in_shard(self, shard: PlannedShard, cursor: Cursor | None) -> Lag:
        if cursor is None and shard.state is PlanState.RETIRED:
            # The Node came after it retired: its bootstrap held all of that.
            return Lag()
        reader = self._journal(shard.id)
        if cursor is not None and cursor.journal_id == reader.journal_id():
            return self._after(shard.id, cursor.position)
        if shard.made_by is Origin.REPLAN and reader.journal_id() == shard.journal_id:
            return self._after(shard.id, 0)
        # The Node knows nothing of this Journal, so all since it was made may be missing there.
        whole = self._after(shard.id, 0)
        return Lag(changes=whole.changes, oldest_us=reader.created_at())

    def _after(self, shard: str, position: int) -> Lag:
        reader = self._journal(shard)
        oldest = reader.oldest_observed(after=position)
        if oldest is None:
            return Lag()
        return Lag(changes=self._count(reader, shard, position), oldest_us=oldest)

    def _count(self, reader: JournalReader, shard: str, position: int) -> int:
        """Counted from the nearest Position that is known: a backlog is gone through once,
        however many Nodes wait in it (a million rows: 30 ms).
        """
        known = self._counts.setdefault(shard, {})
        nearest = min(known, key=lambda other: abs(other - position), default=None)
        if nearest is None:
            count = reader.count(after=position)
        elif nearest >= position:
            count = known[nearest] + reader.count(after=position, up_to=nearest)
        else:
            count = known[nearest] - reader.count(after=nearest, up_to=position)
        known[position] = count
        return count
