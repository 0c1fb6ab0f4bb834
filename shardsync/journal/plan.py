"""The Plan: which Shard owns which prefix of which Tree. Written by the Coordinator alone.

Standard library only: an idle Watcher slot reads it too, and must stay small.
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shardsync.errors import StateUnusable
from shardsync.files import replace_file
from shardsync.model import JournalId, ShardId

_FORMAT = 1


class Origin(enum.StrEnum):
    """How a Shard came to be."""

    FIRST = "first"
    """Nodes that do not know its Journal must reconcile."""
    REPLAN = "replan"
    """Took prefixes over from another Shard: Nodes follow it from its first Position."""


class PlanState(enum.StrEnum):
    """Where a Shard stands in the Plan."""

    NEW = "new"
    """Takes its prefixes over; their old owners still observe them."""
    ACTIVE = "active"
    RETIRED = "retired"
    """Observes nothing any more; its Journal is drained and kept for the retention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """One Shard in the Plan.

    `prefixes`: subtrees owned, relative to the root, b"" being all of it; the
    longest prefix listed by any Shard of the Tree decides. `since_us`: the
    Watermark that a re-plan's Shard catches up from, Unix microseconds.
    `takes_from`: the Shards that a re-plan's Shard takes prefixes over from.
    `becomes`: the prefixes left to it once the new Shards are active (none: it
    retires); None where they stay. `directories`: how many it was thought to
    own when it was planned; 0 where unknown.
    """

    id: ShardId
    tree: str
    slot: int
    prefixes: tuple[bytes, ...]
    journal_id: JournalId
    made_by: Origin = Origin.FIRST
    since_us: int | None = None
    state: PlanState = PlanState.ACTIVE
    takes_from: tuple[ShardId, ...] = ()
    becomes: tuple[bytes, ...] | None = None
    directories: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All Shards of the machine. `generation` grows with every Plan written."""

    generation: int = 0
    shards: tuple[PlannedShard, ...] = ()

    def observing(self, tree: str | None = None) -> tuple[PlannedShard, ...]:
        """The Shards that observe something (of one Tree, or of all): NEW and ACTIVE."""
        return tuple(
            shard
            for shard in self.shards
            if shard.state is not PlanState.RETIRED and tree in {None, shard.tree}
        )

    def of_tree(self, tree: str) -> tuple[PlannedShard, ...]:
        """All Shards of one Tree, retired ones included: those that a Node has Cursors in."""
        return tuple(shard for shard in self.shards if shard.tree == tree)

    def in_slot(self, slot: int) -> PlannedShard | None:
        """The Shard that the Watcher of this slot observes, or None: the slot is free."""
        for shard in self.observing():
            if shard.slot == slot:
                return shard
        return None

    def shard(self, shard_id: str) -> PlannedShard | None:
        """The Shard of that id, or None."""
        for shard in self.shards:
            if shard.id == shard_id:
                return shard
        return None

    def foreign_to(self, shard: PlannedShard) -> frozenset[bytes]:
        """Prefixes that others observe, or for a NEW Shard: will, once it is active.

        So an active Shard goes on as if no new one were there, and a new one
        has nothing to take up or to let go of at the moment of its promotion.
        """
        minds = {PlanState.ACTIVE, shard.state}
        return frozenset(
            prefix
            for other in self.shards
            if other.tree == shard.tree and other.id != shard.id and other.state in minds
            for prefix in (
                other.prefixes
                if other.becomes is None or shard.state is not PlanState.NEW
                else other.becomes
            )
        )

    def owners(self, tree: str, path: bytes) -> tuple[PlannedShard, ...]:
        """The Shards that observe `path`: one, or two while it changes hands.

        Among Shards of one state the longest listed prefix wins.
        """
        found = []
        for state in (PlanState.ACTIVE, PlanState.NEW):
            same = [s for s in self.shards if s.tree == tree and s.state is state]
            best = _longest_prefix(((p, s) for s in same for p in s.prefixes), path)
            if best is not None:
                found.append(best)
        return tuple(found)


def covers(prefix: bytes, path: bytes) -> bool:
    """Whether `path` is `prefix` or lies below it; b"" covers everything."""
    return not prefix or path == prefix or path.startswith(prefix + b"/")


def plan_mark(path: Path) -> tuple[int, int, int] | None:
    """What tells the Plan on disk from another one without reading it; None where there is none.

    A Plan can name 100,000 prefixes, and a free slot looks every second.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_plan(path: Path) -> Plan | None:
    """The Plan on disk, or None where none was ever made. Raises StateUnusable."""
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StateUnusable(f"plan {path}: {error}") from error
    try:
        return _decode(text)
    except (KeyError, TypeError, ValueError) as error:
        raise StateUnusable(
            f"plan {path}: not a Plan of this version: {error}",
            hint="move it away and start again: a new Plan is made, the Nodes are compared",
        ) from error


def write_plan(path: Path, plan: Plan) -> None:
    """Replace the Plan on disk. Raises OSError.

    Crash safety: written beside, synced, then renamed; a reader sees the old
    Plan or the new one, whole, and so does the next boot.
    """
    replace_file(path, _encode(plan))


def _longest_prefix(
    listed: Iterable[tuple[bytes, PlannedShard]], path: bytes
) -> PlannedShard | None:
    best: tuple[int, PlannedShard] | None = None
    for prefix, shard in listed:
        if covers(prefix, path) and (best is None or len(prefix) > best[0]):
            best = (len(prefix), shard)
    return best[1] if best else None


def _texts(prefixes: tuple[bytes, ...]) -> list[str]:
    # Bytes that are not UTF-8 survive as lone surrogates, PEP 383.
    return [os.fsdecode(prefix) for prefix in prefixes]


def _prefixes(texts: list[str]) -> tuple[bytes, ...]:
    return tuple(os.fsencode(text) for text in texts)


def _encode(plan: Plan) -> str:
    shards = [
        {
            "id": shard.id,
            "tree": shard.tree,
            "slot": shard.slot,
            "prefixes": _texts(shard.prefixes),
            "journal_id": shard.journal_id,
            "made_by": shard.made_by.value,
            "since_us": shard.since_us,
            "state": shard.state.value,
            "takes_from": list(shard.takes_from),
            "becomes": None if shard.becomes is None else _texts(shard.becomes),
            "directories": shard.directories,
        }
        for shard in plan.shards
    ]
    return json.dumps(
        {"format": _FORMAT, "generation": plan.generation, "shards": shards}, indent=1
    )


def _decode(text: str) -> Plan:
    raw = json.loads(text)
    if raw["format"] != _FORMAT:
        raise ValueError(f"format {raw['format']}")
    return Plan(
        generation=int(raw["generation"]),
        shards=tuple(
            PlannedShard(
                id=ShardId(item["id"]),
                tree=str(item["tree"]),
                slot=int(item["slot"]),
                prefixes=_prefixes(item["prefixes"]),
                journal_id=JournalId(item["journal_id"]),
                made_by=Origin(item["made_by"]),
                since_us=item["since_us"],
                state=PlanState(item["state"]),
                takes_from=tuple(ShardId(name) for name in item["takes_from"]),
                becomes=None if item["becomes"] is None else _prefixes(item["becomes"]),
                directories=int(item["directories"]),
            )
            for item in raw["shards"]
        ),
    )
