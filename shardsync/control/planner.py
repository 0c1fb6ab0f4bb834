"""From the last Plan and what is known of the Trees to the next Plan. Pure.

One call makes at most one step: a Tree's first Plan, a re-plan, the promotion
of Shards that have caught up, a Tree's removal. The Coordinator calls it
again and again; interrupted after any step, the next call goes on from the
Plan on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from shardsync.config.settings import Settings
from shardsync.control.partition import Region, allot, cut, holes, loads
from shardsync.journal.plan import Origin, Plan, PlannedShard, PlanState
from shardsync.journal.progress import Progress
from shardsync.model import JournalId, ShardId, ShardState

FOLLOWING = frozenset({ShardState.FOLLOWING, ShardState.POLLING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why a step that is due was not made: `reason` for the log."""

    tree: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """What new Shards are made of: ids that no Journal on disk has, and random Journal ids."""

    taken: frozenset[ShardId]
    journal_id: Callable[[], JournalId]


def wanted_shards(settings: Settings, *, processors: int) -> int:
    """How many Shards the settings ask for, all Trees together: at least one each.

    "auto" means one for each processor.
    """
    count = processors if settings.shard_count is None else settings.shard_count
    return max(count, len(settings.trees))


def plan_first(
    plan: Plan, counts: Mapping[str, Mapping[bytes, int]], wanted: int, fresh: Fresh
) -> Plan:
    """`plan` with Shards for every Tree in `counts` that has none observing; active at once.

    `wanted`: Shards of all Trees together. Nodes answer these Journals with a
    bootstrap or a reconcile.
    """
    shares = allot({tree: found.get(b"", 1) for tree, found in counts.items()}, wanted)
    for tree in counts:
        if plan.observing(tree):
            continue
        for region, load in loads(counts[tree], cut(counts[tree], shares[tree])).items():
            plan = _with(plan, _new_shard(plan, tree, region, load, fresh))
    return plan


def retire_trees(plan: Plan, trees: frozenset[str]) -> Plan:
    """`plan` with every Shard of Trees other than `trees` retired."""
    return _retire(plan, {shard.id for shard in plan.observing() if shard.tree not in trees})


def replan(
    plan: Plan,
    tree: str,
    regions: Mapping[Region, int],
    *,
    progress: Mapping[ShardId, Progress],
    pool: int,
    fresh: Fresh,
) -> Plan | Waiting:
    """`plan` with new Shards beside the active ones, on the way to the Tree cut in `regions`.

    `regions`: each with the directories that it is thought to own. A Shard
    whose Region stays as it is stays; the others are replaced. `plan` itself
    comes back where nothing changes. Waits where `is_blocked`, and for free
    slots.
    """
    blocked = is_blocked(plan, tree, progress)
    if blocked is not None:
        return blocked
    active = plan.observing(tree)
    present = [shard.prefixes for shard in active]
    kept = {
        shard.prefixes
        for shard in active
        if shard.prefixes in regions
        and holes(shard.prefixes, present) == holes(shard.prefixes, list(regions))
    }
    replaced = [shard for shard in active if shard.prefixes not in kept]
    made = [region for region in regions if region not in kept]
    if not made and not replaced:
        return plan
    free = pool - len(plan.observing())
    if len(made) > free:
        reason = f"needs {len(made)} free Watcher slots, has {free}: `shardsync down`, then `up`"
        return Waiting(tree=tree, reason=reason)
    since = min((progress[shard.id].watermark_us or 0 for shard in replaced), default=None)
    for region in made:
        shard = replace(
            _new_shard(plan, tree, region, regions[region], fresh),
            made_by=Origin.REPLAN,
            since_us=since,
            state=PlanState.NEW,
            replaces=tuple(shard.id for shard in replaced),
        )
        plan = _with(plan, shard)
    return plan


def is_blocked(plan: Plan, tree: str, progress: Mapping[ShardId, Progress]) -> Waiting | None:
    """Why no re-plan of the Tree can begin now, or None.

    One at a time; and a Shard that does not follow has no Watermark from
    which another could catch up.
    """
    active = plan.observing(tree)
    if any(shard.state is PlanState.NEW for shard in active):
        return Waiting(tree=tree, reason="a re-plan is under way")
    behind = [shard.id for shard in active if not _is_following(progress.get(shard.id))]
    if behind:
        return Waiting(tree=tree, reason=f"not yet following: {', '.join(behind)}")
    return None


def promote(plan: Plan, progress: Mapping[ShardId, Progress]) -> Plan:
    """`plan` with the new Shards of each Tree active, once all of its new ones follow.

    In the same step the Shards that they replace retire: until then both observe.
    """
    for tree in {shard.tree for shard in plan.observing()}:
        new = [shard for shard in plan.observing(tree) if shard.state is PlanState.NEW]
        if new and all(_is_following(progress.get(shard.id)) for shard in new):
            plan = _retire(plan, {name for shard in new for name in shard.replaces})
            plan = _map(plan, {shard.id: PlanState.ACTIVE for shard in new})
    return plan


def forget(plan: Plan, shard_id: ShardId) -> Plan:
    """`plan` without a retired Shard, whose Journal nobody needs any more."""
    return replace(
        plan,
        shards=tuple(
            shard
            for shard in plan.shards
            if shard.id != shard_id or shard.state is not PlanState.RETIRED
        ),
    )


def next_generation(plan: Plan, last: Plan) -> Plan:
    """`plan` as the successor of `last`, ready to be written."""
    return replace(plan, generation=last.generation + 1)


def _is_following(progress: Progress | None) -> bool:
    return (
        progress is not None and progress.state in FOLLOWING and progress.watermark_us is not None
    )


def _new_shard(
    plan: Plan, tree: str, region: Region, directories: int, fresh: Fresh
) -> PlannedShard:
    used = {shard.slot for shard in plan.observing()}
    return PlannedShard(
        id=_next_id(plan, tree, fresh.taken),
        tree=tree,
        slot=next(slot for slot in range(len(used) + 1) if slot not in used),
        prefixes=region,
        journal_id=fresh.journal_id(),
        directories=directories,
    )


def _next_id(plan: Plan, tree: str, taken: frozenset[ShardId]) -> ShardId:
    """`<tree>-NN`, NN above every number that the Plan or a Journal on disk has."""
    names = taken | {shard.id for shard in plan.shards}
    numbers = [
        int(number)
        for name in names
        for stem, _, number in [name.rpartition("-")]
        if stem == tree and number.isdecimal()
    ]
    return ShardId(f"{tree}-{max(numbers, default=-1) + 1:02d}")


def _with(plan: Plan, shard: PlannedShard) -> Plan:
    return replace(plan, shards=(*plan.shards, shard))


def _retire(plan: Plan, names: set[ShardId]) -> Plan:
    return _map(plan, dict.fromkeys(names, PlanState.RETIRED))


def _map(plan: Plan, states: Mapping[ShardId, PlanState]) -> Plan:
    return replace(
        plan,
        shards=tuple(
            replace(shard, state=states[shard.id]) if shard.id in states else shard
            for shard in plan.shards
        ),
    )
