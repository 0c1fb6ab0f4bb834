"""First contact, reconcile, Journals that come and go, several Shards, Trees and subtrees."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from shardsync.clock import SystemClock
from shardsync.config.settings import SyncSettings, TreeSettings
from shardsync.inotify import COOKIE_MASK, Inotify, decode
from shardsync.journal.plan import Origin, Plan, PlannedShard, PlanState
from shardsync.journal.records import NodeKey, WorkReason
from shardsync.journal.requests import RequestKind
from shardsync.journal.state_writer import StateWriter
from shardsync.journal.writer import JournalWriter
from shardsync.model import EpochReason, JournalId, NodeState, Scope, ShardId, ShardState
from shardsync.ship.first_contact import FirstContact
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import (
    KEY,
    ask,
    fill,
    killed_at_exit,
    names_below,
    newest,
    row_of,
)
from tests.support.sync import Instance, Running, follow_once, run, running

FILES = {"a/x": "1", "b/y": "22", "top": "333"}


def _copied(tree: Path, node: Path) -> None:
    subprocess.run(["cp", "-a", tree, node], check=True, timeout=30)


def _shipped(sync: Running, key: NodeKey = KEY) -> int:
    """How many pieces of comparing work were ever opened: they are numbered."""
    return sum(1 for item in sync.state.read.work(key) if item.reason is not WorkReason.RETRY)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_node_that_rsync_works_on_as_another_user_is_met_and_followed() -> None:
    """`run_as`, from the first question on: what is there and what its rsync can do."""
    with tempfile.TemporaryDirectory(prefix="shardsync-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        instance = Instance(folder)
        tree, node = instance.tree, folder / "node"
        fill(tree, FILES)
        node.mkdir()
        os.chown(node, 65534, 65534)
        instance.nodes = [dataclasses.replace(local_node(node), run_as="nobody")]

        async def work() -> None:
            async with running(instance) as sync:
                await sync.followed()
                assert row_of(sync).owned
                os.unlink(tree / "b/y")
                fill(tree, {"a/x": "changed"})
                instance.changed("a/x", "b/y")
                await sync.followed()

        run(work)
        assert names_below(node) == names_below(tree)
        assert (node / "a/x").read_text() == "changed"
        assert (node / "a/x").owner() == "nobody"


def test_watchers_are_asked_how_far_they_are_while_a_node_is_in_doubt(tmp_path: Path) -> None:
    """A flush waits for the answer, and must not wait for their next heartbeat."""
    instance = Instance(tmp_path)
    fill(instance.tree, FILES)
    instance.nodes = [local_node(tmp_path / "node")]
    cookies = Inotify.open()
    cookies.add(os.fsencode(instance.state_dir.cookies), COOKIE_MASK)

    def asked() -> bool:
        return any(name == b"flush-progress-main" for *_, name in decode(cookies.read()))

    async def second() -> None:
        async with running(instance) as sync:
            await sync.until(asked)
            instance.journals[0].commit(progress={"watermark_us": instance.clock.wall_us()})
            await sync.until((tmp_path / "node/top").exists)

    follow_once(instance)
    assert not asked()
    (tmp_path / "node/top").unlink()
    instance.journals[0].commit(progress={"watermark_us": instance.clock.wall_us()})
    run(second)
    cookies.close()
    assert list(instance.state_dir.cookies.iterdir()) == []


def test_an_identical_node_is_owned_and_sent_nothing(tmp_path: Path) -> None:
    """A copy made by hand is taken as it is: followed at once, and owned."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, FILES)
    _copied(tree, node)
    before = (node / "a/x").stat()
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert row_of(sync).owned
            assert (node / "a/x").stat().st_ctime_ns == before.st_ctime_ns
            os.unlink(tree / "b/y")
            instance.changed("b", scope=Scope.LISTING)
            await sync.followed()
            assert differences(tree, node) == []

    run(work)


