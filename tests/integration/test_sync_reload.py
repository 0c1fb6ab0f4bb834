"""Settings that change while the sync process runs: each Node gets what it lacks, no more."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
from pathlib import Path

from shardsync.config.marks import settings_mark, tree_mark
from shardsync.config.settings import NodeSettings, SyncSettings
from shardsync.journal.locks import FileLock
from shardsync.journal.records import Cursor
from shardsync.journal.requests import RequestKind
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import answered, ask, asked, fill, names_below, newest, row_of
from tests.support.sync import Instance, Running, run, running

ONE, TWO, NEW = ("main", "web1"), ("main", "web2"), ("main", "web9")


async def _take(sync: Running, *nodes: NodeSettings) -> None:
    """Hand the running process these Nodes, and wait until it runs them."""
    sync.instance.nodes = list(nodes)
    settings = sync.instance.settings()
    sync.service.take(settings)
    await sync.until(lambda: sync.state.read.settings() == settings_mark(settings))


def _inodes(folder: Path) -> dict[str, int]:
    """What was sent again has another inode."""
    return {name: (folder / name).stat().st_ino for name in names_below(folder)}


def test_a_node_that_is_added_is_filled_and_the_others_are_left_alone(tmp_path: Path) -> None:
    """The new Node holds the Tree; on the other no file was written and no Cursor was set back."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"d/a": "1", "b": "2"})
    one, two = local_node(tmp_path / "one"), local_node(tmp_path / "two", name="web2")
    instance.nodes = [one]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            before = _inodes(tmp_path / "one")
            await _take(sync, one, two)
            await sync.followed()
            assert differences(instance.tree, tmp_path / "two") == []
            assert _inodes(tmp_path / "one") == before
            fill(instance.tree, {"d/a": "11"})
            instance.changed("d/a")
            await sync.followed()
            assert (tmp_path / "one/d/a").read_text() == "11"
            assert (tmp_path / "two/d/a").read_text() == "11"

    run(work)


def test_an_rsync_to_a_node_that_stays_as_it_is_goes_on_through_a_reload(tmp_path: Path) -> None:
    """Another Node comes meanwhile: neither is the running one cut off, nor is it waited for."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    one = dataclasses.replace(local_node(tmp_path / "one"), bandwidth="256KiB")
    instance.nodes = [one]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (instance.tree / "big").write_bytes(os.urandom(3_000_000))
            instance.changed("big")
            await sync.until(lambda: any((tmp_path / "one").glob(".big.*")))
            begun = list((tmp_path / "one").glob(".big.*"))
            await _take(sync, one, local_node(tmp_path / "two", name="web2"))
            assert list((tmp_path / "one").glob(".big.*")) == begun
            await sync.until((tmp_path / "two/a").exists)
            await sync.followed(seconds=60)

    run(work)


def test_no_reload_leaves_a_thread_behind(tmp_path: Path) -> None:
    """Each Node that is served anew has one that looks at its target; the old ones have ended."""
    instance = Instance(tmp_path)
    one, two = local_node(tmp_path / "one"), local_node(tmp_path / "two", name="web2")
    instance.nodes = [one, two]

    def looking() -> int:
        return sum(str(tmp_path) in thread.name for thread in threading.enumerate())

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            for number in range(3):
                instance.sync = SyncSettings(max_rsyncs=2 + number)
                await _take(sync, one, two)
                fill(instance.tree, {"a": str(number)})
                instance.changed("a")
                await sync.followed()
                await sync.until(lambda: looking() == 2)

    run(work)


def test_a_node_that_is_removed_is_forgotten_and_keeps_its_files(tmp_path: Path) -> None:
    """Its Cursors and rows are dropped, its files are not touched, nothing is sent any more."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1", "b": "2"})
    one, two = local_node(tmp_path / "one"), local_node(tmp_path / "two", name="web2")
    instance.nodes = [one, two]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await _take(sync, one)
            assert TWO not in sync.state.read.nodes()
            assert sync.state.read.cursors(TWO) == {}
            (instance.tree / "a").unlink()
            instance.changed("a")
            await sync.followed()
            assert names_below(tmp_path / "one") == ["b"]
            assert names_below(tmp_path / "two") == ["a", "b"]

    run(work)


def test_a_renamed_node_keeps_its_cursors_and_what_it_owns(tmp_path: Path) -> None:
    """The same target under another name is the same Node: nothing is sent again, deletions go on.

    What was pending is sent under the new name.
    """
    instance = Instance(tmp_path)
    fill(instance.tree, {"d/a": "1", "b": "2"})
    node = local_node(tmp_path / "node")
    instance.nodes = [node]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert row_of(sync).owned is True
            before, cursors = _inodes(tmp_path / "node"), sync.state.read.cursors(ONE)
            await _take(sync, dataclasses.replace(node, name="web9"))
            assert sync.state.read.cursors(NEW) == cursors
            assert sync.state.read.nodes().keys() == {NEW}
            assert row_of(sync, NEW).owned is True
            assert _inodes(tmp_path / "node") == before
            shutil.rmtree(instance.tree / "d")
            instance.changed("d")
            await sync.followed()
            assert names_below(tmp_path / "node") == ["b"]

    run(work)


