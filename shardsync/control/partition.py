"""How one Tree is cut into Shards: pure, from directory counts to sets of prefixes.

Balance is about speed only. What matters for safety is that every path has
exactly one owner, and that holds for any list of distinct prefixes with b""
in it, because the longest listed prefix decides.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TypeVar

from shardsync.control.pieces import Board
from shardsync.model import ShardId

Owner = TypeVar("Owner", int, ShardId)

Region = tuple[bytes, ...]
"""The prefixes of one Shard, sorted; b"" is the whole Tree."""


def cut(counts: Mapping[bytes, int], shards: int) -> tuple[Region, ...]:
    """At most `shards` Regions of about equal weight; the first holds b"".

    `counts`: directories at and below each known prefix (a child's count lies
    within its parent's). Fewer Regions come back where there is not enough to
    share out: none is ever empty. Deterministic.
    """
    return recut(counts, shards, ((b"",),))


def recut(
    counts: Mapping[bytes, int], shards: int, present: Sequence[Region]
) -> tuple[Region, ...]:
    """`present` brought to `shards` Regions of about equal weight, moving as little as can be.

    The Regions of `present` come first, in their order: as they were, less,
    more, or empty (dissolved, where there are too many); new ones follow,
    none of them empty. A Region that has at most 1.15 shares gives nothing
    away; one that has more is left with its share.
    """
    owner = {prefix: number for number, region in enumerate(present) for prefix in region}
    board = Board(counts=counts, owner=owner, loads=loads(counts, present))
    board.dissolve(len(present) - shards)
    board.add(shards - len(present))
    board.even_out()
    regions = _simplify(board.owner, len(board.loads))
    return (*regions[: len(present)], *(region for region in regions[len(present) :] if region))


def allot(totals: Mapping[str, int], shards: int) -> dict[str, int]:
    """How many of `shards` each Tree gets: at least one, the rest by weight (D'Hondt)."""
    allotted = dict.fromkeys(totals, 1)
    for _ in range(shards - len(totals)):
        neediest = max(sorted(totals), key=lambda tree: totals[tree] / (allotted[tree] + 1))
        allotted[neediest] += 1
    return allotted


def loads(counts: Mapping[bytes, int], regions: Sequence[Region]) -> list[int]:
    """How many of the counted directories each Region owns.

    A prefix that was not counted (made since) weighs nothing.
    """
    owner = {prefix: number for number, region in enumerate(regions) for prefix in region}
    found = [0] * len(regions)
    for prefix, number in owner.items():
        weight = counts.get(prefix, 0)
        found[number] += weight
        if prefix:
            found[owner[_listed_above(prefix, owner)]] -= weight
    return [max(load, 0) for load in found]


def gaining(before: Sequence[Region], after: Sequence[Region]) -> frozenset[int]:
    """Numbers of Regions that own something after which was not theirs before."""
    old = {prefix: number for number, region in enumerate(before) for prefix in region}
    new = {prefix: number for number, region in enumerate(after) for prefix in region}
    # Between two listed prefixes the owner does not change, so these are all there is to ask.
    return frozenset(
        now
        for prefix in old.keys() | new.keys()
        if (now := owner_of(prefix, new)) != owner_of(prefix, old)
    )


def owner_of(prefix: bytes, listed: Mapping[bytes, Owner]) -> Owner:
    """Whose the prefix is: what the longest of those `listed` at or above it names."""
    return listed[prefix] if prefix in listed else listed[_listed_above(prefix, listed)]


def _simplify(owner: Mapping[bytes, int], regions: int) -> list[Region]:
    """Regions by number, without prefixes that fall to the same one anyway."""
    kept: list[list[bytes]] = [[] for _ in range(regions)]
    for prefix, number in owner.items():
        if not prefix or owner[_listed_above(prefix, owner)] != number:
            kept[number].append(prefix)
    return [tuple(sorted(prefixes)) for prefixes in kept]


def _listed_above(prefix: bytes, listed: Container[bytes]) -> bytes:
    """The longest listed prefix that lies strictly above `prefix`."""
    above = prefix
    while True:
        above = above.rpartition(b"/")[0]
        if above in listed:
            return above