def test_what_changes_during_a_bootstrap_is_not_lost(tmp_path: Path) -> None:
    """Positions are noted before anything is compared: Changes meanwhile are followed after."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {f"d{number:02}/f{n}": "1" for number in range(40) for n in range(3)})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: row_of(sync).contacted)
            os.unlink(tree / "d00/f0")
            fill(tree, {"d01/f0": "2", "d39/f0": "2", "new/f": "1"})
            os.rename(tree / "d02", tree / "moved")
            instance.changed("d00/f0", "d01/f0", "d39/f0", "new", "new/f")
            instance.changed("d02", "moved", scope=Scope.TREE)
            await sync.followed()
            assert differences(tree, node) == []
            assert row_of(sync).state is NodeState.FOLLOWING

    run(work)


@pytest.mark.fault("recovery-killed")
def test_a_bootstrap_killed_half_way_goes_on(tmp_path: Path) -> None:
    """The next process does the pieces that are left, not those that are done."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {f"d{number:02}/f": "1" for number in range(60)})
    instance.nodes = [local_node(node)]
    left: list[int] = []

    async def first() -> None:
        async with killed_at_exit(instance) as sync:
            await sync.until(lambda: row_of(sync).contacted)
            await sync.until(lambda: 0 < _shipped(sync) < 58)
            left.append(_shipped(sync))
            assert row_of(sync).state is NodeState.BOOTSTRAPPING

    async def second() -> None:
        async with running(instance) as sync:
            assert _shipped(sync) <= left[0]
            await sync.followed()
            assert differences(tree, node) == []
            assert row_of(sync).owned

    run(first)
    (node / "d00").mkdir(exist_ok=True)
    run(second)


def test_a_node_is_compared_only_with_a_tree_that_is_watched(tmp_path: Path) -> None:
    """The first scan of a Journal made anew looks at no file: the comparison comes after it."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, FILES)
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            writer = instance.journal_anew(state=ShardState.SCANNING)
            await asyncio.sleep(1.0)
            fill(tree, {"a/x": "changed before its directory had its watch again"})
            writer.commit(progress={"state": ShardState.FOLLOWING.value})
            await sync.followed()
            assert differences(tree, node) == []

    run(work)


@pytest.mark.fault("journal-unlinked")
@pytest.mark.parametrize("moment", ["down", "running"])
def test_a_journal_of_another_id_is_answered_by_a_reconcile(tmp_path: Path, moment: str) -> None:
    """What the lost Journal may have held is found by comparing; then the new one is followed."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, FILES)
    instance.nodes = [local_node(node)]

    def lose_journal() -> None:
        fill(tree, {"a/x": "not journaled", "new/z": "1"})
        os.unlink(tree / "b/y")
        instance.journal_anew(state=ShardState.FOLLOWING)

    async def down() -> None:
        async with running(instance) as sync:
            await sync.followed()

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            if moment == "running":
                lose_journal()
                instance.changed("top")
            await sync.followed()
            assert differences(tree, node) == []
            fill(tree, {"top": "4444"})
            instance.changed("top")
            await sync.followed()
            assert differences(tree, node) == []

    if moment == "down":
        run(down)
        lose_journal()
    run(work)


