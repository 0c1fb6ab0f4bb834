"""`delay`: which paths wait, tick by tick on a clock that only moves when told; state.db and
Journals are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.config.settings import SyncSettings
from shardsync.journal.plan import read_plan
from shardsync.journal.records import BatchRecord, Compare, Cursor, Work, WorkReason
from shardsync.journal.requests import RequestKind
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import Kind, Scope
from shardsync.ship.backlog import Slice, read_slice
from shardsync.ship.journals import TreeJournals
from shardsync.ship.settling import Held, Settling
from tests.support.clock import FakeClock
from tests.support.nodes import local_node
from tests.support.shipping import KEY, ask, newest
from tests.support.sync import Instance, run, running

LIMITS = SyncSettings(delay_seconds=10.0, max_delay_seconds=30.0)


class _Node:
    """One Node's Cursors and what a tick of its Syncer would ship, without a Node."""

    def __init__(
        self, instance: Instance, state: StateWriter, clock: FakeClock, *, subtree: str = ""
    ) -> None:
        instance.write_plan()
        plan = read_plan(instance.state_dir.plan)
        assert plan is not None
        self.journals = TreeJournals(tree="main", state_dir=instance.state_dir, log=Log("test"))
        self.journals.follow(plan)
        self.state = state
        self.clock = clock
        self.settling = Settling(
            key=KEY,
            subtree=subtree.encode(),
            journals=self.journals,
            state=state.read,
            limits=LIMITS,
            clock=clock,
        )
        state.set_cursors(KEY, self.journals.newest())

    def ships(self) -> list[bytes]:
        """What a Batch would hold now; recorded as if it had been shipped."""
        return asyncio.run(self._ships())

    async def _ships(self) -> list[bytes]:
        cursors = self.state.read.cursors(KEY)
        part, held = await self._next(cursors)
        self.state.record(
            KEY, BatchRecord(cursors=part.cursors, work_added=held.added, work_done=held.done)
        )
        return sorted(part.pending)

    async def _next(self, cursors: dict[str, Cursor]) -> tuple[Slice, Held]:
        young = self.settling.young(cursors)
        part = await read_slice(self.journals, cursors, max_paths=100, young=young)
        if young is None:
            return part, Held()
        return part, await self.settling.hold(part, cursors, young)

    def due(self) -> list[bytes]:
        """The open work that is due now."""
        rows = self.state.read.work_due(KEY, now_us=self.clock.wall_us(), limit=10)
        return [row.path for row in rows]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def instance(tmp_path: Path, clock: FakeClock) -> Instance:
    """A Tree observed by two Shards, on the clock that only moves when told."""
    made = Instance(tmp_path, shards=2)
    made.clock = clock  # type: ignore[assignment]  # it tells the time, as far as tests ask
    return made


@pytest.fixture
def state(tmp_path: Path, clock: FakeClock) -> Iterator[StateWriter]:
    writer = StateWriter.open(tmp_path / "state.db", clock=clock)
    writer.know_node(KEY)
    yield writer
    writer.close()


