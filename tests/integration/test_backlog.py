"""A Node far behind: slices of its backlog from real Journals, and what they cost."""

from __future__ import annotations

import asyncio
import tracemalloc
import weakref
from pathlib import Path

from shardsync.clock import SystemClock
from shardsync.config.settings import SyncSettings
from shardsync.journal.plan import read_plan
from shardsync.journal.records import Cursor
from shardsync.log import Log
from shardsync.model import Kind, Scope
from shardsync.ship.backlog import Backlog, Slice, SliceSize, read_slice
from shardsync.ship.fold import Want
from shardsync.ship.journals import TreeJournals
from tests.support.clock import FakeClock
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.sync import Instance, run, running


def _begin(tmp_path: Path, *, shards: int = 1) -> tuple[Instance, TreeJournals, dict[str, Cursor]]:
    """An instance, its Journals as Nodes read them, and the Cursors of one that has all so far."""
    instance = Instance(tmp_path, shards=shards)
    instance.write_plan()
    plan = read_plan(instance.state_dir.plan)
    assert plan is not None
    journals = TreeJournals(tree="main", state_dir=instance.state_dir, log=Log("test"))
    journals.follow(plan)
    return instance, journals, journals.newest()


def _fill(instance: Instance, count: int, *, distinct: int) -> None:
    for shard, journal in enumerate(instance.journals):
        for start in range(0, count, 5000):
            rows = [
                (b"%d/%d" % (shard, number % distinct), Scope.ENTRY, Kind.CONTENT, 1000, None)
                for number in range(start, min(count, start + 5000))
            ]
            journal.commit(rows)


def _slices(journals: TreeJournals, start: dict[str, Cursor], max_paths: int) -> list[Slice]:
    async def read() -> list[Slice]:
        found: list[Slice] = []
        cursors = dict(start)
        while True:
            part = await read_slice(journals, cursors, max_paths=max_paths)
            if not part.pending:
                return found
            cursors |= part.cursors
            found.append(part)

    return asyncio.run(read())


def test_a_path_that_changed_a_thousand_times_is_shipped_once_a_slice(tmp_path: Path) -> None:
    """40,000 Changes of 40 paths over two Shards are one slice, and it leads to the very end."""
    instance, journals, start = _begin(tmp_path, shards=2)
    _fill(instance, 20_000, distinct=20)
    (only,) = _slices(journals, start, 10_000)
    assert len(only.pending) == 40
    assert len(only.observed_at) == 40_000
    assert only.cursors == journals.newest()


def test_a_backlog_is_cut_by_distinct_paths_and_nothing_falls_between(tmp_path: Path) -> None:
    """Slices follow each other without a gap; none holds much more than it may."""
    instance, journals, start = _begin(tmp_path, shards=2)
    _fill(instance, 9_000, distinct=9_000)
    slices = _slices(journals, start, 2_500)
    assert {path for part in slices for path in part.pending} == {
        b"%d/%d" % (shard, number) for shard in range(2) for number in range(9_000)
    }
    assert sum(len(part.observed_at) for part in slices) == 18_000
    assert max(len(part.pending) for part in slices) <= 2 * 2_500
    assert slices[-1].cursors == journals.newest()


def test_both_shards_are_in_a_slice_however_far_behind_one_is(tmp_path: Path) -> None:
    """A Change of a quiet Shard does not wait for a backlog of another to be drained."""
    instance, journals, start = _begin(tmp_path, shards=2)
    instance.journals[0].commit(
        [(b"%d" % number, Scope.ENTRY, Kind.CONTENT, 1000, None) for number in range(20_000)]
    )
    instance.changed("quiet", kind=Kind.ATTRIBUTES, shard=1)
    first = _slices(journals, start, 1_000)[0]
    assert first.pending[b"quiet"].want is Want.ATTRIBUTES


def test_memory_does_not_grow_with_the_backlog(tmp_path: Path) -> None:
    """Five times the Changes are read in the same memory."""
    peaks = []
    for count in (20_000, 100_000):
        (tmp_path / str(count)).mkdir()
        instance, journals, start = _begin(tmp_path / str(count))
        _fill(instance, count, distinct=count)

        async def drain(journals: TreeJournals, cursors: dict[str, Cursor]) -> None:
            while True:
                part = await read_slice(journals, cursors, max_paths=5_000)
                if not part.pending:
                    return
                cursors |= part.cursors

        tracemalloc.start()
        asyncio.run(drain(journals, start))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_nodes_at_one_cursor_are_given_one_slice(tmp_path: Path) -> None:
    """Not one that lacks what came since, and not those that stand elsewhere or ask for less."""
    instance, journals, start = _begin(tmp_path, shards=2)
    clock = FakeClock()
    backlog = Backlog(journals=journals, clock=clock)

    async def read(cursors: dict[str, Cursor], *, most: int = 1_000, anew: bool = False) -> Slice:
        return await backlog.read(cursors, max_paths=most, anew=anew)

    async def check() -> None:
        assert not (await read(start)).pending
        _fill(instance, 300, distinct=300)
        first = await read(start)
        assert len(first.pending) == 600
        clock.advance(4.0)
        assert await read(dict(start)) is first
        assert await read(start, anew=True) is not first
        assert await read(start, most=900) is not first
        first = await read(start)
        instance.changed("later")
        # A moment later it will do, and leads each Node to what it lacks.
        clock.advance(0.05)
        assert await read(start) is first
        assert set((await read(first.cursors)).pending) == {b"later"}
        clock.advance(0.1)
        assert b"later" in (await read(start)).pending
        full = await read(start, most=100)
        clock.advance(4.0)
        instance.changed("last")
        assert await read(start, most=100) is full
        clock.advance(2.0)
        assert await read(start, most=100) is not full

    asyncio.run(check())


