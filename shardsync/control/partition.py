"""How one Tree is cut into Shards: pure, from directory counts to sets of prefixes.

Balance is about speed only. What matters for safety is that every path has
exactly one owner, and that holds for any list of distinct prefixes with b""
in it, because the longest listed prefix decides.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence

Region = tuple[bytes, ...]
"""The prefixes of one Shard, sorted; b"" is the whole Tree."""

_PREFIXES_MAX = 4096
"""More would cost every reader of the Plan more than a better balance gives."""


def cut(counts: Mapping[bytes, int], shards: int) -> tuple[Region, ...]:
    """At most `shards` Regions of about equal weight; the first holds b"".

    `counts`: directories at and below each known prefix (a child's count lies
    within its parent's). Fewer Regions come back where there is not enough to
    share out: none is ever empty. Deterministic.
    """
    weights = _split(counts, shards)
    bins = _pack(weights, shards)
    return tuple(_simplify(bins))


def allot(totals: Mapping[str, int], shards: int) -> dict[str, int]:
    """How many of `shards` each Tree gets: at least one, the rest by weight (D'Hondt)."""
    allotted = dict.fromkeys(totals, 1)
    for _ in range(shards - len(totals)):
        neediest = max(sorted(totals), key=lambda tree: totals[tree] / (allotted[tree] + 1))
        allotted[neediest] += 1
    return allotted


def loads(counts: Mapping[bytes, int], regions: Sequence[Region]) -> dict[Region, int]:
    """How many of the counted directories each Region owns.

    A prefix that was not counted (made since) weighs nothing.
    """
    owner = {prefix: region for region in regions for prefix in region}
    found = dict.fromkeys(regions, 0)
    for prefix, region in owner.items():
        weight = counts.get(prefix, 0)
        found[region] += weight
        if prefix:
            found[owner[_listed_above(prefix, owner)]] -= weight
    return {region: max(load, 0) for region, load in found.items()}


def _split(counts: Mapping[bytes, int], shards: int) -> dict[bytes, int]:
    """Pieces: prefix -> directories that it owns. Split until none outweighs half a fair share."""
    total = max(counts.get(b"", 1), 1)
    limit = total / (2 * shards)
    pieces = {b"": total}
    if shards == 1:
        return pieces
    children = _children(counts)
    heap = [(-total, b"")]
    while heap and len(pieces) < _PREFIXES_MAX:
        weight, piece = heapq.heappop(heap)
        if -weight <= limit:
            break
        if not children[piece]:
            continue
        child = children[piece].pop()
        pieces[child] = counts[child]
        pieces[piece] = max(pieces[piece] - counts[child], 0)
        heapq.heappush(heap, (-pieces[piece], piece))
        heapq.heappush(heap, (-pieces[child], child))
    return pieces


def _children(counts: Mapping[bytes, int]) -> defaultdict[bytes, list[bytes]]:
    """Prefix -> its direct children that were counted, the heaviest last."""
    children: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for prefix in sorted(counts, key=lambda prefix: (counts[prefix], prefix)):
        if prefix and counts[prefix] > 0:
            parent = prefix.rpartition(b"/")[0]
            if parent in counts:
                children[parent].append(prefix)
    return children


def _pack(weights: Mapping[bytes, int], shards: int) -> list[list[bytes]]:
    """Heaviest first, each piece into the lightest bin; b"" opens the first bin."""
    bins: list[list[bytes]] = [[b""]] + [[] for _ in range(shards - 1)]
    loads = [(0 if number else weights[b""], number) for number in range(shards)]
    heapq.heapify(loads)
    for piece in sorted(weights, key=lambda piece: (-weights[piece], piece)):
        if piece:
            load, number = heapq.heappop(loads)
            bins[number].append(piece)
            heapq.heappush(loads, (load + weights[piece], number))
    return bins


def _simplify(bins: Sequence[Sequence[bytes]]) -> list[Region]:
    """Drop prefixes that fall to the same Shard anyway, and Shards that got nothing."""
    owner = {prefix: number for number, prefixes in enumerate(bins) for prefix in prefixes}
    regions = []
    for number, prefixes in enumerate(bins):
        kept = [
            prefix
            for prefix in prefixes
            if not prefix or owner[_listed_above(prefix, owner)] != number
        ]
        if kept:
            regions.append(tuple(sorted(kept)))
    return regions


def _listed_above(prefix: bytes, listed: Container[bytes]) -> bytes:
    """The longest listed prefix that lies strictly above `prefix`."""
    above = prefix
    while True:
        above = above.rpartition(b"/")[0]
        if above in listed:
            return above


def holes(region: Region, everything: Sequence[Region]) -> frozenset[bytes]:
    """Prefixes of other Regions cut out of this one: with it, all that its Shard observes."""
    owner = {prefix: other for other in everything for prefix in other}
    return frozenset(
        prefix
        for prefix, other in owner.items()
        if prefix and other != region and owner[_listed_above(prefix, owner)] == region
    )
