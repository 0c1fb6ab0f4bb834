"""From the last Plan and what is known of the Trees to the next Plan. Pure.

One call makes at most one step: a Tree's first Plan, a re-plan, the promotion
of Shards that have caught up, a Tree's removal. The Coordinator calls it
again and again; interrupted after any step, the next call goes on from the
Plan on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from shardsync.config.settings import Settings
from shardsync.control.partition import Region, allot, cut, gaining, loads, owner_of, recut
from shardsync.journal.plan import Origin, Plan, PlannedShard, PlanState
from shardsync.journal.progress import Progress
from shardsync.model import JournalId, ShardId, ShardState

FOLLOWING = frozenset({ShardState.FOLLOWING, ShardState.POLLING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why a step that is due was not made. `remedy`: what an operator must do, if anything."""

    tree: str
    reason: str
    remedy: str = ""


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


def purpose(trees: Collection[str], wanted: int) -> str:
    """What a Plan is made for, as text to compare: `2 shards: main`."""
    return f"{wanted} shards: {' '.join(sorted(trees))}"


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
        regions = cut(counts[tree], shares[tree])
        for region, load in zip(regions, loads(counts[tree], regions), strict=True):
            plan = _with(plan, _new_shard(plan, tree, region, load, fresh))
    return plan


def retire_trees(plan: Plan, trees: frozenset[str]) -> Plan:
    """`plan` with every Shard of Trees other than `trees` retired."""
    return _retire(plan, {shard.id for shard in plan.observing() if shard.tree not in trees})


def replan(
    plan: Plan,
    tree: str,
    counts: Mapping[bytes, int],
    shards: int,
    *,
    progress: Mapping[ShardId, Progress],
    pool: int,
    fresh: Fresh,
) -> Plan | Waiting:
    """`plan` with new Shards beside the active ones, on the way to the Tree cut in `shards`.

    As little moves as balance allows. A Shard that gains nothing stays and
    is told what it `becomes`; one that gains is replaced, for only a new one
    catches up before it takes over. `plan` itself comes back where nothing
    changes. Waits where `is_blocked`, and for free slots.
    """
    blocked = is_blocked(plan, tree, progress)
    if blocked is not None:
        return blocked
    active = plan.observing(tree)
    present = [shard.prefixes for shard in active]
    regions = recut(counts, shards, present)
    gain = sorted(gaining(present, regions))
    if not gain:
        return plan
    free = pool - len(plan.observing())
    if len(gain) > free:
        return short_of_slots(tree, needed=len(gain), free=free)
    figures = loads(counts, regions)
    for number, shard in enumerate(active):
        left = () if number in gain else regions[number]
        becomes = None if left == shard.prefixes else left
        plan = _change(plan, replace(shard, becomes=becomes, directories=figures[number]))
    for number in gain:
        givers = _givers(active, regions, number)
        shard = replace(
            _new_shard(plan, tree, regions[number], figures[number], fresh),
            made_by=Origin.REPLAN,
            since_us=min(progress[giver].watermark_us or 0 for giver in givers),
            state=PlanState.NEW,
            takes_from=givers,
        )
        plan = _with(plan, shard)
    return plan


def short_of_slots(tree: str, *, needed: int, free: int) -> Waiting:
    """There are as many slots as were made at the last `up`."""
    return Waiting(
        tree=tree,
        reason=f"needs {needed} free Watcher slots, has {free}",
        remedy="`shardsync down`, then `shardsync up`, which makes more",
    )


def replanned_loads(
    plan: Plan, tree: str, counts: Mapping[bytes, int], shards: int
) -> tuple[int, ...]:
    """Directories of each Shard, were the Tree planned anew now."""
    present = [shard.prefixes for shard in plan.observing(tree)]
    return tuple(loads(counts, recut(counts, shards, present)))


def _givers(
    active: Sequence[PlannedShard], regions: Sequence[Region], number: int
) -> tuple[ShardId, ...]:
    """Who observes now what Region `number` will."""
    old = {prefix: shard.id for shard in active for prefix in shard.prefixes}
    new = {prefix: other for other, region in enumerate(regions) for prefix in region}
    moved = (prefix for prefix in old.keys() | new.keys() if owner_of(prefix, new) == number)
    return tuple(sorted({owner_of(prefix, old) for prefix in moved}))


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

    In the same step the others become what is left to them, and retire where
    that is nothing: until then both observe.
    """
    for tree in {shard.tree for shard in plan.observing()}:
        new = [shard for shard in plan.observing(tree) if shard.state is PlanState.NEW]
        if new and all(_is_following(progress.get(shard.id)) for shard in new):
            for shard in plan.observing(tree):
                plan = _change(plan, _promoted(shard))
    return plan


def _promoted(shard: PlannedShard) -> PlannedShard:
    if shard.becomes is None:
        return replace(shard, state=PlanState.ACTIVE)
    if not shard.becomes:
        return replace(shard, state=PlanState.RETIRED, becomes=None)
    return replace(shard, prefixes=shard.becomes, becomes=None)


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
    for shard in plan.shards:
        if shard.id in names:
            plan = _change(plan, replace(shard, state=PlanState.RETIRED, becomes=None))
    return plan


def _change(plan: Plan, changed: PlannedShard) -> Plan:
    return replace(
        plan,
        shards=tuple(changed if shard.id == changed.id else shard for shard in plan.shards),
    )
