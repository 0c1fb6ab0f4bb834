"""What the Plan is, or what `up` would make it, and what that takes: for `shardsync plan`.

Read-only: counts and computes as the Coordinator would, and writes nothing.
"""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass

from shardsync.clock import Clock
from shardsync.config.settings import Settings
from shardsync.control.journals import Journals
from shardsync.control.limits import Need, needed, watcher_bytes
from shardsync.control.memory import MEMORY_FILE, read_memory
from shardsync.control.planner import Fresh, plan_first, purpose, retire_trees, wanted_shards
from shardsync.control.programs import pool_size, slot_program
from shardsync.control.survey import quick_count
from shardsync.errors import StateUnusable
from shardsync.journal.plan import Plan, PlannedShard, PlanState, read_plan
from shardsync.journal.progress import Progress
from shardsync.layout import StateDirectory
from shardsync.model import JournalId, ShardId, ShardState


class Source(enum.StrEnum):
    """Where a Plan that is shown comes from."""

    PLANNED = "planned"
    """`up` would make it; nothing is on disk yet."""
    SAVED = "saved"
    """On disk; `up` goes on from it."""
    RUNNING = "running"
    """The Coordinator goes by it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPreview:
    """One Shard. `directories`: as its Watcher last had them, else (`is_estimate`) as planned.

    `state`: as the Plan on disk has it, or "planned". `memory_bytes`: of its Watcher, an estimate.
    """

    id: ShardId
    tree: str
    program: str
    state: str
    prefixes: tuple[bytes, ...]
    directories: int
    is_estimate: bool
    watches: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """`notes`: what is going to happen to this Plan."""

    source: Source
    shards: tuple[ShardPreview, ...]
    notes: tuple[str, ...]
    need: Need


def preview(
    settings: Settings, *, journals: Journals, clock: Clock, is_running: bool, processors: int
) -> Preview:
    """The Plan for these settings. Raises StateUnusable where what is on disk cannot be read."""
    state = StateDirectory(path=settings.state_dir)
    saved = read_plan(state.plan) or Plan()
    names = frozenset(tree.name for tree in settings.trees)
    wanted = wanted_shards(settings, processors=processors)
    plan = retire_trees(saved, names)
    missing = sorted(name for name in names if not plan.observing(name))
    if missing:
        fresh = Fresh(taken=journals.ids(), journal_id=lambda: JournalId(""))
        counts = {tree.name: quick_count(tree, clock) for tree in settings.trees}
        plan = plan_first(plan, counts, wanted, fresh)
    made = frozenset(shard.id for shard in saved.shards)
    shards = tuple(_shard(shard, journals, is_made=shard.id in made) for shard in plan.observing())
    return Preview(
        source=_source(saved, is_running=is_running),
        shards=shards,
        notes=_notes(saved, plan, made_for=read_memory(state.path / MEMORY_FILE).made_for,
                     asked=purpose(names, wanted), missing=missing),
        need=_need(settings, shards, wanted),
    )  # fmt: skip


def _source(saved: Plan, *, is_running: bool) -> Source:
    if not saved.observing():
        return Source.PLANNED
    return Source.RUNNING if is_running else Source.SAVED


def _notes(
    saved: Plan, plan: Plan, *, made_for: str, asked: str, missing: list[str]
) -> tuple[str, ...]:
    if not saved.observing():
        return ()
    notes = [
        f"tree {tree}: its Shards are made when the Coordinator reads the settings"
        for tree in missing
    ]
    if made_for and made_for != asked:
        notes.append(f"made for {made_for}; once all Watchers follow, planned anew for {asked}")
    if any(shard.state is PlanState.NEW for shard in plan.observing()):
        notes.append("a re-plan is under way: the new Shards catch up beside the active ones")
    return tuple(notes)


def _shard(shard: PlannedShard, journals: Journals, *, is_made: bool) -> ShardPreview:
    known = _known(_progress(shard, journals))
    directories = shard.directories if known is None else known
    return ShardPreview(
        id=shard.id,
        tree=shard.tree,
        program=slot_program(shard.slot),
        state=shard.state.value if is_made else "planned",
        prefixes=shard.prefixes,
        directories=directories,
        is_estimate=known is None,
        # One more is on the cookies.
        watches=directories + 1,
        memory_bytes=watcher_bytes(directories),
    )


def _progress(shard: PlannedShard, journals: Journals) -> Progress | None:
    with contextlib.suppress(StateUnusable):
        return journals.progress(shard.id)
    return None


def _known(progress: Progress | None) -> int | None:
    """Directories that a Watcher found; None while it does not have all of them."""
    whole = {ShardState.FOLLOWING, ShardState.POLLING, ShardState.STOPPED}
    if progress is None or progress.state not in whole or not progress.scanned:
        return None
    return progress.directories


def _need(settings: Settings, shards: tuple[ShardPreview, ...], wanted: int) -> Need:
    active = [shard for shard in shards if shard.state != PlanState.NEW.value]
    return needed(
        sum(shard.directories for shard in active),
        shards=len(active),
        nodes=len(settings.nodes),
        max_rsyncs=settings.sync.max_rsyncs,
        slots=pool_size(wanted, observing=len(shards)),
        moving=sum(shard.directories for shard in shards if shard not in active),
    )
