"""Compares one Node with the tree and tells what differs; changes nothing.

The tree may change while it is compared, and Changes may be on their way. So what
differs is compared again by itself, and it is a difference only if neither the tree
changed there lately nor anything is pending, before and after, in two such rounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shardsync.clock import Clock
from shardsync.ship.command import Purpose
from shardsync.ship.comparison import Difference, What
from shardsync.ship.outcome import Outcome, RunResult
from shardsync.ship.transport import NodeTransport

_AGAIN_PATHS = 50_000
"""So many differing paths are held until they are compared again; more differ by no accident."""
_ROUNDS = 5
"""What the tree is still changing after so many is on its way, whatever it looks like."""
_QUIET_SECONDS = 1.0
"""What was changed longer ago has been journaled, where all is watched and well."""


class OnTheWay(Protocol):
    """What a Node that follows is still to be sent; asked for paths of the Node."""

    def renew(self) -> None:
        """Read anew what is pending, and look anew at the tree."""
        ...

    def is_pending(self, path: bytes) -> bool:
        """Whether `path` is still to be shipped, as of the last `renew`."""
        ...

    def changed_at(self, path: bytes) -> int:
        """When the tree last changed there, Unix nanoseconds: at it, or where it is missing."""
        ...


@dataclass(slots=True)
class Verification:
    """The running figures of one verification; `results` has each run's end."""

    results: list[RunResult] = field(default_factory=list)
    differences: int = 0
    pending: int = 0
    settled: int = 0

    @property
    def failed(self) -> RunResult | None:
        """The first run that came to nothing; a path it could not compare is a difference."""
        return next((run for run in self.results if run.outcome is Outcome.NOTHING), None)


class Verifier:
    """Compares one Node. `on_the_way`: None where nothing is being shipped to it."""

    def __init__(
        self,
        *,
        transport: NodeTransport,
        clock: Clock,
        on_the_way: OnTheWay | None = None,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._on_the_way = on_the_way
        self.verification = Verification()

    async def differences(
        self, paths: Sequence[bytes] = (b"",), *, checksum: bool, deadline_seconds: float
    ) -> AsyncIterator[Difference]:
        """What differs at and below `paths` (default: everything), the first 50,000 seen again.

        Bounded memory. A path that cannot be compared is a difference too. Where a run
        itself fails (Node unreachable), `verification.failed` says so after the last one.
        """
        deadline = self._clock.monotonic() + deadline_seconds
        purpose = Purpose.COMPARE_CHECKSUM if checksum else Purpose.COMPARE
        suspects: list[Difference] = []
        async with self._transport.compare(
            paths, purpose=purpose, deadline_seconds=deadline_seconds
        ) as comparison:
            async for difference in comparison:
                if len(suspects) < _AGAIN_PATHS:
                    suspects.append(difference)
                else:
                    self.verification.differences += 1
                    yield difference
        self.verification.results.append(comparison.result)
        if not suspects:
            return
        confirmed = (
            self._compared_again(suspects, purpose, deadline)
            if self._on_the_way is None
            else self._confirmed(suspects, purpose, deadline, self._on_the_way)
        )
        for found in (await confirmed).values():
            self.verification.differences += 1
            yield found

    async def _confirmed(
        self,
        suspects: Sequence[Difference],
        purpose: Purpose,
        deadline: float,
        on_the_way: OnTheWay,
    ) -> dict[bytes, Difference]:
        """Those of `suspects` that differ in two rounds in which nothing was on its way there."""
        left = list(suspects)
        quiet_once: set[bytes] = set()
        final: dict[bytes, Difference] = {}
        for round_number in range(_ROUNDS):
            before = _still(left, on_the_way, self._clock.wall_us())
            now = await self._compared_again(left, purpose, deadline)
            if self.verification.failed is not None:
                return {}
            after = _still(now.values(), on_the_way, self._clock.wall_us())
            quiet = {path for path, at in after.items() if before.get(path) == at}
            for path in quiet & quiet_once:
                final[path] = now.pop(path)
            quiet_once = quiet
            left = [item for item in now.values() if not on_the_way.is_pending(item.path)]
            self.verification.pending += len(now) - len(left)
            if not left or round_number == _ROUNDS - 1:
                break
            await asyncio.sleep(_QUIET_SECONDS)
        self.verification.pending += len(left)
        return final

    async def _compared_again(
        self, suspects: Sequence[Difference], purpose: Purpose, deadline: float
    ) -> dict[bytes, Difference]:
        """Compare the suspects by themselves: extraneous ones through their directories.

        What could not be compared is compared with all below it, which nobody has seen yet.
        """
        left = max(1.0, deadline - self._clock.monotonic())
        foreign = [item.path for item in suspects if item.what is What.EXTRANEOUS]
        closed = [item.path for item in suspects if item.what is What.UNREADABLE]
        own = [item.path for item in suspects if item.what in _SEEN]
        known = _paths(suspects)
        found: dict[bytes, Difference] = {}
        flat = Purpose.COMPARE_FLAT
        if purpose is Purpose.COMPARE_CHECKSUM:
            flat = Purpose.COMPARE_FLAT_CHECKSUM
        for paths, how in (
            (own, flat),
            (_listings(foreign), Purpose.COMPARE_LISTING),
            (closed, purpose),
        ):
            if not paths:
                continue
            async with self._transport.compare(
                paths, purpose=how, deadline_seconds=left
            ) as comparison:
                async for difference in comparison:
                    if difference.path in known or how is purpose:
                        found[difference.path] = difference
            self.verification.results.append(comparison.result)
        self.verification.settled += len(known - found.keys())
        return found


_SEEN = frozenset({What.NEW, What.CHANGED, What.ATTRIBUTES})


def _paths(differences: Sequence[Difference]) -> set[bytes]:
    return {difference.path for difference in differences}


def _still(
    differences: Iterable[Difference], on_the_way: OnTheWay, now_us: int
) -> dict[bytes, int]:
    """Those where nothing is pending and the tree is at rest: path -> when it last changed."""
    on_the_way.renew()
    margin = int(_QUIET_SECONDS * 1_000_000)
    # What lies in the future was made before the clock was set back.
    lately = range((now_us - margin) * 1000, (now_us + margin) * 1000)
    seen = {item.path: on_the_way.changed_at(item.path) for item in differences}
    return {
        path: at
        for path, at in seen.items()
        if at not in lately and not on_the_way.is_pending(path)
    }


def _listings(foreign: Sequence[bytes]) -> list[bytes]:
    """The directories whose listings tell `foreign` again.

    What is below an extraneous directory is told with it: so only the topmost ones count.
    """
    known = frozenset(foreign)
    folders: dict[bytes, None] = {}
    for path in foreign:
        folder = path.rpartition(b"/")[0]
        while folder in known:
            folder = folder.rpartition(b"/")[0]
        folders[folder] = None
    return list(folders)
