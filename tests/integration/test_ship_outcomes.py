"""Nodes that fail: the whole Node backs off, or one path waits, and the others never notice."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.journal.records import BatchRecord, Compare, Work, WorkReason
from shardsync.journal.requests import RequestKind
from shardsync.model import Kind, NodeState, Scope
from tests.support.compare import differences
from tests.support.nodes import RsyncDaemon, local_node
from tests.support.shipping import KEY, ask, fill, killed_at_exit, names_below, newest, row_of
from tests.support.sync import Instance, Running, run, running

IS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


@pytest.mark.fault("node-down")
def test_a_daemon_that_is_down_backs_off_alone(tmp_path: Path) -> None:
    """State, attempts and error are on disk; the other Node goes on; it recovers by itself."""
    instance = Instance(tmp_path)
    tree, module, other = instance.tree, tmp_path / "module", tmp_path / "other"
    module.mkdir()
    fill(tree, {"a": "1"})

    async def work(daemon: RsyncDaemon) -> None:
        async with running(instance) as sync:
            await sync.followed()
            daemon.stop()
            fill(tree, {"a": "22", "b": "1"})
            instance.changed("a", "b")
            await sync.until(lambda: row_of(sync).state is NodeState.BACKING_OFF)
            await sync.until((other / "b").exists)
            await sync.until(lambda: row_of(sync).attempts >= 2)
            assert row_of(sync).not_before > 0
            assert "rsync exited" in row_of(sync).last_error
            assert row_of(sync, ("main", "web2")).state is NodeState.FOLLOWING
            daemon.start()
            await sync.followed()
            row = row_of(sync)
            assert (row.state, row.attempts, row.last_error) == (NodeState.FOLLOWING, 0, "")
            assert differences(tree, module) == []
            assert differences(tree, other) == []

    with RsyncDaemon(workspace=tmp_path, path=module) as daemon:
        instance.nodes = [daemon.node(name="web1"), local_node(other, name="web2")]
        run(lambda: work(daemon))


def test_a_back_off_outlives_the_process(tmp_path: Path) -> None:
    """A restart tries a Node that is down once, at once, and goes on counting attempts."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    instance.nodes = [local_node(tmp_path / "no" / "such" / "parent")]

    async def first() -> None:
        async with killed_at_exit(instance) as sync:
            await sync.until(lambda: row_of(sync).attempts >= 1)

    async def second() -> None:
        async with running(instance) as sync:
            assert row_of(sync).attempts >= 1
            await sync.until(lambda: row_of(sync).attempts >= 2)
            (tmp_path / "no" / "such").mkdir(parents=True)
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            assert names_below(tmp_path / "no/such/parent") == ["a"]

    run(first)
    run(second)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True, timeout=10
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=10)


