"""The target of a Node that is followed vanishes, or becomes another folder, with no outage."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import resource
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.config.settings import NodeSettings
from shardsync.journal.requests import RequestKind
from shardsync.model import Scope
from shardsync.ship.target_folder import TargetFolder
from tests.support.compare import differences
from tests.support.counted_rsync import CountedRsync
from tests.support.nodes import RsyncDaemon, Sshd, local_node
from tests.support.shipping import KEY, ask, fill, newest
from tests.support.sync import Instance, Running, run, running

FILES = {"top": "1", "a/x": "1", "a/y": "1", "b/c/deep/x": "1", "b/c/deep/y": "1", "b/z": "1"}


@contextlib.contextmanager
def _node(kind: str, workspace: Path) -> Iterator[tuple[NodeSettings, Path]]:
    """A Node whose target is a folder that rsync can make: a daemon's is not its module."""
    folder = workspace / "served" / "site"
    folder.mkdir(parents=True)
    if kind == "local":
        yield local_node(folder), folder
    elif kind == "daemon":
        with RsyncDaemon(workspace=workspace, path=folder.parent) as daemon:
            node = daemon.node(name="web1")
            target = dataclasses.replace(node.target, path="site/site")
            yield dataclasses.replace(node, target=target), folder
    else:
        with Sshd(workspace=workspace) as sshd:
            yield sshd.node(folder, name="web1"), folder


def _moved_away(folder: Path) -> None:
    folder.rename(folder.with_name("away"))


def _replaced(folder: Path) -> None:
    """Removed, not moved: a daemon's connection that waits would go on in the old one."""
    shutil.rmtree(folder)
    folder.mkdir()


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _lost_below(folder: Path) -> None:
    shutil.rmtree(folder / "b" / "c" / "deep")


HOW = {"away": _moved_away, "replaced": _replaced, "emptied": _emptied, "below": _lost_below}


async def _flushed(sync: Running, *names: str) -> None:
    fill(sync.instance.tree, dict.fromkeys(names, "changed"))
    sync.instance.changed(*names)
    answer = await ask(sync, RequestKind.FLUSH, positions=newest(sync.instance))
    assert (answer.exit_code, answer.message) == (0, "")


@pytest.mark.fault("target-replaced")
@pytest.mark.parametrize(
    ("kind", "how", "name"),
    [
        ("local", "away", "top"),
        ("local", "replaced", "top"),
        ("local", "emptied", "a/x"),
        ("local", "below", "b/c/deep/x"),
        ("daemon", "away", "top"),
        ("daemon", "replaced", "a/x"),
        ("ssh", "away", "top"),
        ("ssh", "emptied", "a/x"),
    ],
)
def test_a_target_that_became_another_folder_is_filled_before_a_flush_ends(
    tmp_path: Path, kind: str, how: str, name: str
) -> None:
    """One file changes after the folder went, was replaced or lost what it held."""
    instance = Instance(tmp_path)
    fill(instance.tree, FILES)
    with _node(kind, tmp_path) as (node, folder):
        instance.nodes = [node]

        async def work() -> None:
            async with running(instance) as sync:
                await sync.followed()
                # A connection waits for the next Batch, as it does in real life.
                await _flushed(sync, "a/y")
                HOW[how](folder)
                await _flushed(sync, name)
                assert differences(instance.tree, folder) == []

        run(work)


@pytest.mark.fault("target-replaced")
@pytest.mark.parametrize("kind", ["daemon", "ssh"])
def test_a_target_that_is_emptied_where_it_stands_is_filled_though_nothing_changes(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The top level is looked at now and then; and where all is there, that is all."""
    monkeypatch.setattr("shardsync.ship.first_contact._GLANCE_SECONDS", 0.5)
    instance = Instance(tmp_path)
    fill(instance.tree, FILES)
    with _node(kind, tmp_path) as (node, folder):
        instance.nodes = [node]

        async def work() -> None:
            counted = CountedRsync.install(tmp_path / "bin", monkeypatch)
            async with running(instance) as sync:
                await sync.followed()
                counted.forget()
                await sync.until(lambda: len(counted.comparisons()) > 1)
                assert sync.state.read.work_summary(KEY)[0] == 0
                _emptied(folder)
                await sync.until(lambda: differences(instance.tree, folder) == [])

        run(work)


def test_what_is_new_in_the_tree_is_no_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that is made at first contact, directories that are made for what is in them: the
    Node is not looked at for their sake.
    """
    instance = Instance(tmp_path)
    fill(instance.tree, FILES)
    folder = tmp_path / "node"
    instance.nodes = [local_node(folder)]

    async def work() -> None:
        counted = CountedRsync.install(tmp_path / "bin", monkeypatch)
        async with running(instance) as sync:
            await sync.followed()
            fill(instance.tree, {"new/dir/x": "1", "fresh/dir/y": "1"})
            instance.changed("new", scope=Scope.TREE)
            instance.changed("new/dir", "new/dir/x")
            # Of two directories that rsync has to make the Batch names one.
            instance.changed("fresh", "fresh/dir/y")
            await _flushed(sync, "top")
            assert differences(instance.tree, folder) == []
        looks = [run for run in counted.comparisons() if "--ignore-errors" in run]
        assert [run for run in looks if " -r " not in run] == []

    run(work)


@contextlib.contextmanager
def _no_thread_left() -> Iterator[None]:
    """As long as this is open, no memory is to be had for the stack of another thread."""
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    before, limits = threading.stack_size(1 << 30), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 29), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        threading.stack_size(before)


def test_without_a_thread_to_look_nothing_is_told(tmp_path: Path) -> None:
    """A machine at its limit of processes: the Node goes on, and is looked at once it can be."""
    folder = tmp_path / "node"
    folder.mkdir()

    async def work() -> None:
        target = TargetFolder(target=local_node(folder).target)
        with _no_thread_left():
            await target.meet()
            target.ask()
            await target.look()
        await target.look()
        doubts = [target.is_in_doubt]
        folder.rename(tmp_path / "other")
        folder.mkdir()
        await target.look()
        doubts.append(target.is_in_doubt)
        assert doubts == [False, True]
        target.close()

    run(work)


def test_a_folder_made_where_one_was_removed_is_another(tmp_path: Path) -> None:
    """It may get the very inode number of the one before."""
    folder = tmp_path / "node"
    folder.mkdir()

    async def work() -> None:
        target = TargetFolder(target=local_node(folder).target)
        for _ in range(10):
            await target.meet()
            await target.look()
            assert not target.is_in_doubt
            folder.rmdir()
            # The kernel stamps by a clock that ticks every few milliseconds.
            await asyncio.sleep(0.02)
            folder.mkdir()
            await target.look()
            assert target.is_in_doubt

    run(work)
