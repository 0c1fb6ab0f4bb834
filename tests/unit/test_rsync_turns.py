"""Runs that write to one Node: one alone, or several side by side, never both."""

from __future__ import annotations

import asyncio

from shardsync.ship.turns import Turns


def _order(*wanted: str) -> list[str]:
    """What began and ended in which order, where all ask for their turn at once."""
    seen: list[str] = []

    async def one(turns: Turns, name: str) -> None:
        turn = turns.alone() if name.startswith("alone") else turns.beside()
        async with turn:
            seen.append(f"{name} begins")
            assert turns.locked()
            await asyncio.sleep(0.01)
            seen.append(f"{name} ends")

    async def all_of_them() -> None:
        turns = Turns()
        await asyncio.wait_for(asyncio.gather(*(one(turns, name) for name in wanted)), 10)
        assert not turns.locked()

    asyncio.run(all_of_them())
    return seen


def test_disjoint_runs_go_side_by_side() -> None:
    """Both have begun before either has ended."""
    assert _order("a", "b")[:2] == ["a begins", "b begins"]


def test_a_run_alone_has_nothing_beside_it() -> None:
    """It waits for those before it, and those after it wait for it, in the order they came."""
    seen = _order("a", "b", "alone", "c")
    alone = seen.index("alone begins")
    assert set(seen[:alone]) == {"a begins", "b begins", "a ends", "b ends"}
    assert seen[alone:] == ["alone begins", "alone ends", "c begins", "c ends"]


def test_two_alone_take_turns() -> None:
    """Neither begins before the other has ended."""
    assert _order("alone1", "alone2") == [
        "alone1 begins",
        "alone1 ends",
        "alone2 begins",
        "alone2 ends",
    ]