def test_a_node_renamed_while_the_process_was_down_keeps_its_cursors(tmp_path: Path) -> None:
    """A start with other settings is as a reload."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    node = local_node(tmp_path / "node")
    instance.nodes = [node]
    found: list[dict[str, Cursor]] = []

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            found.append(sync.state.read.cursors(instance.nodes[0].key))

    run(work)
    instance.nodes = [dataclasses.replace(node, name="web9")]
    run(work)
    assert found[0] == found[1]


def test_another_exclude_compares_that_node_alone(tmp_path: Path) -> None:
    """Newly excluded stays where it was, newly included comes; the rest is not sent again."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"d/a": "1", "d/b.tmp": "2", "d/c.log": "3"})
    node = dataclasses.replace(local_node(tmp_path / "one"), exclude=("*.tmp",))
    other = local_node(tmp_path / "two", name="web2")
    instance.nodes = [node, other]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            before, others = _inodes(tmp_path / "one"), _inodes(tmp_path / "two")
            assert sorted(before) == ["d", "d/a", "d/c.log"]
            await _take(sync, dataclasses.replace(node, exclude=("*.log",)), other)
            await sync.until((tmp_path / "one/d/b.tmp").exists)
            await sync.followed()
            (instance.tree / "d/c.log").unlink()
            instance.changed("d/c.log")
            await sync.followed()
            after = _inodes(tmp_path / "one")
            del after["d/b.tmp"]
            assert after == before
            assert (tmp_path / "one/d/c.log").read_text() == "3"
            assert "d/c.log" not in _inodes(tmp_path / "two")
            del others["d/c.log"]
            assert _inodes(tmp_path / "two") == others

    run(work)


def test_nodes_are_compared_only_after_the_watchers_have_the_trees_new_excludes(
    tmp_path: Path,
) -> None:
    """A Watcher that still leaves a path out would hide its next Change behind the comparison."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1", "b.tmp": "2"})
    instance.exclude = ("*.tmp",)
    node = local_node(tmp_path / "node")
    instance.nodes = [dataclasses.replace(node, exclude=("*.tmp",))]

    async def work() -> None:
        watcher = FileLock.acquire(instance.state_dir.lock("journal-main-00"))
        async with running(instance) as sync:
            await sync.followed()
            instance.exclude = ()
            instance.nodes = [node]
            settings = instance.settings()
            sync.service.take(settings)
            fill(instance.tree, {"a": "22"})
            instance.changed("a")
            await sync.until(lambda: (tmp_path / "node/a").read_text() == "22")
            await sync.followed()
            assert names_below(tmp_path / "node") == ["a"]
            assert sync.state.read.settings() != settings_mark(settings)
            instance.journals[0].commit(progress={"settings": tree_mark(settings, "main")})
            await sync.until(lambda: sync.state.read.settings() == settings_mark(settings))
            await sync.until((tmp_path / "node/b.tmp").exists)
        watcher.release()

    run(work)


def test_nodes_are_compared_again_where_the_watchers_took_the_settings_later(
    tmp_path: Path,
) -> None:
    """The sync process alone was restarted after an edit: its comparison came too early."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    instance.nodes = [local_node(tmp_path / "node")]
    instance.journals[0].commit(progress={"pid": os.getpid(), "settings": "older"})

    async def work() -> None:
        watcher = FileLock.acquire(instance.state_dir.lock("journal-main-00"))
        async with running(instance) as sync:
            await sync.followed()
            fill(instance.tree, {"left-out": "1"})
            instance.journals[0].commit(
                progress={"settings": tree_mark(instance.settings(), "main")}
            )
            await sync.until((tmp_path / "node/left-out").exists)
        watcher.release()

    run(work)


def test_options_and_bandwidth_take_hold_without_a_transfer(tmp_path: Path) -> None:
    """What runs is called with the new ones from then on, and what was sent is not sent again."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    node = local_node(tmp_path / "node")
    instance.nodes = [node]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            before = _inodes(tmp_path / "node")
            await _take(
                sync,
                dataclasses.replace(node, rsync_options=("--chmod=F640",), bandwidth="512KiB"),
            )
            fill(instance.tree, {"b": "2"})
            instance.changed("b")
            await sync.followed()
            assert (tmp_path / "node/b").stat().st_mode & 0o777 == 0o640
            assert _inodes(tmp_path / "node") == {
                **before,
                "b": os.stat(tmp_path / "node/b").st_ino,
            }

    run(work)


def test_a_flush_goes_on_through_a_reload(tmp_path: Path) -> None:
    """The Node's new Syncer is in a hurry too; a Node that left is no longer waited for."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    one = local_node(tmp_path / "one")
    nowhere = local_node(tmp_path / "no/parent", name="web2")
    instance.nodes = [one, nowhere]
    instance.sync = SyncSettings(delay_seconds=3600.0)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: row_of(sync, TWO).attempts > 0)
            await sync.until((tmp_path / "one/a").exists)
            await ask(sync, RequestKind.PAUSE, nodes=("web1",))
            fill(instance.tree, {"a": "22"})
            instance.changed("a")
            flush = await asked(sync, RequestKind.FLUSH, positions=newest(instance))
            await sync.until(lambda: sync.state.read.open_requests() != [])
            one_again = dataclasses.replace(one, bandwidth="1MiB")
            await _take(sync, one_again, nowhere)
            await ask(sync, RequestKind.RESUME, nodes=("web1",))
            await sync.until(lambda: (tmp_path / "one/a").read_text() == "22")
            await _take(sync, one_again)
            assert (await answered(sync, flush)).exit_code == 0

    run(work)
