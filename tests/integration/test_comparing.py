"""Bootstrap and reconcile piece by piece, side by side, with real rsyncs that are counted."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from shardsync.journal.plan import Origin, Plan, PlannedShard
from shardsync.journal.records import Compare, RoundKind, WorkReason
from shardsync.journal.requests import RequestKind
from shardsync.model import NodeState, Scope, ShardId
from tests.support.compare import differences
from tests.support.counted_rsync import CountedRsync
from tests.support.nodes import RsyncDaemon, local_node
from tests.support.shipping import KEY, ask, fill, killed_at_exit, names_below, row_of
from tests.support.sync import Instance, follow_once, run, running


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountedRsync:
    """Every rsync from now on is noted."""
    return CountedRsync.install(tmp_path / "bin", monkeypatch)


def _instance(tmp_path: Path) -> tuple[Instance, Path, Path]:
    """A Tree with one top directory, forty below it and two files in each of those."""
    instance = Instance(tmp_path)
    node = tmp_path / "node"
    fill(
        instance.tree,
        {f"site/d{number:02}/{part}/f": "1" for number in range(40) for part in "ab"},
    )
    fill(instance.tree, {"top": "1", "site/index": "1"})
    instance.nodes = [local_node(node)]
    return instance, instance.tree, node


def _copied(tree: Path, node: Path) -> None:
    subprocess.run(["cp", "-a", tree, node], check=True, timeout=30)


def _ctimes(folder: Path) -> dict[str, int]:
    return {name: os.lstat(folder / name).st_ctime_ns for name in names_below(folder)}


def test_an_identical_node_costs_a_comparison_and_no_transfer(
    tmp_path: Path, counted: CountedRsync
) -> None:
    """Cut into pieces, each is compared once, nothing is sent, and the Node is owned."""
    instance, tree, node = _instance(tmp_path)
    _copied(tree, node)
    before = _ctimes(node)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await sync.until(lambda: row_of(sync).state is NodeState.FOLLOWING)
            assert row_of(sync).owned
            assert row_of(sync).verified_at is not None
            assert sync.state.read.round(KEY, RoundKind.COMPARE) is None

    run(work)
    assert _ctimes(node) == before
    assert counted.trees() == []
    # The forty of the one level that was cut, some at a time, and the levels above them.
    assert 5 <= len(counted.comparisons()) <= 12


def test_only_what_differs_is_sent(tmp_path: Path, counted: CountedRsync) -> None:
    """One directory of a copied Node differs: no other file is touched, none sent as a whole."""
    instance, tree, node = _instance(tmp_path)
    _copied(tree, node)
    (node / "site/d07/a/f").write_text("other")
    os.unlink(node / "site/d08/b/f")
    before = _ctimes(node)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert differences(tree, node) == []
            assert not row_of(sync).owned

    run(work)
    after = _ctimes(node)
    touched = {name for name, ctime in after.items() if before.get(name) != ctime}
    assert {"site/d07/a/f", "site/d08/b/f"} <= touched
    assert not any(name.startswith("site/d1") for name in touched)
    assert counted.trees() == []


def test_an_empty_node_is_filled_by_runs_side_by_side(
    tmp_path: Path, counted: CountedRsync
) -> None:
    """Several rsyncs at once, no comparison, and every mtime right: also above the pieces."""
    instance, tree, node = _instance(tmp_path)
    for number in range(40):
        (tree / f"site/d{number:02}/big").write_bytes(os.urandom(200_000))
    for folder in (tree / "site", tree):
        os.utime(folder, ns=(10**18, 10**18 + 777))

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: row_of(sync).contacted)
            assert {item.compare for item in sync.state.read.work(KEY)} <= {Compare.EMPTY}
            await sync.followed()
            assert differences(tree, node) == []
            assert row_of(sync).owned

    run(work)
    assert counted.comparisons() == []
    assert counted.most_at_once(" -r ") > 1
    assert (node / "site").stat().st_mtime_ns == 10**18 + 777


def test_killed_after_the_pieces_the_directories_above_are_still_set_right(
    tmp_path: Path, counted: CountedRsync
) -> None:
    """Their attributes are the last rows: they outlive a kill, as whatever else is open."""
    instance, tree, node = _instance(tmp_path)
    for number in range(40):
        (tree / f"site/d{number:02}/big").write_bytes(os.urandom(500_000))
    os.utime(tree / "site", ns=(10**18, 10**18 + 777))
    left: list[int] = []

    def trees_left(work: list[tuple[Scope, bytes]]) -> int:
        return sum(1 for scope, _ in work if scope is Scope.TREE)

    async def first() -> None:
        async with killed_at_exit(instance) as sync:
            await sync.until(lambda: row_of(sync).contacted)

            def is_half_way() -> bool:
                rows = [(item.scope, item.path) for item in sync.state.read.work(KEY)]
                left[:] = [trees_left(rows)]
                assert (Scope.ENTRY, b"site") in rows
                return 0 < left[0] < 40

            await sync.until(is_half_way)

    async def second() -> None:
        counted.forget()
        async with running(instance) as sync:
            compared = sync.state.read.round(KEY, RoundKind.COMPARE)
            assert compared is not None
            assert compared.done >= 40 - left[0]
            await sync.followed()
            assert differences(tree, node) == []

    run(first)
    run(second)
    assert (node / "site").stat().st_mtime_ns == 10**18 + 777


def test_following_goes_on_while_pieces_are_open(tmp_path: Path) -> None:
    """A Change of what is there already does not wait for the end of a reconcile."""
    instance, tree, node = _instance(tmp_path)
    for number in range(40):
        (tree / f"site/d{number:02}/big").write_bytes(os.urandom(2_000_000))
    instance.nodes = [local_node(node)]
    seen: list[int] = []

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: row_of(sync).contacted)
            fill(tree, {"live": "1"})
            instance.changed("live")
            await sync.until((node / "live").exists)
            seen.append(sync.state.read.work_reasons(KEY).get(WorkReason.BOOTSTRAP, 0))
            await sync.followed()
            assert differences(tree, node) == []

    run(work)
    assert seen[0] >= 0


def test_what_is_beside_the_tree_goes_from_an_owned_node_alone(
    tmp_path: Path, counted: CountedRsync
) -> None:
    """At every depth: in the root, in the directories above the pieces, and in pieces."""
    instance, tree, node = _instance(tmp_path)
    foreign = {"beside": "1", "site/beside": "1", "site/d01/a/beside": "1", "site/own/deep/x": "1"}

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert row_of(sync).owned
            fill(node, foreign)
            sync.state.set_node(KEY, owned=0)
            assert (await ask(sync, RequestKind.RECONCILE)).exit_code == 0
            assert all((node / name).exists() for name in foreign)
            assert sync.state.read.foreign_paths(KEY) == [
                b"beside",
                b"site/beside",
                b"site/d01/a/beside",
                b"site/own",
            ]
            counted.forget()
            sync.state.set_node(KEY, owned=1)
            assert (await ask(sync, RequestKind.RECONCILE)).exit_code == 0
            assert differences(tree, node) == []
            assert counted.trees() == []

    run(work)


def test_many_differences_are_sent_as_a_whole(tmp_path: Path, counted: CountedRsync) -> None:
    """Beyond a few thousand a list costs more than it saves; what is beside still goes."""
    instance, tree, node = _instance(tmp_path)
    fill(tree, {f"many/f{number}": "1" for number in range(5_200)})

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            shutil.rmtree(node / "many")
            fill(node, {"many/beside": "1"})
            counted.forget()
            assert (await ask(sync, RequestKind.RECONCILE)).exit_code == 0
            assert differences(tree, node) == []

    run(work)
    assert len(counted.trees()) == 1


def test_one_path_is_reconciled_in_pieces_too(tmp_path: Path, counted: CountedRsync) -> None:
    """A directory by its own pieces, a file by itself; the rest of the Node is not looked at."""
    instance, _tree, node = _instance(tmp_path)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(node, {"site/d03/b/f": "other", "site/d03/beside": "1", "site/d04/beside": "1"})
            before = row_of(sync).verified_at
            assert (await ask(sync, RequestKind.RECONCILE, path=b"site/d03")).exit_code == 0
            assert (node / "site/d03/b/f").read_text() == "1"
            assert not (node / "site/d03/beside").exists()
            assert (node / "site/d04/beside").exists()
            assert row_of(sync).verified_at == before
            (node / "top").write_text("other")
            os.unlink(node / "site/index")
            assert (await ask(sync, RequestKind.RECONCILE, path=b"top")).exit_code == 0
            assert (node / "top").read_text() == "1"
            assert not (node / "site/index").exists()
            assert (await ask(sync, RequestKind.RECONCILE, path=b"site/index")).exit_code == 0
            assert (node / "site/index").exists()

    run(work)


def test_a_node_with_few_connections_is_filled_all_the_same(tmp_path: Path) -> None:
    """A daemon that takes two at a time turns the others away: fewer are used then."""
    instance, tree, _ = _instance(tmp_path)
    for number in range(40):
        (tree / f"site/d{number:02}/big").write_bytes(os.urandom(300_000))
    module = tmp_path / "module"
    module.mkdir()
    with RsyncDaemon(
        workspace=tmp_path, path=module, module_lines=("max connections = 2",)
    ) as daemon:
        instance.nodes = [daemon.node(name="web1")]

        async def work() -> None:
            async with running(instance) as sync:
                await sync.followed(seconds=60)
                assert differences(tree, module) == []

        run(work)


@pytest.mark.fault("node-edited")
@pytest.mark.parametrize("how", ["away", "down"])
def test_a_node_restored_from_an_old_copy_is_noticed(tmp_path: Path, how: str) -> None:
    """While it was away, or shardsync was down: names are all there, two levels tell."""
    instance, tree, _ = _instance(tmp_path)
    module = tmp_path / "module"
    module.mkdir()
    with RsyncDaemon(workspace=tmp_path, path=module) as daemon:
        instance.nodes = [daemon.node(name="web1")]

        async def before() -> None:
            async with running(instance) as sync:
                await sync.followed()
                _copied(module, tmp_path / "old")
                fill(tree, {"site/d05/new/f": "1"})
                instance.changed("site/d05/new", "site/d05/new/f")
                await sync.followed()
                if how == "away":
                    daemon.stop()
                    fill(tree, {"top": "22"})
                    instance.changed("top")
                    await sync.until(lambda: row_of(sync).attempts > 0)
                    restore()
                    daemon.start()
                    await sync.followed()
                    assert differences(tree, module) == []

        def restore() -> None:
            shutil.rmtree(module)
            _copied(tmp_path / "old", module)

        async def after() -> None:
            async with running(instance) as sync:
                await sync.until(lambda: differences(tree, module) == [])

        run(before)
        if how == "down":
            restore()
            run(after)


def test_what_may_not_be_journaled_yet_is_no_sign_that_a_node_was_changed(
    tmp_path: Path, counted: CountedRsync
) -> None:
    """A file held open for writing, a directory moved in: their Changes are still to come."""
    instance, tree, node = _instance(tmp_path)
    fill(tmp_path / "elsewhere", {"in/old": "1"})

    async def second() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await sync.until(lambda: len(counted.comparisons()) > 0)
            await asyncio.sleep(0.2)
            assert row_of(sync).state is NodeState.FOLLOWING
            assert (node / "site" / "index").read_text() == "1"

    follow_once(instance)
    instance.journals[0].commit(progress={"watermark_us": instance.clock.wall_us()})
    (tree / "site" / "index").write_text("being written")
    (tmp_path / "elsewhere" / "in").rename(tree / "in")
    counted.forget()
    run(second)
    assert len(counted.comparisons()) == 1
    assert counted.trees() == []


def test_a_node_that_is_what_it_was_is_not_reconciled_after_a_start(
    tmp_path: Path, counted: CountedRsync
) -> None:
    """One look at two levels, whatever is pending meanwhile."""
    instance, tree, node = _instance(tmp_path)

    async def second() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await asyncio.sleep(0.2)
            assert row_of(sync).state is NodeState.FOLLOWING
            assert differences(tree, node) == []

    follow_once(instance)
    fill(tree, {"site/d06/a/f": "22", "fresh/f": "1"})
    os.unlink(tree / "site/index")
    instance.changed("site/d06/a/f", "fresh", "fresh/f", "site/index")
    counted.forget()
    run(second)
    assert len(counted.comparisons()) == 1
    assert counted.trees() == []


def test_a_name_of_a_file_written_through_another_is_no_sign_that_a_node_was_changed(
    tmp_path: Path, counted: CountedRsync
) -> None:
    """Its Change is told of the other name alone, and this one is on its way with that."""
    instance, tree, node = _instance(tmp_path)
    os.link(tree / "top", tree / "site/d07/a/deep")

    async def second() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: (node / "top").read_text() == "22")
            await sync.followed()
            assert differences(tree, node) == []

    follow_once(instance)
    fill(tree, {"site/d07/a/deep": "22"})
    instance.changed("site/d07/a/deep")
    counted.forget()
    run(second)
    assert len(counted.comparisons()) == 1
    assert counted.trees() == []


def test_a_missing_name_of_a_file_with_several_is_a_sign(tmp_path: Path) -> None:
    """A tree may be of nothing else, as copies by `cp -al` are."""
    instance, tree, node = _instance(tmp_path)
    os.link(tree / "top", tree / "site/d07/a/deep")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: differences(tree, node) == [])

    run(work)
    (node / "top").unlink()
    (node / "site/d07/a/deep").unlink()
    run(work)


def test_what_a_new_shard_has_journaled_is_no_sign_that_a_node_was_changed(
    tmp_path: Path, counted: CountedRsync
) -> None:
    """After a re-plan a Node that is looked at has no Cursor in the new Shard's Journal yet."""
    instance, tree, node = _instance(tmp_path)

    async def second() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert differences(tree, node) == []

    follow_once(instance)
    instance.journals.append(instance._journal(1))
    shards = [
        PlannedShard(
            id=ShardId(f"main-{number:02d}"),
            tree="main",
            slot=number,
            prefixes=prefixes,
            journal_id=instance.journals[number].journal_id,
            made_by=origin,
        )
        for number, (prefixes, origin) in enumerate(
            [((b"",), Origin.FIRST), ((b"site",), Origin.REPLAN)]
        )
    ]
    instance.plan = Plan(generation=2, shards=tuple(shards))
    fill(tree, {"site/index": "22"})
    instance.changed("site/index", shard=1)
    counted.forget()
    run(second)
    assert len(counted.comparisons()) == 1
    assert counted.trees() == []