@pytest.mark.fault("behind-retention")
def test_a_cursor_behind_the_retention_is_reconciled(tmp_path: Path) -> None:
    """Pruned Changes are never skipped in silence: state behind_retention until compared."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {f"d{number:02}/f": "1" for number in range(60)})
    instance.nodes = [local_node(node)]
    states: set[NodeState] = set()

    async def second() -> None:
        async with running(instance) as sync:

            def is_seen() -> bool:
                states.add(row_of(sync).state)
                return NodeState.BEHIND_RETENTION in states

            await sync.until(is_seen)
            await sync.until(lambda: _shipped(sync) < 45)
            assert row_of(sync).state is NodeState.BEHIND_RETENTION
            await sync.followed()
            assert differences(tree, node) == []
            await sync.until(lambda: row_of(sync).state is NodeState.FOLLOWING)

    follow_once(instance)
    fill(tree, {"d00/f": "22", "d59/new": "1"})
    os.unlink(tree / "d01/f")
    instance.changed("d00/f", "d59/new", "d01/f")
    instance.changed("d00/f")
    instance.journals[0].prune(before_us=instance.clock.wall_us() + 1_000_000, max_bytes=2**30)
    run(second)


def _shard(
    instance: Instance, number: int, prefix: bytes, *, state: PlanState, made_by: Origin
) -> PlannedShard:
    return PlannedShard(
        id=ShardId(f"main-{number:02d}"),
        tree="main",
        slot=number,
        prefixes=(prefix,),
        journal_id=instance.journals[number].journal_id,
        state=state,
        made_by=made_by,
    )


def test_shards_of_a_replan_are_followed_from_their_start(tmp_path: Path) -> None:
    """No reconcile: what the new Journal holds from its first Position on is shipped, what the
    retired one still holds is drained, and a later Plan may drop it.
    """
    instance = Instance(tmp_path, shards=2)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, FILES)
    instance.nodes = [local_node(node)]
    old = _shard(instance, 0, b"", state=PlanState.ACTIVE, made_by=Origin.FIRST)
    new = _shard(instance, 1, b"", state=PlanState.NEW, made_by=Origin.REPLAN)
    instance.plan = Plan(generation=1, shards=(old,))

    def reached(sync: Running, shard: str) -> bool:
        cursors = sync.state.read.cursors(KEY)
        number = int(shard[-2:])
        journal = instance.journals[number]
        return shard in cursors and cursors[shard].position >= journal.last_position

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: reached(sync, "main-00"))
            await sync.until(lambda: not sync.state.read.work(KEY))
            fill(node, {"a/node-own": "a reconcile would delete it"})
            fill(tree, {"a/x": "by the new one", "top": "by the old one"})
            instance.changed("a/x", shard=1)
            instance.changed("top", shard=0)
            for plan in (
                Plan(generation=2, shards=(old, new)),
                Plan(
                    generation=3,
                    shards=(
                        dataclasses.replace(old, state=PlanState.RETIRED),
                        dataclasses.replace(new, state=PlanState.ACTIVE),
                    ),
                ),
            ):
                instance.write_plan(plan)
                await sync.until(lambda: reached(sync, "main-00") and reached(sync, "main-01"))
                assert (node / "a/x").read_text() == "by the new one"
                assert (node / "top").read_text() == "by the old one"
            fill(tree, {"b/y": "drained"})
            instance.changed("b/y", shard=0)
            await sync.until(lambda: reached(sync, "main-00"))
            assert (node / "b/y").read_text() == "drained"
            instance.write_plan(
                Plan(generation=4, shards=(dataclasses.replace(new, state=PlanState.ACTIVE),))
            )
            fill(tree, {"a/x": "on we go"})
            instance.changed("a/x", shard=1)
            await sync.until(lambda: reached(sync, "main-01"))
            assert (node / "a/x").read_text() == "on we go"
            assert (node / "a/node-own").exists()
            assert not sync.state.read.work(KEY)

    run(work)


def test_a_shard_that_is_still_scanning_holds_first_contact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before everything is watched a copy would miss what changes meanwhile."""
    tries: list[bool] = []
    begin = FirstContact.begin

    async def begin_and_tell(self: FirstContact) -> bool:
        tries.append(await begin(self))
        return tries[-1]

    monkeypatch.setattr(FirstContact, "begin", begin_and_tell)
    instance = Instance(tmp_path, shards=2)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, FILES)
    instance.nodes = [local_node(node)]
    instance.journals[1].commit(progress={"state": ShardState.SCANNING.value})

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: bool(tries))
            assert tries == [False]
            assert not row_of(sync).contacted
            assert not node.exists()
            instance.journals[1].commit(progress={"state": ShardState.FOLLOWING.value})
            await sync.followed()
            assert differences(tree, node) == []

    run(work)


