"""What a comparison of some paths of a Node came to, looked at through the pinned root."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from shardsync.ship.command import Purpose
from shardsync.ship.comparison import Comparison, Difference, What
from shardsync.ship.footing import Footing
from shardsync.ship.janitor import InFlight, Janitor
from shardsync.ship.look import GONE, Looker, LookKind
from shardsync.ship.outcome import Outcome, RunResult
from shardsync.ship.shipping import DEADLINE_SECONDS, NodeTrouble, Shipping

_LOOK_AT_ONCE = 10_000
MOST_BESIDE = 50_000
"""So many paths that a Node alone has are kept of one comparison; the others are counted."""


@dataclass(slots=True, kw_only=True)
class Beside:
    """What a Node has and the Tree has not: the shallowest paths only, and `beyond` entries more
    of which nothing else is kept, so that it is bounded whatever the Node claims to have.
    """

    paths: set[bytes] = field(default_factory=set)
    beyond: int = 0

    def join(self, other: Beside) -> None:
        """Add what another comparison found."""
        self.paths |= other.paths
        self.beyond += other.beyond


@dataclass(slots=True, kw_only=True)
class Findings:
    """Differences, bounded whatever the Node claims to have.

    `changed`: paths that the Node lacks or has otherwise; `missing`: those that it lacks.
    `leftovers`: those of what is `beside` the Tree that killed runs of ours left.
    `has_deletions`: something on the Node would go. `is_cut`: there is more of `changed`.
    """

    changed: dict[bytes, None] = field(default_factory=dict)
    missing: set[bytes] = field(default_factory=set)
    beside: Beside = field(default_factory=Beside)
    leftovers: set[bytes] = field(default_factory=set)
    unreadable: dict[bytes, str] = field(default_factory=dict)
    has_deletions: bool = False
    is_cut: bool = False
    files: int = 0
    file_bytes: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is no difference at all."""
        return not (self.changed or self.beside.paths or self.unreadable)

    @property
    def count(self) -> int:
        """How many paths differ."""
        beside = len(self.beside.paths) + self.beside.beyond
        return len(self.changed) + beside + len(self.unreadable)

    def join(self, other: Findings) -> None:
        """Add what another comparison found."""
        self.changed.update(other.changed)
        self.missing |= other.missing
        self.beside.join(other.beside)
        self.leftovers |= other.leftovers
        self.unreadable.update(other.unreadable)
        self.has_deletions = self.has_deletions or other.has_deletions


async def find(
    transport: Shipping,
    footing: Footing,
    paths: Sequence[bytes],
    *,
    purpose: Purpose,
    most: int | None,
    in_flight: InFlight,
    known: frozenset[bytes] | None = None,
) -> Findings:
    """Compare, and stop at more than `most` that changed. Raises NodeTrouble, RootLost.

    `most` None: what changed is not asked for, and not kept.
    What lies above `paths` is none of it. `known`: these are levels, and of directories only
    these count: the others are compared by themselves. `in_flight`: as `each_difference`.
    """
    found = Findings()
    beside: list[Difference] = []
    tops = frozenset(paths)

    def take(difference: Difference) -> bool:
        if most is not None or difference.what is What.EXTRANEOUS:
            _take(difference, found, beside, tops, known)
        if len(beside) >= _LOOK_AT_ONCE:
            _look(footing, beside, found)
        found.is_cut = most is not None and len(found.changed) > most
        return not found.is_cut

    result = await each_difference(
        transport, paths, purpose=purpose, in_flight=in_flight, take=take
    )
    if result is not None:
        found.files, found.file_bytes = result.files, result.file_bytes
        found.unreadable.update(
            {path: f"cannot be compared: {why.reason}" for path, why in result.failed.items()}
        )
    _look(footing, beside, found)
    return found


async def each_difference(
    transport: Shipping,
    paths: Sequence[bytes],
    *,
    purpose: Purpose,
    in_flight: InFlight,
    take: Callable[[Difference], bool],
) -> RunResult | None:
    """Compare, and have `take` each difference until it returns False. Raises NodeTrouble.

    Returns how the run ended, None where it was not run to its end.
    `in_flight`: files that are being received beside this, whose temporary names are no
    difference.
    """
    async with transport.compare(
        paths, purpose=purpose, deadline_seconds=DEADLINE_SECONDS
    ) as comparison:
        async with contextlib.aclosing(_streamed(comparison)) as stream:
            async for difference in stream:
                if not in_flight.owns(difference.path) and not take(difference):
                    return None
        result = comparison.result
    if result.outcome is Outcome.NOTHING or result.stopped_deletions:
        raise NodeTrouble(result)
    return result


async def _streamed(comparison: Comparison) -> AsyncGenerator[Difference]:
    async for difference in comparison:
        yield difference


def _take(
    difference: Difference,
    found: Findings,
    beside: list[Difference],
    tops: frozenset[bytes],
    known: frozenset[bytes] | None,
) -> None:
    path = difference.path
    if difference.what is What.EXTRANEOUS:
        found.has_deletions = True
        beside.append(difference)
    elif difference.what is What.UNREADABLE or _is_above(path, tops):
        # The first is told with its reason at the end.
        return
    elif known is None or not difference.is_directory or path in known:
        found.changed[path] = None
        if difference.what is What.NEW:
            found.missing.add(path)


def _is_above(path: bytes, tops: frozenset[bytes]) -> bool:
    """Whether rsync tells of `path` only because what was asked for lies in it."""
    if path in tops or b"" in tops:
        return False
    above = path
    while above:
        above = above.rpartition(b"/")[0]
        if above in tops:
            return False
    return True


def _look(footing: Footing, beside: list[Difference], found: Findings) -> None:
    """Keep of what the Node has beside the Tree only what the Tree really does not have."""
    if not beside:
        return
    footing.check()
    with footing.looking() as looker:
        for difference in beside:
            _keep_gone(difference, looker, found)
    beside.clear()


def _keep_gone(difference: Difference, looker: Looker, found: Findings) -> None:
    """Keep it, or what is gone above it, if the Tree does not have it; beyond a bound count it."""
    seen = looker.look(difference.path)
    gone = seen.ancestor if seen.kind is LookKind.MISSING_ANCESTOR else difference.path
    is_gone = seen.kind in GONE
    beside = found.beside
    if is_gone and gone not in beside.paths and len(beside.paths) >= MOST_BESIDE:
        beside.beyond += 1
    elif seen.kind is LookKind.MISSING:
        beside.paths.add(difference.path)
        if Janitor(look=looker.look).is_leftover(difference):
            found.leftovers.add(difference.path)
    elif seen.kind is LookKind.MISSING_ANCESTOR:
        beside.paths.add(seen.ancestor)
