"""What a comparison of some paths of a Node came to, looked at through the pinned root."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from shardsync.ship.command import Purpose
from shardsync.ship.comparison import Comparison, Difference, What
from shardsync.ship.janitor import InFlight, Janitor
from shardsync.ship.look import Looker, LookKind
from shardsync.ship.outcome import Outcome
from shardsync.ship.shipping import NodeTrouble, RootLost, Shipping
from shardsync.ship.view import NodeView

_DEADLINE_SECONDS = 6 * 3600.0
LOOK_AT_ONCE = 10_000
MOST_BESIDE = 50_000
"""So many paths that a Node alone has are kept of one comparison; the others are counted."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """Differences, bounded whatever the Node claims to have.

    `changed`: paths that the Node lacks or has otherwise; `missing`: those that it lacks.
    `extraneous`: what it has and the Tree has not, the shallowest only; `leftovers`: those of it
    that killed runs of ours left.
    `beyond`: how many entries it has beside those, of which nothing else is kept.
    `has_deletions`: something on the Node would go. `is_cut`: there is more of `changed`.
    """

    changed: dict[bytes, None] = field(default_factory=dict)
    missing: set[bytes] = field(default_factory=set)
    extraneous: set[bytes] = field(default_factory=set)
    leftovers: set[bytes] = field(default_factory=set)
    unreadable: dict[bytes, str] = field(default_factory=dict)
    beyond: int = 0
    has_deletions: bool = False
    is_cut: bool = False
    files: int = 0
    file_bytes: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is no difference at all."""
        return not (self.changed or self.extraneous or self.unreadable)

    @property
    def count(self) -> int:
        """How many paths differ."""
        return len(self.changed) + len(self.extraneous) + self.beyond + len(self.unreadable)

    def join(self, other: Findings) -> None:
        """Add what another comparison found."""
        self.changed.update(other.changed)
        self.missing |= other.missing
        self.extraneous |= other.extraneous
        self.leftovers |= other.leftovers
        self.unreadable.update(other.unreadable)
        self.beyond += other.beyond
        self.has_deletions = self.has_deletions or other.has_deletions


async def find(
    transport: Shipping,
    view: NodeView,
    paths: Sequence[bytes],
    *,
    purpose: Purpose,
    most: int,
    in_flight: InFlight,
    known: frozenset[bytes] | None = None,
) -> Findings:
    """Compare, and stop at more than `most` that changed. Raises NodeTrouble, RootLost.

    What lies above `paths` is none of it. `known`: these are levels, and of directories only
    these count: the others are compared by themselves. `in_flight`: files that are being
    received beside this, whose temporary names are no difference.
    """
    found = Findings()
    beside: list[Difference] = []
    tops = frozenset(paths)
    async with transport.compare(
        paths, purpose=purpose, deadline_seconds=_DEADLINE_SECONDS
    ) as comparison:
        async with contextlib.aclosing(_streamed(comparison)) as stream:
            async for difference in stream:
                if not in_flight.owns(difference.path):
                    _take(difference, found, beside, tops, known)
                if len(beside) >= LOOK_AT_ONCE:
                    _look(view, beside, found)
                if len(found.changed) > most:
                    found.is_cut = True
                    break
        if not found.is_cut:
            result = comparison.result
            if result.outcome is Outcome.NOTHING or result.stopped_deletions:
                raise NodeTrouble(result)
            found.files, found.file_bytes = result.files, result.file_bytes
            found.unreadable.update(
                {path: f"cannot be compared: {why.reason}" for path, why in result.failed.items()}
            )
    _look(view, beside, found)
    return found


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


def _look(view: NodeView, beside: list[Difference], found: Findings) -> None:
    """Keep of what the Node has beside the Tree only what the Tree really does not have."""
    if not beside:
        return
    trouble = view.check()
    if trouble is not None:
        raise RootLost(trouble.message)
    try:
        with view.looking() as looker:
            for difference in beside:
                keep_gone(difference, looker, found)
    except OSError as error:
        raise RootLost(f"the tree cannot be read: {error.strerror}") from error
    beside.clear()


def keep_gone(difference: Difference, looker: Looker, found: Findings) -> None:
    """Keep it, or what is gone above it, if the Tree does not have it; beyond a bound count it."""
    seen = looker.look(difference.path)
    gone = seen.ancestor if seen.kind is LookKind.MISSING_ANCESTOR else difference.path
    is_gone = seen.kind in {LookKind.MISSING, LookKind.MISSING_ANCESTOR}
    if is_gone and gone not in found.extraneous and len(found.extraneous) >= MOST_BESIDE:
        found.beyond += 1
    elif seen.kind is LookKind.MISSING:
        found.extraneous.add(difference.path)
        if Janitor(look=looker.look).is_leftover(difference):
            found.leftovers.add(difference.path)
    elif seen.kind is LookKind.MISSING_ANCESTOR:
        found.extraneous.add(seen.ancestor)