def test_three_nodes_share_one_rsync_and_four_shards(tmp_path: Path) -> None:
    """max_rsyncs = 1: all Nodes come to be identical, Changes of all Shards included."""
    instance = Instance(tmp_path, shards=4)
    tree = instance.tree
    fill(tree, {f"d{number}/f": "1" for number in range(8)})
    nodes = [tmp_path / f"node{number}" for number in range(3)]
    instance.nodes = [local_node(node, name=node.name) for node in nodes]
    instance.sync = SyncSettings(max_rsyncs=1)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            for turn in range(3):
                for shard in range(4):
                    fill(tree, {f"d{shard}/f": f"{turn}", f"d{shard}/n{turn}": "1"})
                    instance.changed(f"d{shard}/f", f"d{shard}/n{turn}", shard=shard)
            os.rename(tree / "d7", tree / "d0/d7")
            instance.changed("d7", shard=3, scope=Scope.TREE)
            instance.changed("d0/d7", shard=0, scope=Scope.TREE)
            await sync.followed()
            for node in nodes:
                assert differences(tree, node) == []

    run(work)


def test_a_subtree_node_gets_its_part_at_its_top(tmp_path: Path) -> None:
    """`news/x` lands at TARGET/x; excludes are the Tree's; what lies beside is no business of it;
    the folder may go away and come back, other Nodes unaffected.
    """
    instance = Instance(tmp_path)
    tree, node, whole = instance.tree, tmp_path / "node", tmp_path / "whole"
    fill(tree, {"news/x": "1", "news/d/y": "1", "news/no.tmp": "1", "other/z": "1", "newsy": "1"})
    instance.nodes = [
        dataclasses.replace(local_node(node), subtree="news", exclude=("/news/*.tmp",)),
        local_node(whole, name="web2"),
    ]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert names_below(node) == ["d", "d/y", "x"]
            fill(tree, {"news/x": "22", "news/d/new": "1", "other/z": "22", "newsy": "22"})
            os.unlink(tree / "news/d/y")
            instance.changed("news/x", "news/d/new", "news/d/y", "other/z", "newsy")
            await sync.followed()
            assert names_below(node) == ["d", "d/new", "x"]
            fill(node, {"d/foreign": "1"})
            answer = await ask(sync, RequestKind.RECONCILE, nodes=("web1",), path=b"news/d")
            assert (answer.exit_code, answer.message) == (0, "")
            assert names_below(node) == ["d", "d/new", "x"]
            os.rename(tree / "news", tree / "away")
            instance.changed("news", "away", scope=Scope.TREE)
            await sync.until(lambda: row_of(sync).state is NodeState.HALTED)
            await sync.until((whole / "away/d/new").exists)
            await sync.until(lambda: not (whole / "news").exists())
            assert names_below(node) == ["d", "d/new", "x"]
            assert row_of(sync, ("main", "web2")).state is NodeState.FOLLOWING
            answer = await ask(sync, RequestKind.RECONCILE, nodes=("web1",))
            assert answer.exit_code == 14
            os.rename(tree / "away", tree / "news")
            os.unlink(tree / "news/d/new")
            instance.changed("news", "away", scope=Scope.TREE)
            await sync.followed()
            assert names_below(node) == ["d", "x"]
            assert row_of(sync).state is NodeState.FOLLOWING
            assert differences(tree, whole) == []

    run(work)


def test_a_subtree_that_is_missing_at_first_contact_waits(tmp_path: Path) -> None:
    """The sync process goes on for the others; the Node is filled once the folder is there."""
    instance = Instance(tmp_path)
    tree, node, whole = instance.tree, tmp_path / "node", tmp_path / "whole"
    fill(tree, {"other/z": "1"})
    instance.nodes = [
        dataclasses.replace(local_node(node), subtree="news"),
        local_node(whole, name="web2"),
    ]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until((whole / "other/z").exists)
            await sync.until(lambda: bool(row_of(sync).last_error))
            fill(tree, {"news/x": "1"})
            instance.changed("news", "news/x")
            await sync.followed()
            assert names_below(node) == ["x"]
            assert differences(tree, whole) == []

    run(work)


