"""The Syncer tick by tick on a clock that only moves when told, with a Node made by hand: back-off
and the deletion budget. state.db and the Journal are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, cast

import pytest

from shardsync.clock import SystemClock
from shardsync.config.settings import DeleteLimit, SyncSettings, Target, TargetKind
from shardsync.journal.plan import read_plan
from shardsync.journal.records import BatchRecord
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import NodeState, Scope
from shardsync.ship.answers import Listing
from shardsync.ship.backlog import Backlog
from shardsync.ship.big_files import BigFiles
from shardsync.ship.command import Purpose
from shardsync.ship.comparing import Comparing
from shardsync.ship.comparison import Comparison, Difference, What
from shardsync.ship.deletions import DeletionBudget, TooManyDeletions
from shardsync.ship.delivery import Delivery
from shardsync.ship.dividing import Dividing
from shardsync.ship.fingerprint import Fingerprint
from shardsync.ship.first_contact import FirstContact
from shardsync.ship.janitor import InFlight
from shardsync.ship.journals import TreeJournals
from shardsync.ship.links import HardLinks
from shardsync.ship.messages import Failure, OutLine
from shardsync.ship.moving import Mover, Sharing
from shardsync.ship.observer import Unobserved
from shardsync.ship.outcome import Outcome, RunResult, Trouble
from shardsync.ship.root import RootGuard
from shardsync.ship.slots import RsyncSlots
from shardsync.ship.subroots import mount_number
from shardsync.ship.syncer import Syncer
from shardsync.ship.target_folder import TargetFolder
from shardsync.ship.tick import Did, Tick
from shardsync.ship.view import NodeView, TreeRoot
from tests.support.clock import FakeClock
from tests.support.nodes import local_node
from tests.support.shipping import KEY
from tests.support.sync import Instance


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def state(tmp_path: Path, clock: FakeClock) -> Iterator[StateWriter]:
    """A state.db that knows the Node."""
    writer = StateWriter.open(tmp_path / "state.db", clock=clock)
    writer.know_node(KEY)
    yield writer
    writer.close()


def _budget(
    state: StateWriter,
    clock: FakeClock,
    limit: DeleteLimit,
    *,
    entries: int = 0,
    counts: list[int] | None = None,
) -> DeletionBudget:
    """`counts`: gains an item with each count of the Tree."""

    async def count() -> int:
        if counts is not None:
            counts.append(entries)
        return entries

    return DeletionBudget(key=KEY, limit=limit, state=state.read, count_entries=count, clock=clock)


def _spend(budget: DeletionBudget, entries: int, *, allow: bool = False) -> bool:
    """Whether the deletions may go."""
    try:
        asyncio.run(budget.spend(entries, allow=allow))
    except TooManyDeletions:
        return False
    return True


def test_a_number_is_the_limit_to_the_entry(state: StateWriter, clock: FakeClock) -> None:
    """As many as max_delete go, one more does not, unless it is allowed."""
    budget = _budget(state, clock, DeleteLimit(entries=10, share=None))
    assert _spend(budget, 10)
    assert not _spend(budget, 11)
    assert _spend(budget, 11, allow=True)


def test_a_share_counts_what_the_tree_had_before(state: StateWriter, clock: FakeClock) -> None:
    """50% of 30 entries that were 60: the floor is passed, the share is not; one more is."""
    limit = DeleteLimit(share=0.5, floor=10)
    assert _spend(_budget(state, clock, limit, entries=0), 10)
    assert _spend(_budget(state, clock, limit, entries=30), 30)
    assert not _spend(_budget(state, clock, limit, entries=30), 31)


def test_the_tree_is_not_counted_for_every_batch_beyond_the_floor(
    state: StateWriter, clock: FakeClock
) -> None:
    """Once in ten minutes, and where the last count would refuse: it may have grown since."""
    counts: list[int] = []
    limit = DeleteLimit(entries=None, share=0.5, floor=10)
    budget = _budget(state, clock, limit, entries=100, counts=counts)
    assert all(_spend(budget, number) for number in range(11, 51))
    assert len(counts) == 1
    assert _spend(budget, 60)
    assert not _spend(budget, 101)
    assert len(counts) == 3
    assert _spend(budget, 50)
    assert len(counts) == 3
    clock.advance(601)
    assert _spend(budget, 50)
    assert len(counts) == 4


def test_ten_minutes_are_counted_together(state: StateWriter, clock: FakeClock) -> None:
    """What was really deleted counts against later Batches, and is forgotten in time."""
    budget = _budget(state, clock, DeleteLimit(entries=10, share=None))
    budget.note_deleted(6)
    assert not _spend(budget, 5)
    state.record(KEY, BatchRecord(deleted_entries=budget.take_deleted()))
    assert budget.take_deleted() == 0
    assert _spend(budget, 4)
    assert not _spend(budget, 5)
    clock.advance(599)
    assert not _spend(budget, 5)
    clock.advance(2)
    assert _spend(budget, 5)


def test_the_message_names_node_figure_and_limit(state: StateWriter, clock: FakeClock) -> None:
    """An operator sees at once what happened and what to do."""
    budget = _budget(state, clock, DeleteLimit(entries=2, share=None))
    with pytest.raises(TooManyDeletions) as caught:
        asyncio.run(budget.spend(3, allow=False))
    assert str(caught.value) == (
        "node web1: 3 deletions within 10 minutes are more than max_delete allows (2)"
    )
    assert "--allow-delete" in caught.value.remedy
    assert caught.value.exit_code == 14


class _Found:
    """What a dry run of the fake Node says it has beside the Tree: a hand-written Comparison."""

    def __init__(self, *extraneous: bytes) -> None:
        self.result = RunResult(exit_code=0, outcome=Outcome.SHIPPED)
        self._extraneous = extraneous

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def __aiter__(self) -> AsyncIterator[Difference]:
        for path in self._extraneous:
            yield Difference(path=path, what=What.EXTRANEOUS)


class _Node:
    """A Node that answers as told and keeps what it was handed: a hand-written Shipping."""

    def __init__(self) -> None:
        self.result = RunResult(exit_code=0, outcome=Outcome.SHIPPED)
        self.shipped: list[tuple[list[bytes], list[bytes]]] = []
        self.on_count: Callable[[], object] = bool
        self.on_ship: Callable[[], object] = bool
        self.compared: list[list[bytes]] = []
        self.extraneous: tuple[bytes, ...] = ()

    async def ship(
        self,
        paths: Sequence[bytes],
        *,
        purpose: Purpose,
        gone: Sequence[bytes] = (),
        deadline_seconds: float,
        max_delete: int | None = None,
        beside: bool = False,
        on_line: Callable[[OutLine], None] | None = None,
    ) -> RunResult:
        del purpose, deadline_seconds, max_delete, beside, on_line
        self.on_ship()
        self.shipped.append((sorted(paths), sorted(gone)))
        return replace(self.result, deleted=len(gone))

    def compare(
        self, paths: Sequence[bytes], *, purpose: Purpose, deadline_seconds: float
    ) -> Comparison:
        del purpose, deadline_seconds
        self.compared.append(list(paths))
        return cast("Comparison", _Found(*self.extraneous))

    async def count_deletions(
        self, paths: Sequence[bytes], *, gone: Sequence[bytes], deadline_seconds: float
    ) -> RunResult:
        del paths, deadline_seconds
        self.on_count()
        return replace(self.result, deleted=len(gone))

    async def list_root(self) -> Listing:
        names = tuple(sorted({path for paths, _ in self.shipped for path in paths}))
        return Listing(names=names, is_missing=False, is_cut=False, result=self.result)

    def can_move(self, path: bytes) -> bool:
        del path
        return False

    async def ship_moved(self, path: bytes, **rest: object) -> RunResult:
        raise AssertionError("it cannot move")

    def breaks(self, trouble: Trouble) -> None:
        """From now on every run comes to nothing."""
        self.result = RunResult(
            exit_code=12, outcome=Outcome.NOTHING, trouble=trouble, message="rsync exited 12: no"
        )

    def heals(self) -> None:
        """From now on every run ships all."""
        self.result = RunResult(exit_code=0, outcome=Outcome.SHIPPED)


class _Racing(_Node):
    """A Node whose rsync meets the directory `back` that was gone when its path was looked at."""

    def __init__(self, back: Path) -> None:
        super().__init__()
        self.back = back
        self.extraneous = (b"d/old", b"d/new")

    async def ship(
        self, paths: Sequence[bytes], *, gone: Sequence[bytes] = (), **rest: object
    ) -> RunResult:
        if gone == [b"d"]:
            self.back.mkdir()
            (self.back / "new").write_text("1")
        return await super().ship(paths, gone=gone, **rest)  # type: ignore[arg-type]  # the same


def _syncer(instance: Instance, state: StateWriter, clock: FakeClock, node: _Node) -> Syncer:
    settings = local_node(instance.folder / "node")
    log = Log("test")
    root = TreeRoot(guard=RootGuard(path=os.fsencode(instance.tree)), clock=SystemClock())
    view = NodeView(root=root, subtree=b"")
    journals = TreeJournals(tree="main", state_dir=instance.state_dir, log=log)
    instance.write_plan()
    plan = read_plan(instance.state_dir.plan)
    assert plan is not None
    journals.follow(plan)
    budget = _budget(state, clock, DeleteLimit(entries=5, share=None))
    links = HardLinks(tree="main", view=view, state=state, clock=clock, log=log)
    slots = RsyncSlots(limit=1, observer=Unobserved()).of(settings.key)
    delivery = Delivery(
        node=settings,
        transport=node,
        view=view,
        is_excluded=lambda _path, _is_dir: False,
        excludes=(),
        known_foreign=frozenset,
        budget=budget,
        limits=SyncSettings(),
        slots=slots,
        links=links,
        mover=Mover(
            transport=node,
            sharing=Sharing(key=settings.key, state=state, clock=clock),
            slots=slots,
            filters_below=lambda _path: (),
            first_below=lambda _path: (),
            is_divided=lambda _path: False,
            may_link=True,
            log=log,
        ),
        log=log,
    )
    return Syncer(
        node=settings,
        journals=journals,
        backlog=Backlog(journals=journals, clock=clock),
        slots=slots,
        state=state,
        delivery=delivery,
        comparing=Comparing(
            key=KEY,
            state=state,
            delivery=delivery,
            transport=node,
            view=view,
            journals=journals,
            subtree="",
            is_excluded=lambda _path, _is_dir: False,
            in_flight=InFlight(),
            clock=clock,
            log=log,
        ),
        first_contact=FirstContact(
            node=settings,
            journals=journals,
            state=state,
            transport=node,
            view=view,
            dividing=Dividing(
                journals=journals,
                view=view,
                is_excluded=lambda _path, _is_dir: False,
                clock=clock,
            ),
            folder=TargetFolder(target=Target(kind=TargetKind.DAEMON, host="h", path="site")),
            fingerprint=Fingerprint(target="t", root="r", subtree="", filters=()),
            clock=clock,
            log=log,
        ),
        links=links,
        budget=budget,
        big_files=BigFiles(
            key=KEY,
            state=state,
            transport=node,
            view=view,
            turns=contextlib.nullcontext(),
            observer=Unobserved(),
            in_flight=InFlight(),
            more_than=SyncSettings().big_file_bytes,
            clock=clock,
            log=log,
        ),
        limits=SyncSettings(),
        observer=Unobserved(),
        clock=clock,
        log=log,
    )


async def _until_idle(syncer: Syncer) -> Tick:
    for _ in range(20):
        tick = await syncer.tick()
        if tick.did is Did.NOTHING:
            return tick
    raise AssertionError("it is never done")


@pytest.fixture
def instance(tmp_path: Path, clock: FakeClock) -> Instance:
    """A Tree of one file, observed on the clock that only moves when told."""
    made = Instance(tmp_path)
    made.clock = clock  # type: ignore[assignment]  # it tells the time, as far as tests ask
    (made.tree / "a").write_text("1")
    return made


def test_a_failing_node_backs_off_longer_each_time(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """1, 2, 4 ... 60 s, a quarter more or less; nothing is tried before; the first success ends
    it, and the Cursor never moved meanwhile.
    """
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        before = state.read.cursors(KEY)
        instance.changed("a")
        node.breaks(Trouble.PROTOCOL)
        for attempts, seconds in enumerate((1, 2, 4, 8, 16, 32, 60, 60), start=1):
            tick = await syncer.tick()
            assert tick.did is Did.FAILED
            assert 0.75 * seconds <= tick.wait_seconds <= 1.25 * seconds
            row = state.read.nodes()[KEY]
            assert (row.attempts, row.state) == (attempts, NodeState.BACKING_OFF)
            assert row.last_error == "rsync exited 12: no"
            tries = len(node.shipped)
            clock.advance(0.7 * seconds)
            assert (await syncer.tick()).did is Did.NOTHING
            assert len(node.shipped) == tries
            clock.advance(0.6 * seconds)
        assert state.read.cursors(KEY) == before
        node.heals()
        assert (await syncer.tick()).did is Did.SHIPPED
        assert state.read.nodes()[KEY].attempts == 0
        assert state.read.cursors(KEY) != before

    asyncio.run(work())


def test_a_list_that_grew_stale_is_made_anew_at_once(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """The Node is not at fault, so it does not back off; unless it happens for ever."""
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        for more_than_once in range(2):
            instance.changed("a")
            node.breaks(Trouble.STALE)
            for _ in range(5):
                tick = await syncer.tick()
                assert (tick.did, tick.wait_seconds) == (Did.FAILED, 0.05)
                assert state.read.nodes()[KEY].state is NodeState.FOLLOWING
            if more_than_once:
                break
            node.heals()
            assert (await syncer.tick()).did is Did.SHIPPED
        await syncer.tick()
        assert state.read.nodes()[KEY].state is NodeState.BACKING_OFF

    asyncio.run(work())


def test_a_node_never_backs_off_because_somebody_keeps_renaming(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """However often: what moves the directories ends it. For other trouble it does."""
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        instance.changed("a")
        node.breaks(Trouble.MOVED_ON)
        for _ in range(20):
            tick = await syncer.tick()
            assert (tick.did, tick.wait_seconds) == (Did.FAILED, 0.05)
            assert state.read.nodes()[KEY].state is NodeState.FOLLOWING
        node.breaks(Trouble.PROTOCOL)
        await syncer.tick()
        assert state.read.nodes()[KEY].state is NodeState.BACKING_OFF

    asyncio.run(work())


def test_a_flush_tries_a_node_that_backs_off_at_once(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """`hurry` needs no waiting."""
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        instance.changed("a")
        node.breaks(Trouble.TIMEOUT)
        await syncer.tick()
        node.heals()
        assert (await syncer.tick()).did is Did.NOTHING
        syncer.hurry()
        assert (await syncer.tick()).did is Did.SHIPPED

    asyncio.run(work())


@pytest.mark.fault("clock-set")
def test_a_clock_set_back_does_not_hold_a_node_for_years(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """A Node is looked at again after one and a half times the longest back-off at most."""
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        instance.changed("a")
        node.breaks(Trouble.TIMEOUT)
        await syncer.tick()
        clock.set_wall(clock.wall_us() - 10**15)
        assert (await syncer.tick()).wait_seconds <= 90.0

    asyncio.run(work())


def test_one_path_that_fails_waits_alone(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """The Cursor moves on in the same step that opens the path's work; 5, 10, 20 s between."""
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        position = instance.changed("a")
        node.result = RunResult(
            exit_code=23,
            outcome=Outcome.PARTIAL,
            trouble=Trouble.PATHS,
            failed={b"a": Failure(reason="Permission denied (13)")},
        )
        for attempts, seconds in enumerate((5, 10, 20), start=1):
            await syncer.tick()
            assert state.read.cursors(KEY)["main-00"].position == position
            (row,) = state.read.work(KEY)
            assert (row.path, row.attempts) == (b"a", attempts)
            assert row.last_error == "Permission denied (13)"
            waits = (row.not_before - clock.wall_us()) / 1e6
            assert 0.75 * seconds <= waits <= 1.25 * seconds
            assert (await syncer.tick()).did is Did.NOTHING
            clock.advance(1.3 * seconds)
        node.heals()
        await syncer.tick()
        assert state.read.work(KEY) == []
        assert (await syncer.tick()).did is Did.NOTHING
        assert state.read.nodes()[KEY].last_error == ""

    asyncio.run(work())


