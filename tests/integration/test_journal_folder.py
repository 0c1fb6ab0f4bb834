"""Journals made for a Plan, and removed once nobody needs them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from shardsync.control.journals import JournalFolder
from shardsync.errors import StateUnusable
from shardsync.journal.locks import FileLock
from shardsync.journal.plan import Origin, PlannedShard, PlanState
from shardsync.journal.reader import JournalReader
from shardsync.journal.records import Cursor
from shardsync.journal.state_writer import StateWriter
from shardsync.journal.writer import JournalWriter
from shardsync.layout import StateDirectory
from shardsync.model import EpochReason, JournalId, Kind, Scope, ShardId
from tests.support.clock import FakeClock

DAY_US = 86_400_000_000
SHARD = PlannedShard(
    id=ShardId("main-03"),
    tree="main",
    slot=0,
    prefixes=(b"",),
    journal_id=JournalId("j1"),
    made_by=Origin.REPLAN,
    state=PlanState.RETIRED,
)


class Bench:
    def __init__(self, path: Path) -> None:
        self.state = StateDirectory(path=path / "state")
        self.state.make()
        self.clock = FakeClock()
        self.folder = JournalFolder(state=self.state, clock=self.clock)
        self.path = self.state.journal(SHARD.id)

    def observe(self, *paths: bytes) -> int:
        """A Watcher's life: these Changes, then it ends. Returns the last Position."""
        writer = JournalWriter.open(self.path, shard=SHARD.id, tree="main", clock=self.clock)
        writer.begin_epoch(EpochReason.FIRST_START)
        now = self.clock.wall_us()
        rows = [(path, int(Scope.ENTRY), int(Kind.CONTENT), now, None) for path in paths]
        position = writer.commit(rows, progress={"heartbeat_us": now, "pid": 7})
        writer.end_epoch()
        writer.close()
        return position

    def node(self, name: str = "web1", *, tree: str = "main", was_met: bool = True) -> None:
        """One that was met, or is yet to be, and knows of no Journal."""
        writer = StateWriter.open(self.state.state_db, clock=self.clock)
        writer.know_node((tree, name))
        writer.set_node((tree, name), contacted=int(was_met))
        writer.close()

    def cursor(self, position: int, *, journal_id: str = "j1") -> None:
        """One Node stands at `position`."""
        self.node()
        writer = StateWriter.open(self.state.state_db, clock=self.clock)
        cursor = Cursor(journal_id=JournalId(journal_id), position=position)
        writer.set_cursors(("main", "web1"), {SHARD.id: cursor})
        writer.close()

    def is_outlived(self) -> bool:
        """Whether nobody needs it, with a retention of one day."""
        before = self.clock.wall_us() - DAY_US
        return self.folder.outlive(SHARD, before_us=before, max_bytes=2**31)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.folder.create(SHARD)
    return made


def test_a_journal_is_made_with_the_plans_id(bench: Bench) -> None:
    """Again changes nothing; an unused one that no Plan came to name makes way."""
    bench.folder.create(SHARD)
    assert JournalReader(bench.path).journal_id() == "j1"
    bench.folder.create(dataclasses.replace(SHARD, journal_id=JournalId("j2")))
    assert JournalReader(bench.path).journal_id() == "j2"


def test_a_journal_in_use_never_makes_way(bench: Bench) -> None:
    """A Journal that holds anything is not replaced, and its Shard's number is taken."""
    assert bench.folder.ids() == frozenset()
    bench.observe(b"x")
    assert bench.folder.ids() == {SHARD.id}
    with pytest.raises(StateUnusable, match="in use"):
        bench.folder.create(dataclasses.replace(SHARD, journal_id=JournalId("j2")))


def test_a_retired_journal_lives_for_its_retention_and_its_nodes(bench: Bench) -> None:
    """It goes when its Changes are older than the retention and no Node is behind."""
    position = bench.observe(b"x")
    bench.cursor(position - 1)
    assert not bench.is_outlived()
    bench.clock.advance(2 * 86400)
    assert not bench.is_outlived()
    assert JournalReader(bench.path).progress().pruned_to == position
    bench.cursor(position)
    assert bench.is_outlived()
    bench.folder.remove(SHARD.id)
    bench.folder.remove(SHARD.id)
    assert [path.name for path in bench.state.path.glob("journal-*")] == []


@pytest.mark.parametrize("lives", [[()], [(b"x",), ()]], ids=["ever", "since the last restart"])
def test_a_retired_journal_without_a_change_goes_too(
    bench: Bench, lives: list[tuple[bytes, ...]]
) -> None:
    """Nothing changed in its Shard: ever, or in the Epoch that a restart began."""
    for paths in lives:
        bench.clock.advance(60)
        position = bench.observe(*paths)
    bench.cursor(position)
    assert not bench.is_outlived()
    bench.clock.advance(2 * 86400)
    assert bench.is_outlived()


def test_a_retired_journal_waits_for_a_node_that_never_saw_it(bench: Bench) -> None:
    """Away, or paused, for as long as the Shard lived: it must learn that it is behind."""
    position = bench.observe(b"x")
    bench.node("web2", was_met=False)
    bench.node("web3", tree="other")
    bench.cursor(position)
    bench.node("away")
    bench.clock.advance(2 * 86400)
    assert not bench.is_outlived()
    writer = StateWriter.open(bench.state.state_db, clock=bench.clock)
    writer.forget_node(("main", "away"))
    writer.close()
    assert bench.is_outlived()


@pytest.mark.parametrize("observed", [(b"x",), ()], ids=["by its Watcher", "when it is pruned"])
def test_a_retired_journal_that_was_made_anew_waits_for_its_nodes(
    bench: Bench, observed: tuple[bytes, ...]
) -> None:
    """The Plan names the one that was lost; Cursors in that one say nothing of this."""
    position = bench.observe(b"x")
    bench.cursor(position)
    bench.path.write_bytes(b"damaged")
    if observed:
        position = bench.observe(*observed)
    bench.clock.advance(2 * 86400)
    assert not bench.is_outlived()
    made_anew = JournalReader(bench.path).journal_id()
    if observed:
        bench.cursor(position - 1, journal_id=made_anew)
        assert not bench.is_outlived()
    bench.cursor(position, journal_id=made_anew)
    assert bench.is_outlived()


def test_without_cursors_to_read_nothing_is_removed(bench: Bench) -> None:
    """A state.db that cannot be read is no word that nobody is behind."""
    bench.observe(b"x")
    bench.clock.advance(2 * 86400)
    with pytest.raises(StateUnusable):
        bench.is_outlived()


def test_a_journal_that_is_still_drained_is_left_alone(bench: Bench) -> None:
    """Its Watcher holds the flock until it has closed it."""
    bench.observe(b"x")
    bench.clock.advance(2 * 86400)
    with FileLock.acquire(bench.state.lock(f"journal-{SHARD.id}")):
        assert not bench.is_outlived()
