"""What wakes the sync process, on the real kernel."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shardsync.layout import StateDirectory
from shardsync.log import Log
from shardsync.ship.wakeup import Wakeup
from tests.support.queue import small_queue


@pytest.mark.root
def test_nothing_is_slept_through_when_the_queue_ran_over(tmp_path: Path) -> None:
    """A process that stood still: a Plan or a request may be what the kernel dropped."""
    state = StateDirectory(tmp_path / "state")
    state.make()
    told: set[str] = set()

    async def work() -> None:
        wakeup = Wakeup(state_dir=state, on_news=lambda kind, _: told.add(kind), log=Log("sync"))
        with small_queue(8):
            wakeup.start()
        for number in range(20):
            (state.path / f"journal-main-{number:02d}.db-wal").touch()
        (state.requests / "r.json").touch()
        state.plan.touch()
        async with asyncio.timeout(10):
            while told != {"journal", "plan", "request"}:  # noqa: ASYNC110 (the kernel tells)
                await asyncio.sleep(0.01)
        wakeup.stop()

    asyncio.run(work())