def test_a_run_that_does_not_tell_what_failed_is_halved(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """Down to the single path, which then waits; none is called shipped that was not."""
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        (instance.tree / "b").write_text("1")
        instance.changed("a", "b", "gone")
        node.shipped.clear()
        node.breaks(Trouble.UNATTRIBUTED)
        await syncer.tick()
        assert node.shipped == [
            ([b"a", b"b"], [b"gone"]),
            ([b"a"], []),
            ([b"b"], [b"gone"]),
            ([b"b"], []),
            ([], [b"gone"]),
        ]
        assert [item.path for item in state.read.work(KEY)] == [b"a", b"b", b"gone"]

    asyncio.run(work())


def test_a_root_lost_within_a_batch_stops_its_next_run(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """The root is checked before each run of rsync, not only when the tick begins."""
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        before = state.read.cursors(KEY)
        node.shipped.clear()
        instance.changed("gone", scope=Scope.TREE)
        node.on_count = lambda: os.rename(instance.tree, instance.folder / "away")
        tick = await syncer.tick()
        assert tick.did is Did.HALTED
        assert "is missing" in tick.error
        assert node.shipped == []
        assert state.read.cursors(KEY) == before

    asyncio.run(work())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_mount_that_went_and_came_within_a_batch_stops_its_next_run(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """What was looked at while it was away seemed to be missing: all is looked at again. What
    rsync itself met while it was away counts for nothing.
    """
    node = _Node()
    volume = instance.tree / "vol"
    volume.mkdir()

    def mount() -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "test", volume], check=True)
        (volume / "page").write_text("1")

    def flap() -> None:
        subprocess.run(["umount", volume], check=True)
        subprocess.run(["mount", "--bind", keep, volume], check=True)

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        before = state.read.cursors(KEY)
        node.shipped.clear()
        instance.changed("gone", scope=Scope.TREE)
        node.on_count = flap
        tick = await syncer.tick()
        assert tick.did is Did.HALTED
        assert "mounted below its root just changed" in tick.error
        assert node.shipped == []
        node.on_count = bool
        assert state.read.cursors(KEY) == before
        assert (await syncer.tick()).did is Did.SHIPPED
        assert node.shipped == [([], [b"gone"])]
        before = state.read.cursors(KEY)
        clock.advance(1)
        instance.changed("a")
        node.on_ship = flap
        assert (await syncer.tick()).did is Did.HALTED
        assert state.read.cursors(KEY) == before

    keep = instance.folder / "keep"
    keep.mkdir()
    mount()
    subprocess.run(["mount", "--bind", volume, keep], check=True)
    try:
        descriptor = os.open(keep, os.O_PATH | os.O_CLOEXEC)
        is_numbered = mount_number(descriptor)
        os.close(descriptor)
        if not is_numbered:
            pytest.skip("this kernel does not number its mounts")
        asyncio.run(work())
    finally:
        for point in (volume, keep):
            subprocess.run(["umount", "-l", point], check=False)


def test_deletions_of_several_batches_add_up(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """Four, then two more within ten minutes, of five that may go; later they may."""
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        instance.changed("g1", "g2", "g3", "g4")
        assert (await syncer.tick()).did is Did.SHIPPED
        instance.changed("g5", "g6")
        assert (await syncer.tick()).did is Did.HALTED
        clock.advance(601)
        state.set_node(KEY, halted="")
        assert (await syncer.tick()).did is Did.SHIPPED

    asyncio.run(work())


def test_a_halted_node_stays_so_until_it_is_allowed(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """Not even once the ten minutes are over, or what was gone is back, is anything sent."""
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        instance.changed("g1", "g2", "g3", "g4")
        assert (await syncer.tick()).did is Did.SHIPPED
        instance.changed("g5", "g6")
        assert (await syncer.tick()).did is Did.HALTED
        node.shipped.clear()
        clock.advance(601)
        instance.changed("a")
        assert (await syncer.tick()).did is Did.NOTHING
        assert node.shipped == []
        assert state.read.nodes()[KEY].state is NodeState.HALTED

    asyncio.run(work())


def test_allowed_is_what_was_pending_then_and_no_more(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """Deletions observed after `--allow-delete` are counted, even while the allowed ones wait."""
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        node.shipped.clear()
        instance.changed(*(f"g{number}" for number in range(6)))
        assert (await syncer.tick()).did is Did.HALTED
        clock.advance(1)
        state.set_node(KEY, halted="", allow_delete=clock.wall_us())
        clock.advance(1)
        instance.changed(*(f"h{number}" for number in range(6)))
        assert (await syncer.tick()).did is Did.SHIPPED
        assert node.shipped == [([], [b"g0", b"g1", b"g2", b"g3", b"g4", b"g5"])]
        assert (await syncer.tick()).did is Did.HALTED
        assert len(node.shipped) == 1

    asyncio.run(work())


def test_a_directory_that_comes_back_while_it_is_deleted_is_emptied_of_the_old(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """Gone when looked at, made anew before rsync looks: rsync deletes nothing in it, so what it
    held before is looked for and deleted, and what is in it now is kept.
    """
    node = _Racing(instance.tree / "d")

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        clock.advance(1)
        await _until_idle(syncer)
        node.shipped.clear()
        node.compared.clear()
        clock.advance(1)
        # What `rm -rf d` journals; a look finds d missing, which stands for all below it.
        instance.changed("d/old", "d")
        assert (await syncer.tick()).did is Did.SHIPPED
        assert node.compared == [[b"d"]]
        assert node.shipped == [([], [b"d"]), ([], [b"d/old"])]
        assert state.read.work_summary(KEY)[0] == 0

    asyncio.run(work())


def test_what_a_killed_run_left_is_swept_with_the_batch_that_is_sent_again(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """After a failed run the directories of its paths are searched for `.NAME.XXXXXX`, of files
    that are gone meanwhile, too; once that is sent, nothing is searched any more. What was
    merely beside them stays.
    """
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        (instance.tree / "d").mkdir()
        (instance.tree / "d" / "big").write_text("1")
        clock.advance(1)
        node.breaks(Trouble.PROTOCOL)
        instance.changed("d/big", "d/gone")
        assert (await syncer.tick()).did is Did.FAILED
        node.heals()
        node.shipped.clear()
        node.compared.clear()
        node.extraneous = (b"d/.big.aB3dEf", b"d/.gone.aB3dEf", b"d/.other.aB3dEf", b"d/foreign")
        clock.advance(60)
        assert (await syncer.tick()).did is Did.SHIPPED
        # First whether it lost something meanwhile.
        assert node.compared == [[b"", b"d"], [b"d"]]
        assert node.shipped == [
            ([b"d/big"], [b"d/gone"]),
            ([], [b"d/.big.aB3dEf", b"d/.gone.aB3dEf"]),
        ]
        node.compared.clear()
        instance.changed("d/big")
        await _until_idle(syncer)
        assert node.compared == []

    asyncio.run(work())


def test_what_a_run_that_was_repeated_at_once_left_is_swept(
    instance: Instance, state: StateWriter, clock: FakeClock
) -> None:
    """An rsync that died with the list in hand, and another that then sent it: nothing failed,
    but the first may have left a file of ours.
    """
    node = _Node()

    async def work() -> None:
        syncer = _syncer(instance, state, clock, node)
        await _until_idle(syncer)
        clock.advance(1)
        node.shipped.clear()
        node.compared.clear()
        node.extraneous = (b".a.aB3dEf", b"foreign")
        node.result = replace(node.result, cut_off=True)
        instance.changed("a")
        assert (await syncer.tick()).did is Did.SHIPPED
        assert node.compared == [[b""]]
        assert node.shipped == [([b"a"], []), ([], [b".a.aB3dEf"])]

    asyncio.run(work())
