"""How many rsyncs run, whose turn it is, and what a Node that hangs costs the others."""

from __future__ import annotations

import asyncio

import pytest

from shardsync.journal.records import NodeKey
from shardsync.observe.figures import SyncMetrics
from shardsync.ship.observer import Unobserved
from shardsync.ship.slots import NodeSlots, RsyncSlots

A: NodeKey = ("main", "a")
B: NodeKey = ("main", "b")
C: NodeKey = ("main", "c")


def test_no_more_than_the_limit_run_and_each_is_counted() -> None:
    """Five that want to run at a limit of two: two at a time, and none is left counted."""
    metrics = SyncMetrics()
    seen: list[tuple[int, int]] = []

    async def one(slots: NodeSlots) -> None:
        async with slots:
            await asyncio.sleep(0)
            seen.append(metrics.rsyncs)

    async def all_of_them() -> None:
        slots = RsyncSlots(limit=2, observer=metrics)
        await asyncio.gather(*(one(slots.of(("main", str(number)))) for number in range(5)))

    asyncio.run(all_of_them())
    assert len(seen) == 5
    assert max(running for running, _ in seen) == 2
    assert metrics.rsyncs == (0, 2)


def test_a_run_that_fails_gives_its_slot_back() -> None:
    """An exception inside frees the slot for the next."""
    metrics = SyncMetrics()

    async def fail_and_go_on() -> None:
        slots = RsyncSlots(limit=1, observer=metrics).of(A)
        with pytest.raises(ValueError, match="broken"):
            async with slots:
                raise ValueError("broken")
        async with slots:
            pass

    asyncio.run(fail_and_go_on())
    assert metrics.rsyncs == (0, 1)


def test_nodes_take_turns_not_requests() -> None:
    """A Node that asked three times first does not go three times first."""
    assert order([A, A, A, B, C, B], limit=1) == [A, B, C, A, B, A]


def test_the_last_free_slot_is_for_a_node_that_has_none() -> None:
    """Of three slots one Node never holds all, however much it has to do."""
    got: list[NodeKey] = []

    async def run() -> None:
        slots = RsyncSlots(limit=3, observer=Unobserved())
        held = [asyncio.create_task(hold(slots, A, got)) for _ in range(3)]
        await settle()
        assert got == [A, A]
        held.append(asyncio.create_task(hold(slots, B, got)))
        await settle()
        assert got == [A, A, B]
        await end(held)

    asyncio.run(run())


def test_a_slot_taken_ahead_is_that_of_the_next_run() -> None:
    """Nobody else has it meanwhile, and it comes back where nothing was run."""
    got: list[NodeKey] = []

    async def run() -> None:
        slots = RsyncSlots(limit=1, observer=Unobserved())
        mine = slots.of(A)
        assert mine.is_free
        async with mine.ahead():
            waiting = asyncio.create_task(hold(slots, B, got))
            await settle()
            assert not slots.of(C).is_free
            async with mine:
                got.append(A)
            await settle()
            assert got == [A, B]
        await end([waiting])
        async with mine.ahead():
            waiting = asyncio.create_task(hold(slots, C, got))
            await settle()
            assert got == [A, B]
        await settle()
        assert got == [A, B, C]
        await end([waiting])

    asyncio.run(run())


def test_whoever_no_longer_wants_is_passed_over() -> None:
    """A waiting task that is cancelled, even at the moment of its turn, loses no slot."""
    got: list[NodeKey] = []

    async def run() -> None:
        slots = RsyncSlots(limit=1, observer=Unobserved())
        await slots.take(A)
        waiting = [asyncio.create_task(hold(slots, node, got)) for node in (B, C)]
        await settle()
        waiting[0].cancel()
        await settle()
        slots.give_back(A)
        waiting[1].cancel()
        await settle()
        async with asyncio.timeout(5), slots.of(B):
            pass
        await end(waiting)

    asyncio.run(run())
    assert got == []


def test_a_run_that_stands_still_lends_its_slot() -> None:
    """While it does nothing others run; when it goes on, no new one starts beyond the limit."""
    got: list[NodeKey] = []

    async def run() -> None:
        slots = RsyncSlots(limit=1, observer=Unobserved())
        pulse = slots.of(A).pulse()
        held = [asyncio.create_task(hold(slots, node, got)) for node in (A, B)]
        await settle()
        assert got == [A]
        pulse.still()
        pulse.still()
        await settle()
        assert got == [A, B]
        pulse.moves()
        held.append(asyncio.create_task(hold(slots, C, got)))
        await settle()
        assert got == [A, B]
        held[1].cancel()
        await settle()
        assert got == [A, B]
        held[0].cancel()
        await settle()
        assert got == [A, B, C]
        await end(held)

    asyncio.run(run())


def test_a_node_that_hung_takes_no_slot_until_it_moves() -> None:
    """Its next try runs beside the limit; once that gets somewhere, it counts again."""
    got: list[NodeKey] = []

    async def run() -> None:
        slots = RsyncSlots(limit=1, observer=Unobserved())
        first = slots.of(A).pulse()
        async with slots.of(A):
            first.still()
            first.ended()
        again = asyncio.create_task(hold(slots, A, got))
        await settle()
        other = asyncio.create_task(hold(slots, B, got))
        await settle()
        assert got == [A, B]
        second = asyncio.create_task(hold(slots, A, got))
        await settle()
        assert got == [A, B]
        second.cancel()
        other.cancel()
        await settle()
        slots.of(A).pulse().moves()
        other = asyncio.create_task(hold(slots, B, got))
        await settle()
        assert got == [A, B]
        await end([again, other])

    asyncio.run(run())


def test_a_short_run_clears_a_node_that_hung() -> None:
    """One that ended without having stood still counts as moved."""

    async def run() -> None:
        slots = RsyncSlots(limit=1, observer=Unobserved())
        pulse = slots.of(A).pulse()
        async with slots.of(A):
            pulse.still()
            pulse.ended()
        async with slots.of(A):
            slots.of(A).pulse().ended()
            got: list[NodeKey] = []
            other = asyncio.create_task(hold(slots, B, got))
            await settle()
            assert got == []
            await end([other])

    asyncio.run(run())


def order(wanted: list[NodeKey], *, limit: int) -> list[NodeKey]:
    """Who runs when, where all asked at once and each run gives way to the next."""
    ran: list[NodeKey] = []

    async def one(slots: NodeSlots) -> None:
        async with slots:
            ran.append(slots.node)
            await asyncio.sleep(0)

    async def run() -> None:
        slots = RsyncSlots(limit=limit, observer=Unobserved())
        await asyncio.gather(*(one(slots.of(node)) for node in wanted))

    asyncio.run(run())
    return ran


async def hold(slots: RsyncSlots, node: NodeKey, got: list[NodeKey]) -> None:
    async with slots.of(node):
        got.append(node)
        await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_slot_taken_ahead_and_not_used_goes_to_who_waits() -> None:
    """Where a Node finds out for long what to run; its run then has a turn like any other."""
    ended: list[str] = []

    async def work() -> None:
        slots = RsyncSlots(limit=1, observer=Unobserved())
        goes_on = asyncio.Event()

        async def think() -> None:
            async with slots.of(A).ahead():
                await goes_on.wait()
                async with slots.of(A):
                    ended.append("a")

        thinking = asyncio.create_task(think())
        await asyncio.sleep(0)
        async with slots.of(B):
            goes_on.set()
            await asyncio.sleep(0)
            ended.append("b")
        await thinking
        assert slots.is_free(C)

    asyncio.run(asyncio.wait_for(work(), 20))
    assert ended == ["b", "a"]