def test_a_long_reading_holds_up_no_node_that_stands_elsewhere(tmp_path: Path) -> None:
    """Those at the same Cursor wait for its end, and are given the same."""
    instance, journals, start = _begin(tmp_path)
    backlog = Backlog(journals=journals, clock=SystemClock())
    _fill(instance, 60_000, distinct=20)
    behind = journals.newest()
    instance.changed("now")

    async def check() -> None:
        long = [asyncio.create_task(backlog.read(start, max_paths=1_000)) for _ in range(2)]
        await asyncio.sleep(0)
        assert set((await backlog.read(behind, max_paths=1_000)).pending) == {b"now"}
        assert not any(task.done() for task in long)
        first, second = await asyncio.gather(*long)
        assert first is second

    asyncio.run(check())


def test_what_nobody_works_on_is_not_kept_for_long(tmp_path: Path) -> None:
    """A slice of each Cursor is held by those who ship it; the next one drops the last."""
    instance, journals, start = _begin(tmp_path)
    backlog = Backlog(journals=journals, clock=SystemClock())
    _fill(instance, 300, distinct=300)

    async def check() -> None:
        held = await backlog.read(start, max_paths=100)
        dropped = weakref.ref(await backlog.read(held.cursors, max_paths=100))
        assert dropped() is not None
        await backlog.read(start, max_paths=200)
        assert dropped() is None
        assert await backlog.read(start, max_paths=100) is held

    asyncio.run(check())


def test_a_slow_node_gets_smaller_batches_and_grows_out_of_them() -> None:
    """What takes a minute is cut to what takes some seconds; a quick Batch doubles it again."""
    size = SliceSize(most=10_000)
    size.note(paths=10_000, seconds=60.0)
    assert size.paths == 833
    size.note(paths=833, seconds=600.0)
    assert size.paths == 50
    size.note(paths=1, seconds=30.0)
    assert size.paths == 50
    for _ in range(8):
        size.note(paths=100, seconds=0.1)
    assert size.paths == 10_000
    few = SliceSize(most=8)
    few.note(paths=8, seconds=60.0)
    assert few.paths == 8


def test_what_changes_early_in_a_stream_is_there_while_the_stream_still_runs(
    tmp_path: Path,
) -> None:
    """A Batch never waits for a stream to stop: real rsync, 50 new files with each wake-up, until
    the first 500 are on the Node, which must be before the writer ends.
    """
    instance = Instance(tmp_path)
    node = tmp_path / "node"
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            written = 0

            def write_more() -> None:
                nonlocal written
                names = [f"page{number}" for number in range(written, written + 10)]
                for name in names:
                    (instance.tree / name).write_text(name)
                instance.changed(*names)
                written += 10

            def is_there() -> bool:
                write_more()
                return all((node / f"page{number}").exists() for number in range(500))

            await sync.until(is_there, seconds=60)
            lag = instance.journals[0].last_position
            write_more()
            assert sync.state.read.cursors(("main", "web1"))["main-00"].position < lag + 10
            await sync.followed(seconds=60)
            assert differences(instance.tree, node) == []

    run(work)


def test_a_backlog_is_drained_to_a_real_node(tmp_path: Path) -> None:
    """Small slices, one path among them changed again and again: all of it arrives."""
    instance = Instance(tmp_path, shards=2)
    instance.nodes = [local_node(tmp_path / "node")]
    instance.sync = SyncSettings(batch_paths=50)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            sync.state.set_node(("main", "web1"), paused=1)
            names = [f"page{number}" for number in range(400)]
            for number, name in enumerate(names):
                (instance.tree / name).write_text(name)
                instance.changed(name, "hot", shard=number % 2)
            (instance.tree / "hot").write_text("hot")
            sync.state.set_node(("main", "web1"), paused=0)
            await sync.followed(seconds=60)
            assert differences(instance.tree, tmp_path / "node") == []

    run(work)


def test_what_was_pruned_meanwhile_moves_no_cursor(tmp_path: Path) -> None:
    """It was asked where the Node stands, then some went: the Cursor stays, and is behind."""
    instance, journals, start = _begin(tmp_path)
    assert journals.standing(start).behind == []
    _fill(instance, 10, distinct=10)
    while instance.journals[0].prune(before_us=instance.clock.wall_us() + 1, max_bytes=2**40):
        pass
    assert _slices(journals, start, 1_000) == []
    assert journals.unread(start, limit=100).cursors == {}
    _fill(instance, 10, distinct=10)
    assert _slices(journals, start, 1_000) == []
    assert journals.standing(start).behind == ["main-00"]