@pytest.mark.fault("node-full")
@pytest.mark.root
@IS_ROOT
def test_a_full_disk_holds_only_its_node(tmp_path: Path, small_disk: Path) -> None:
    """It says so, nothing counts as shipped, and it goes on once there is room."""
    instance = Instance(tmp_path)
    tree, node, other = instance.tree, small_disk / "node", tmp_path / "other"
    fill(tree, {"a": "1"})
    instance.nodes = [local_node(node), local_node(other, name="web2")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(tree, {f"big{number}": "x" * 100_000 for number in range(4)})
            fill(tree, {"small": "1"})
            instance.changed(*(f"big{number}" for number in range(4)), "small")
            await sync.until(lambda: "No space left" in row_of(sync).last_error)
            await sync.until((other / "big3").exists)
            assert row_of(sync, ("main", "web2")).last_error == ""
            for number in range(3):
                os.unlink(tree / f"big{number}")
            instance.changed(*(f"big{number}" for number in range(3)))
            await sync.until(lambda: differences(tree, other) == [])
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert (answer.exit_code, answer.message) == (0, "")
            await sync.followed()
            assert differences(tree, node) == []
            assert row_of(sync).last_error == ""

    run(work)


@pytest.mark.root
@IS_ROOT
def test_a_full_disk_makes_room_first_next_time(tmp_path: Path, small_disk: Path) -> None:
    """With `order = "safe"`, whose deletions come last; what a renamed directory is made of stays
    until it is made.
    """
    instance = Instance(tmp_path)
    tree, node = instance.tree, small_disk / "node"
    fill(tree, {"old": "x" * 100_000})
    fill(tree, {f"a/{number}": "" for number in range(210)})
    instance.nodes = [dataclasses.replace(local_node(node), order="safe")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            before = (node / "a/7").stat().st_ino
            (tree / "old").rename(tmp_path / "old")
            fill(tree, {"new": "x" * 180_000})
            (tree / "a").rename(tree / "b")
            now = instance.clock.wall_us()
            instance.changed("new", "old")
            instance.journals[0].commit(
                [
                    (b"a", Scope.TREE, Kind.CONTENT, now, None),
                    (b"b", Scope.TREE, Kind.CONTENT, now, b"a"),
                ]
            )
            await sync.until(lambda: "No space left" in row_of(sync).last_error)
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            await sync.followed()
            assert differences(tree, node) == []
            assert (node / "b/7").stat().st_ino == before

    run(work)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="shardsync-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.mark.fault("node-closed")
@pytest.mark.root
@IS_ROOT
def test_a_directory_that_cannot_be_written_holds_only_its_paths(open_folder: Path) -> None:
    """The daemon is an ordinary user: what it may not write waits, the rest goes on."""
    instance = Instance(open_folder)
    tree, module = instance.tree, open_folder / "module"
    module.mkdir()
    os.chown(module, 65534, 65534)
    fill(tree, {"closed/a": "1", "closed/gone": "1", "open/b": "1"})
    for parent, folders, files in os.walk(tree):
        for name in (*folders, *files):
            os.chown(os.path.join(parent, name), 65534, 65534)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            os.chown(module / "closed", 0, 0)
            fill(tree, {"closed/a": "22", "closed/new": "1", "open/b": "22"})
            for name in ("closed/a", "closed/new", "open/b"):
                os.chown(tree / name, 65534, 65534)
            os.unlink(tree / "closed/gone")
            instance.changed("closed/a", "closed/new", "closed/gone", "open/b")
            await sync.until(lambda: bool(sync.state.read.work(KEY)))
            assert (module / "open/b").read_text() == "22"
            waiting = {item.path: item.reason for item in sync.state.read.work(KEY)}
            assert waiting == {
                b"closed": WorkReason.RETRY,  # its time cannot be set either
                b"closed/a": WorkReason.RETRY,
                b"closed/new": WorkReason.RETRY,
                b"closed/gone": WorkReason.RETRY,
            }
            assert row_of(sync).state is NodeState.FOLLOWING
            assert row_of(sync).last_error.startswith("closed")
            fill(tree, {"open/b": "333"})
            instance.changed("open/b")
            await sync.until(lambda: (module / "open/b").read_text() == "333")
            os.chown(module / "closed", 65534, 65534)
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert (answer.exit_code, answer.message) == (0, "")
            assert names_below(module) == ["closed", "closed/a", "closed/new", "open", "open/b"]
            assert (module / "closed/a").read_text() == "22"

    lines = ["uid = 65534", "gid = 65534"]
    with RsyncDaemon(workspace=open_folder, path=module, module_lines=lines) as daemon:
        instance.nodes = [
            dataclasses.replace(daemon.node(name="web1"), rsync_options=("--no-o", "--no-g"))
        ]
        run(work)


@pytest.fixture(scope="session")
def old_rsync(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The rsync that Debian 12 ships, which dies of --delete-missing-args."""
    folder = tmp_path_factory.mktemp("old-rsync")
    apt = shutil.which("apt-get")
    if apt is None:
        pytest.skip("no apt-get here")
    got = subprocess.run(
        [apt, "download", "rsync=3.2.7-1+deb12u6"],
        cwd=folder, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    packages = list(folder.glob("*.deb"))
    if got.returncode or not packages:
        pytest.skip("rsync 3.2.7-1+deb12u6 cannot be had")
    subprocess.run(["dpkg", "-x", packages[0], folder / "x"], check=True, timeout=60)
    return str(folder / "x/usr/bin/rsync")


@pytest.mark.fault("node-rsync-old")
@pytest.mark.root
@IS_ROOT
def test_an_old_receiver_deletes_all_the_same(tmp_path: Path, old_rsync: str) -> None:
    """Deletions of every kind, odd names, excludes and max_delete's count by filters; the
    ability is remembered.
    """
    instance = Instance(tmp_path)
    tree, module = instance.tree, tmp_path / "module"
    module.mkdir()
    fill(tree, {"a": "1", "d/x": "1", "d/y/z": "1", "[x]*?": "1", "e/k": "1", "e/f": "1"})
    fill(tree, {"e/*/in": "1", "e/ab/in": "1", "t/x": "1", "t/y": "1", "back\\slash": "1"})

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(module, {"d/own.tmp": "1"})
            for name in ("a", "[x]*?", "e/f", "t/y", "back\\slash"):
                os.unlink(tree / name)
            shutil.rmtree(tree / "d")
            shutil.rmtree(tree / "e/*")
            fill(tree, {"e/k": "22", "new": "1"})
            instance.changed("a", "[x]*?", "e/f", "d/x", "d/y/z", "d/y", "d", "e/k", "new")
            instance.changed("e/*", scope=Scope.TREE)
            instance.changed("t", scope=Scope.LISTING)
            instance.changed("back\\slash")
            await sync.followed()
            await sync.until(lambda: bool(row_of(sync).capabilities))
            (module / "d/own.tmp").unlink()
            (module / "d").rmdir()
            assert differences(tree, module) == []

    async def again() -> None:
        async with running(instance) as sync:
            assert '"delete_missing_args": false' in row_of(sync).capabilities
            os.unlink(tree / "e/k")
            instance.changed("e/k")
            await sync.followed()
            assert differences(tree, module) == []

    with RsyncDaemon(workspace=tmp_path, path=module, binary=old_rsync) as daemon:
        instance.nodes = [dataclasses.replace(daemon.node(name="web1"), exclude=("*.tmp",))]
        run(work)
        run(again)


@pytest.mark.fault("source-vanishes")
def test_files_that_vanish_meanwhile_are_no_error(tmp_path: Path) -> None:
    """A tree churned while it is shipped: no path is left waiting, and the Node ends identical."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {f"d/f{number:03}": "x" * 100 for number in range(300)})
    instance.nodes = [local_node(node)]

    async def churn(sync: Running) -> None:
        for turn in range(5):
            names = [f"d/f{number:03}" for number in range(turn, 300, 3)]
            instance.changed(*names)
            for name in names:
                (tree / name).unlink(missing_ok=True)
            if turn % 2:
                fill(tree, dict.fromkeys(names, f"{turn}"))
            instance.changed(*names)
            await sync.until(lambda: bool(sync.state.read.cursors(KEY)))

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await churn(sync)
            await sync.followed()
            assert differences(tree, node) == []
            assert row_of(sync).last_error == ""

    run(work)


def test_what_came_above_a_subtree_is_not_lost_with_a_change_of_its_names(tmp_path: Path) -> None:
    """The folder came as a whole, and the names in the subtree changed, in one Batch."""
    instance = Instance(tmp_path)
    (tmp_path / "node").mkdir()
    instance.nodes = [dataclasses.replace(local_node(tmp_path / "node"), subtree="a/news")]
    fill(instance.tree, {"a/news/d/old": "1"})

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(instance.tree, {"a/news/d/old": "2", "a/news/d/new": "1"})
            now = instance.clock.wall_us()
            instance.journals[0].commit(
                [
                    (b"a", Scope.TREE, Kind.CONTENT, now, None),
                    (b"a/news", Scope.LISTING, Kind.CONTENT, now, None),
                ]
            )
            await sync.followed()
            assert differences(instance.tree / "a/news", tmp_path / "node") == []

    run(work)


def test_rows_of_one_path_are_all_done(tmp_path: Path) -> None:
    """A directory that failed as a whole, and whose own entry failed later, is sent whole."""
    instance = Instance(tmp_path)
    (tmp_path / "node").mkdir()
    instance.nodes = [local_node(tmp_path / "node")]
    fill(instance.tree, {"d/old": "1"})

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(instance.tree, {"d/old": "2", "d/new": "1"})
            rows = [
                Work(
                    path=b"d",
                    scope=scope,
                    compare=Compare.CONTENT,
                    reason=WorkReason.RETRY,
                    since=1,
                )
                for scope in (Scope.TREE, Scope.ENTRY)
            ]
            sync.state.record(KEY, BatchRecord(work_added=rows))
            instance.changed("d/old")
            await sync.followed()
            assert differences(instance.tree, tmp_path / "node") == []

    run(work)