def test_several_trees_do_not_mix(tmp_path: Path) -> None:
    """Each Tree's Nodes get its Changes alone; a lost root halts only its own Tree."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    second, copy = tmp_path / "second", tmp_path / "copy"
    fill(tree, {"a": "1"})
    fill(second, {"b": "1"})
    journal = JournalWriter.create(
        instance.state_dir.journal("second-00"),
        shard=ShardId("second-00"),
        tree="second",
        journal_id=JournalId("f" * 32),
        clock=SystemClock(),
    )
    journal.begin_epoch(EpochReason.FIRST_START)
    journal.commit(progress={"state": ShardState.FOLLOWING.value})
    instance.more_trees = (TreeSettings(name="second", root=second),)
    instance.nodes = [local_node(node), local_node(copy, name="web1", tree="second")]
    instance.plan = Plan(
        generation=1,
        shards=(
            _shard(instance, 0, b"", state=PlanState.ACTIVE, made_by=Origin.FIRST),
            PlannedShard(
                id=ShardId("second-00"),
                tree="second",
                slot=1,
                prefixes=(b"",),
                journal_id=JournalId("f" * 32),
            ),
        ),
    )
    other: NodeKey = ("second", "web1")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: row_of(sync).state is NodeState.FOLLOWING)
            await sync.until(lambda: row_of(sync, other).state is NodeState.FOLLOWING)
            assert (names_below(node), names_below(copy)) == (["a"], ["b"])
            os.rename(tree, tmp_path / "away")
            instance.changed("a")
            await sync.until(lambda: row_of(sync).state is NodeState.HALTED)
            fill(second, {"b": "22", "a": "22"})
            now = instance.clock.wall_us()
            journal.commit([(b"b", Scope.ENTRY, 1, now, None), (b"a", Scope.ENTRY, 1, now, None)])
            await sync.until((copy / "a").exists)
            assert (copy / "b").read_text() == "22"
            assert sync.state.read.tree_halted("second") == ""
            assert names_below(node) == ["a"]

    run(work)


@pytest.mark.fault("state-lost")
@pytest.mark.parametrize("damage", ["deleted", "garbage"])
def test_a_lost_state_database_is_answered_by_a_reconcile(tmp_path: Path, damage: str) -> None:
    """Cursors unknown: set aside, everything is compared, nothing foreign is deleted unasked."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, FILES)
    instance.nodes = [local_node(node)]
    path = instance.state_dir.state_db

    follow_once(instance)
    fill(tree, {"a/x": "changed while nobody knew", "new": "1"})
    instance.changed("new")
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"no database at all" * 500)
    follow_once(instance)
    assert differences(tree, node) == []
    aside = [name for name in os.listdir(path.parent) if "corrupt" in name]
    assert bool(aside) == (damage == "garbage")


class _DyingState(StateWriter):
    """Dies when a Batch is recorded, as by kill -9 between rsync's end and the record."""

    def record(self, key: NodeKey, batch: object) -> None:
        del key, batch
        raise asyncio.CancelledError


@pytest.mark.fault("sync-killed")
def test_killed_between_rsync_and_the_record(tmp_path: Path) -> None:
    """The Batch is on the Node, the Cursor is not: it is shipped again, and nothing is lost."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, FILES)
    instance.nodes = [local_node(node)]

    async def dies() -> None:
        async with killed_at_exit(
            instance,
            open_state=lambda it: _DyingState.open(it.state_dir.state_db, clock=it.clock),
        ) as sync:
            before = sync.state.read.cursors(KEY)
            await sync.until((node / "new").exists)
            await sync.until(lambda: not (node / "b/y").exists())
            assert sync.state.read.cursors(KEY) == before

    follow_once(instance)
    fill(tree, {"a/x": "shipped once", "new": "1"})
    os.unlink(tree / "b/y")
    instance.changed("a/x", "new", "b/y")
    run(dies)
    (node / "a/x").write_text("spoilt")
    follow_once(instance)
    assert differences(tree, node) == []
    assert newest(instance)