def test_what_differed_and_is_gone_from_the_tree_is_no_sign_that_a_node_was_changed(
    tmp_path: Path, counted: CountedRsync
) -> None:
    """Written and moved away before its Watcher was up again: its Changes bear its new name."""
    instance, tree, node = _instance(tmp_path)

    async def second() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: len(counted.comparisons()) > 0)
            await asyncio.sleep(0.3)
            (tree / "site/index").rename(tree / "site/elsewhere")
            instance.changed("site", scope=Scope.LISTING)
            instance.changed("site/elsewhere")
            told_us = instance.clock.wall_us() + 3_600_000_000
            instance.journals[0].commit(progress={"watermark_us": told_us})
            await sync.until((node / "site/elsewhere").exists)
            await sync.followed()
            await asyncio.sleep(0.3)
            assert differences(tree, node) == []

    follow_once(instance)
    instance.journals[0].commit(progress={"watermark_us": instance.clock.wall_us()})
    fill(tree, {"site/index": "22"})
    counted.forget()
    run(second)
    assert len(counted.comparisons()) == 2  # that look, and the listing's own
    assert counted.trees() == []


@pytest.mark.fault("hard-links")
def test_a_write_through_a_name_that_went_while_away_is_no_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file has one name by then, and its Change is of another: it is sent, and no more."""
    instance, tree, node = _instance(tmp_path)
    fill(tree, {"kept": "1"})
    os.link(tree / "kept", tree / "lost")

    async def first() -> None:
        async with running(instance) as sync:
            await sync.followed()
            instance.changed("lost")
            await sync.followed()

    async def second() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert differences(tree, node) == []

    run(first)
    fill(tree, {"lost": "written through it"})
    os.unlink(tree / "lost")
    instance.changed("lost")
    run(second)
    assert "node.changed_while_away" not in caplog.text
