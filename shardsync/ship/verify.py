"""Compares one Node with the tree and tells what differs; changes nothing.

The tree may change while it is compared, and Changes may be on their way. So what
differs is looked at twice, the second time by itself, and what is pending is no
difference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from shardsync.clock import Clock
from shardsync.ship.command import Purpose
from shardsync.ship.comparison import Difference, What
from shardsync.ship.outcome import Outcome, RunResult
from shardsync.ship.transport import NodeTransport

_AGAIN_PATHS = 5_000
"""So many differing paths are held until they are compared again; more differ by no accident."""


@dataclass(slots=True)
class Verification:
    """The running figures of one verification; `results` has each run's end."""

    results: list[RunResult] = field(default_factory=list)
    differences: int = 0
    pending: int = 0
    settled: int = 0

    @property
    def failed(self) -> RunResult | None:
        """The first run that could not compare all, None if each did."""
        return next((run for run in self.results if run.outcome is not Outcome.SHIPPED), None)


class Verifier:
    """Compares one Node.

    `is_pending`: whether a path is still to be shipped to the Node.
    """

    def __init__(
        self,
        *,
        transport: NodeTransport,
        clock: Clock,
        is_pending: Callable[[bytes], bool],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._is_pending = is_pending
        self.verification = Verification()

    async def differences(
        self, paths: Sequence[bytes] = (b"",), *, checksum: bool, deadline_seconds: float
    ) -> AsyncIterator[Difference]:
        """What differs at and below `paths` (default: everything), the first 5,000 seen twice.

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
                elif self._is_final(difference):
                    yield difference
        self.verification.results.append(comparison.result)
        async for confirmed in self._confirmed(suspects, purpose, deadline):
            yield confirmed

    async def _confirmed(
        self, suspects: Sequence[Difference], purpose: Purpose, deadline: float
    ) -> AsyncIterator[Difference]:
        """Those of `suspects` that still differ and are not pending."""
        if not suspects:
            return
        again = await self._compared_again(suspects, purpose, deadline)
        for suspect in suspects:
            now = again.get(suspect.path)
            if now is None:
                self.verification.settled += 1
            elif self._is_final(now):
                yield now

    def _is_final(self, difference: Difference) -> bool:
        """Count it; whether it is to be reported."""
        if self._is_pending(difference.path):
            self.verification.pending += 1
            return False
        self.verification.differences += 1
        return True

    async def _compared_again(
        self, suspects: Sequence[Difference], purpose: Purpose, deadline: float
    ) -> dict[bytes, Difference]:
        """Compare the suspects by themselves: extraneous ones through their directories."""
        left = max(1.0, deadline - self._clock.monotonic())
        foreign = [item.path for item in suspects if item.what is What.EXTRANEOUS]
        own = [item.path for item in suspects if item.what is not What.EXTRANEOUS]
        found: dict[bytes, Difference] = {}
        flat = Purpose.COMPARE_FLAT
        if purpose is Purpose.COMPARE_CHECKSUM:
            flat = Purpose.COMPARE_FLAT_CHECKSUM
        for paths, how in ((own, flat), (_listings(foreign), Purpose.COMPARE_LISTING)):
            if not paths:
                continue
            async with self._transport.compare(
                paths, purpose=how, deadline_seconds=left
            ) as comparison:
                async for difference in comparison:
                    found[difference.path] = difference
            self.verification.results.append(comparison.result)
        return found


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