def test_a_path_is_shipped_once_it_was_at_rest_for_the_delay(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """Not a moment before, and without a row where nothing changed it again."""
    node = _Node(instance, state, clock)
    instance.changed("a")
    clock.advance(9.9)
    assert node.ships() == []
    clock.advance(0.1)
    assert node.ships() == [b"a"]
    assert state.read.work(KEY) == []


def test_a_path_written_again_waits_anew_and_holds_no_other(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """`b`, journaled after it, goes at its own time; the Cursor moves on, and a row counts `a`."""
    node = _Node(instance, state, clock)
    first = clock.wall_us()
    instance.changed("a")
    clock.advance(1)
    position = instance.changed("b")
    clock.advance(8)
    instance.changed("a", shard=1)
    clock.advance(2)
    assert node.ships() == [b"b"]
    assert state.read.cursors(KEY)["main-00"].position == position
    (row,) = state.read.work(KEY)
    assert (row.path, row.reason, row.since) == (b"a", WorkReason.SETTLING, first)
    assert node.due() == []
    clock.advance(8)
    assert node.ships() == [b"a"]
    assert state.read.work(KEY) == []


def test_a_path_that_never_rests_is_shipped_at_its_longest_wait(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """30 s after its first Change and not before; then its next Change begins to count."""
    node = _Node(instance, state, clock)
    first = clock.wall_us()
    for _ in range(29):
        instance.changed("log")
        clock.advance(1)
        assert node.ships() == []
        assert node.due() == []
    (row,) = state.read.work(KEY)
    assert (row.since, row.not_before) == (first, first + 30_000_000)
    clock.advance(1)
    assert node.due() == [b"log"]


def test_what_is_overdue_when_it_is_read_is_not_held(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """After an outage the first Change of a path is older than any wait: it goes at once."""
    node = _Node(instance, state, clock)
    instance.changed("log")
    clock.advance(29)
    instance.changed("log")
    clock.advance(1)
    assert node.ships() == [b"log"]


def test_a_flush_waits_for_nothing_that_settles(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """All that is journaled by then goes at once; what comes later settles again."""
    node = _Node(instance, state, clock)
    instance.changed("a", "b")
    node.settling.hurry()
    assert node.settling.is_hurried
    assert node.ships() == [b"a", b"b"]
    instance.changed("c")
    assert node.ships() == []
    assert not node.settling.is_hurried


def test_attributes_alone_stay_attributes_when_held(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """A chmod now and then does not have the data of a file sent; one write among them does."""
    node = _Node(instance, state, clock)
    instance.changed("a", kind=Kind.ATTRIBUTES)
    clock.advance(9)
    instance.changed("a", kind=Kind.ATTRIBUTES)
    clock.advance(1)
    node.ships()
    assert [row.compare for row in state.read.work(KEY)] == [Compare.ATTRIBUTES]
    instance.changed("a")
    clock.advance(8.5)
    instance.changed("a", kind=Kind.ATTRIBUTES)
    clock.advance(2)
    assert node.ships() == []
    assert [row.compare for row in state.read.work(KEY)] == [Compare.CONTENT]


def test_a_directory_that_came_as_a_whole_is_not_held(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """It goes after the delay, whatever else happens to it: the row would forget where from."""
    node = _Node(instance, state, clock)
    instance.changed("d", scope=Scope.TREE)
    clock.advance(9)
    instance.changed("d", kind=Kind.ATTRIBUTES)
    clock.advance(1)
    assert node.ships() == [b"d"]


def test_a_node_of_a_subtree_holds_its_own_paths(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """Its rows are of paths as it has them; what lies outside gets none."""
    node = _Node(instance, state, clock, subtree="news")
    instance.changed("news/log", "other/log", "news")
    clock.advance(9)
    instance.changed("news/log", "other/log", "news")
    clock.advance(1)
    node.ships()
    assert [row.path for row in state.read.work(KEY)] == [b"log"]
    clock.advance(9)
    assert b"news/log" in node.ships()
    assert state.read.work(KEY) == []


@pytest.mark.fault("clock-set")
def test_a_clock_set_back_holds_nothing_for_years(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """A Change stamped in the future is not young."""
    node = _Node(instance, state, clock)
    instance.changed("a")
    clock.set_wall(clock.wall_us() - 10**15)
    assert node.ships() == [b"a"]


def test_the_young_end_is_read_however_long_it_is(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """A write hidden below 12,000 others is found, in pieces."""
    node = _Node(instance, state, clock)
    instance.changed("log")
    clock.advance(9)
    instance.changed("log")
    instance.changed(*[f"page{number}" for number in range(12_000)])
    clock.advance(1)
    assert node.ships() == []
    assert [row.path for row in state.read.work(KEY)] == [b"log"]


def _is_there(path: Path, text: str) -> Callable[[], bool]:
    return lambda: path.exists() and path.read_text() == text


def test_a_file_that_is_written_all_the_time_is_shipped_and_holds_no_other(tmp_path: Path) -> None:
    """With real rsync: both the writer's file and a quiet one arrive while it goes on."""
    instance = Instance(tmp_path)
    node = tmp_path / "node"
    instance.nodes = [local_node(node)]
    instance.sync = SyncSettings(delay_seconds=0.5, max_delay_seconds=2.0)
    (instance.tree / "log").write_text("")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (instance.tree / "quiet").write_text("quiet")
            instance.changed("quiet")

            def writes_on(is_done: Callable[[], bool]) -> Callable[[], bool]:
                def look() -> bool:
                    with (instance.tree / "log").open("a") as log:
                        log.write("x")
                    instance.changed("log")
                    return is_done()

                return look

            await sync.until(writes_on(_is_there(node / "quiet", "quiet")))
            await sync.until(writes_on(lambda: (node / "log").stat().st_size > 0))
            await sync.followed()
            assert (node / "log").read_text() == (instance.tree / "log").read_text()

    run(work)


def test_a_flush_ships_what_is_held(tmp_path: Path) -> None:
    """Rows included: nothing is open when it is answered, an hour before anything is due."""
    instance = Instance(tmp_path)
    instance.nodes = [local_node(tmp_path / "node")]
    (instance.tree / "log").write_text("1")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            key = ("main", "web1")
            sync.state.add_work(
                key,
                [
                    Work(
                        path=b"log",
                        scope=Scope.ENTRY,
                        compare=Compare.CONTENT,
                        reason=WorkReason.SETTLING,
                        since=instance.clock.wall_us(),
                        not_before=instance.clock.wall_us() + 3_600_000_000,
                    )
                ],
            )
            (instance.tree / "log").write_text("2")
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            assert sync.state.read.work(key) == []
            assert (tmp_path / "node" / "log").read_text() == "2"

    run(work)


def test_a_flush_that_comes_while_a_batch_runs_waits_for_nothing_either(tmp_path: Path) -> None:
    """What that Batch held back is open work from its end on, and due at once."""
    instance = Instance(tmp_path)
    node = tmp_path / "node"
    node.mkdir()
    instance.nodes = [replace(local_node(node), bandwidth="500")]
    instance.sync = SyncSettings(delay_seconds=0.3, max_delay_seconds=3600.0)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (instance.tree / "large").write_bytes(b"x" * 1024**2)
            (instance.tree / "log").write_text("")
            instance.changed("log", "large")

            def is_under_way() -> bool:
                instance.changed("log")
                return any(path.stat().st_size for path in node.glob(".large.*"))

            await sync.until(is_under_way)
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            assert (node / "log").exists()

    run(work)
