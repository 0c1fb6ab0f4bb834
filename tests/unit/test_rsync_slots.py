"""How many rsyncs run, and that no more than may."""

from __future__ import annotations

import asyncio

import pytest

from shardsync.observe.figures import SyncMetrics
from shardsync.ship.slots import RsyncSlots


def test_no_more_than_the_limit_run_and_each_is_counted() -> None:
    """Five that want to run at a limit of two: two at a time, and none is left counted."""
    metrics = SyncMetrics()
    seen: list[tuple[int, int]] = []

    async def one(slots: RsyncSlots) -> None:
        async with slots:
            await asyncio.sleep(0)
            seen.append(metrics.rsyncs)

    async def all_of_them() -> None:
        slots = RsyncSlots(limit=2, observer=metrics)
        await asyncio.gather(*(one(slots) for _ in range(5)))

    asyncio.run(all_of_them())
    assert len(seen) == 5
    assert max(running for running, _ in seen) == 2
    assert metrics.rsyncs == (0, 2)


def test_a_run_that_fails_gives_its_slot_back() -> None:
    """An exception inside frees the slot for the next."""
    metrics = SyncMetrics()

    async def fail_and_go_on() -> None:
        slots = RsyncSlots(limit=1, observer=metrics)
        with pytest.raises(ValueError, match="broken"):
            async with slots:
                raise ValueError("broken")
        async with slots:
            pass

    asyncio.run(fail_and_go_on())
    assert metrics.rsyncs == (0, 1)
