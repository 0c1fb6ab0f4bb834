"""What the settings need of the machine: directories as last observed or planned, else counted.

Read-only; an estimate throughout. The arithmetic is in `limits`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from shardsync.config.patterns import tree_filter
from shardsync.config.settings import Settings
from shardsync.control.counting import count_directories, processors
from shardsync.control.limits import Need, needed
from shardsync.control.planner import wanted_shards
from shardsync.control.programs import pool_size
from shardsync.errors import StateUnusable
from shardsync.journal.plan import Plan, PlannedShard, PlanState, read_plan
from shardsync.journal.reader import JournalReader
from shardsync.layout import StateDirectory
from shardsync.model import ShardState

_PARTIAL = frozenset({ShardState.STARTING, ShardState.SCANNING, ShardState.HALTED})
"""States in which a Watcher may know of fewer directories than there are."""


def demand(settings: Settings) -> Need:
    """What an instance with these settings needs, all its Trees together.

    Takes what its Watchers know where they ran before, and counts where they
    did not: at most about a second for a Tree of any size.
    """
    state = StateDirectory(path=settings.state_dir)
    plan = _plan(state)
    directories = moving = 0
    for tree in settings.trees:
        active = [s for s in plan.observing(tree.name) if s.state is PlanState.ACTIVE]
        known = [_known(state, shard) for shard in active]
        directories += (
            sum(known)
            if known and all(known)
            else count_directories(tree.root, excluded=tree_filter(tree))[b""]
        )
        moving += sum(_known(state, s) for s in plan.observing(tree.name) if s not in active)
    observing = len(plan.observing())
    wanted = wanted_shards(settings, processors=processors())
    return needed(
        directories,
        shards=wanted,
        nodes=len(settings.nodes),
        max_rsyncs=settings.sync.max_rsyncs,
        slots=pool_size(wanted, observing=observing or wanted),
        moving=moving,
    )


def need_of_roots(roots: list[Path], *, nodes: int) -> Need:
    """The same from what can be made out of settings that are refused."""
    shards = max(processors(), len(roots))
    directories = sum(count_directories(root)[b""] for root in roots)
    return needed(directories, shards=shards, nodes=nodes, slots=pool_size(shards))


def _plan(state: StateDirectory) -> Plan:
    with contextlib.suppress(StateUnusable):
        return read_plan(state.plan) or Plan()
    return Plan()


def _known(state: StateDirectory, shard: PlannedShard) -> int:
    """Directories of a Shard; 0 where nobody knows yet."""
    with contextlib.closing(JournalReader(state.journal(shard.id))) as journal:
        try:
            progress = journal.progress()
        except StateUnusable:
            return shard.directories
    found = progress.directories
    if progress.state in _PARTIAL:
        return max(found, progress.scan_total, shard.directories)
    return found or shard.directories
