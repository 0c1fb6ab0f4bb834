"""What a Node may lose and what it must not: deletions, excludes, type changes, odd names."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.journal.records import WorkReason
from shardsync.journal.requests import RequestKind
from shardsync.model import Kind, Scope
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import KEY, ask, fill, names_below, newest, node_of_kind, row_of
from tests.support.sync import Instance, run, running
from tests.support.transports import ODD_NAMES

KINDS = pytest.mark.parametrize("kind", ["local", "daemon", "ssh"])


@pytest.mark.fault("odd-names")
@KINDS
def test_odd_names_come_and_go(tmp_path: Path, kind: str) -> None:
    """Names of any bytes are shipped, rewritten and deleted, as files and as directories."""
    instance = Instance(tmp_path)
    tree = os.fsencode(instance.tree)
    names = [*ODD_NAMES, b"*", b"?", b"[", b"{a,b}", b"~", b"$(x)", b"-"]

    def write(text: bytes) -> list[bytes]:
        paths = []
        for name in names:
            os.makedirs(os.path.join(tree, b"d", name), exist_ok=True)
            for path in (name, os.path.join(b"d", name, b"in")):
                with open(os.path.join(tree, path), "wb") as file:
                    file.write(text)
                paths.append(path)
        return paths

    paths = write(b"1")
    (instance.tree / "keep").write_text("keep")

    async def work(folder: Path) -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert differences(instance.tree, folder) == []
            write(b"2")
            instance.changed(*paths)
            await sync.followed()
            assert differences(instance.tree, folder) == []
            for name in names:
                os.unlink(os.path.join(tree, name))
                shutil.rmtree(os.path.join(tree, b"d", name))
            instance.changed(*paths, *(b"d/" + name for name in names))
            await sync.followed()
            assert names_below(folder) == ["d", "keep"]

    with node_of_kind(kind, tmp_path) as (node, folder):
        instance.nodes = [node]
        run(lambda: work(folder))


@pytest.mark.fault("types-change")
@KINDS
def test_types_change_both_ways(tmp_path: Path, kind: str) -> None:
    """File, directory, symlink: each becomes each other, whatever the directory held."""
    instance = Instance(tmp_path)
    tree = instance.tree
    fill(tree, {"f2d": "x", "f2l": "x", "d2f/a/b": "x", "d2l/a": "x", "target/s": "x"})
    (tree / "l2d").symlink_to("target")
    (tree / "l2f").symlink_to("nowhere")

    async def work(folder: Path) -> None:
        async with running(instance) as sync:
            await sync.followed()
            for name in ("f2d", "f2l", "l2d", "l2f"):
                os.unlink(tree / name)
            shutil.rmtree(tree / "d2f")
            shutil.rmtree(tree / "d2l")
            fill(tree, {"f2d/in/it": "y", "l2d/s": "y", "l2f": "y", "d2f": "y"})
            (tree / "f2l").symlink_to("target/s")
            (tree / "d2l").symlink_to("target")
            instance.changed(
                "f2d", "f2d/in", "f2d/in/it", "f2l", "l2d", "l2d/s", "l2f",
                "d2f/a/b", "d2f/a", "d2f", "d2l/a", "d2l",
            )  # fmt: skip
            await sync.followed()
            assert differences(tree, folder) == []
            assert (folder / "target/s").read_text() == "x"

    with node_of_kind(kind, tmp_path) as (node, folder):
        instance.nodes = [node]
        run(lambda: work(folder))


@pytest.mark.fault("types-change")
@KINDS
def test_a_directory_that_became_a_symlink_is_not_followed(tmp_path: Path, kind: str) -> None:
    """Changes of `l` and `l/s` after `l` became a symlink: what it leads to is neither sent as
    `l/s` nor deleted.
    """
    instance = Instance(tmp_path)
    tree = instance.tree
    fill(tree, {"l/s": "old", "elsewhere/s": "precious"})

    async def work(folder: Path) -> None:
        async with running(instance) as sync:
            await sync.followed()
            shutil.rmtree(tree / "l")
            (tree / "l").symlink_to("elsewhere")
            instance.changed("l/s", "l/gone", "l")
            await sync.followed()
            assert os.readlink(folder / "l") == "elsewhere"
            assert (folder / "elsewhere/s").read_text() == "precious"
            instance.changed("l/s")
            await sync.followed()
            assert differences(tree, folder) == []

    with node_of_kind(kind, tmp_path) as (node, folder):
        instance.nodes = [node]
        run(lambda: work(folder))


@KINDS
def test_what_is_excluded_is_never_touched_on_a_node(tmp_path: Path, kind: str) -> None:
    """Excluded files of the Node stay, inside a deleted directory too, and nothing waits."""
    instance = Instance(tmp_path)
    tree = instance.tree
    fill(tree, {"d/page": "1", "e/page": "1", "f.tmp": "tree", "listed/a": "1", "keep": "1"})

    async def work(folder: Path) -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(folder, {"d/own.tmp": "node", "private/x": "node", "listed/own.tmp": "node"})
            shutil.rmtree(tree / "d")
            shutil.rmtree(tree / "e")
            os.unlink(tree / "f.tmp")
            os.unlink(tree / "listed/a")
            instance.changed("d/page", "d", "d/own.tmp", "e/page", "e", "f.tmp", "private")
            instance.changed("listed", scope=Scope.LISTING)
            await sync.followed()
            assert names_below(folder) == [
                "d", "d/own.tmp", "keep", "listed", "listed/own.tmp", "private", "private/x",
            ]  # fmt: skip

    with node_of_kind(kind, tmp_path) as (node, folder):
        instance.nodes = [dataclasses.replace(node, exclude=("*.tmp", "/private/"))]
        run(lambda: work(folder))


def test_the_time_of_a_directory_that_lost_an_excluded_one_is_sent(tmp_path: Path) -> None:
    """A pattern for directories alone says nothing of what is gone: it may have been a file."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"d/cache/x": "1", "d/page": "1"})
    instance.nodes = [dataclasses.replace(local_node(node), exclude=("cache/",))]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            shutil.rmtree(tree / "d/cache")
            instance.changed("d/cache/x", "d/cache")
            await sync.followed()
            assert (node / "d").stat().st_mtime_ns == (tree / "d").stat().st_mtime_ns

    run(work)


def test_delete_false_never_deletes(tmp_path: Path) -> None:
    """With delete = false a Node keeps what is gone, whatever the Change; nothing waits."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"a": "1", "d/x": "1", "t/x": "1", "l/x": "1"})
    instance.nodes = [dataclasses.replace(local_node(node), delete=False)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            os.unlink(tree / "a")
            shutil.rmtree(tree / "d")
            os.unlink(tree / "t/x")
            os.unlink(tree / "l/x")
            fill(tree, {"new": "1"})
            instance.changed("a", "d/x", "d", "new")
            instance.changed("t", scope=Scope.TREE)
            instance.changed("l", scope=Scope.LISTING)
            await sync.followed()
            assert names_below(node) == ["a", "d", "d/x", "l", "l/x", "new", "t", "t/x"]

    run(work)


@pytest.mark.fault("same-size-same-time")
def test_directories_swapped_with_equal_sizes_and_times(tmp_path: Path) -> None:
    """A `tree` Change compares bytes: two releases swapped by rename are told apart."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"a/page": "AAAA", "a/only": "1", "b/page": "BBBB"})
    for path in ("a/page", "b/page"):
        os.utime(tree / path, (1_600_000_000, 1_600_000_000))
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            os.rename(tree / "a", tree / "tmp")
            os.rename(tree / "b", tree / "a")
            os.rename(tree / "tmp", tree / "b")
            instance.changed("a", "tmp", "b", scope=Scope.TREE)
            await sync.followed()
            assert (node / "a/page").read_text() == "BBBB"
            assert (node / "b/page").read_text() == "AAAA"
            assert names_below(node) == ["a", "a/page", "b", "b/only", "b/page"]
            assert differences(tree, node) == []

    run(work)


def test_a_rename_moves_files_and_directories(tmp_path: Path) -> None:
    """The old name goes, the new one comes, with the mtimes of both parents."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"a/one": "1", "a/sub/two": "2", "b/three": "3"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            os.rename(tree / "a/one", tree / "b/uno")
            os.rename(tree / "a/sub", tree / "b/sotto")
            instance.changed("a/one", "b/uno")
            instance.changed("a/sub", "b/sotto", scope=Scope.TREE)
            await sync.followed()
            assert differences(tree, node) == []

    run(work)


def test_a_listing_deletes_only_directly_in_its_directory(tmp_path: Path) -> None:
    """A `listing` names what is gone from this directory; what lies deeper is left alone."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"d/a": "1", "d/b": "1", "d/sub/x": "1", "d/gone/y": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(node, {"d/sub/node-own": "1"})
            os.unlink(tree / "d/a")
            shutil.rmtree(tree / "d/gone")
            (tree / "d").chmod(0o711)
            instance.changed("d", scope=Scope.LISTING)
            await sync.followed()
            assert names_below(node / "d") == ["b", "sub", "sub/node-own", "sub/x"]
            assert (node / "d").stat().st_mode & 0o777 == 0o711
            assert (node / "d").stat().st_mtime_ns == (tree / "d").stat().st_mtime_ns

    run(work)


def test_a_temporary_file_that_came_and_went_is_nothing(tmp_path: Path) -> None:
    """What was made and deleted before it could be shipped neither fails nor waits."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"d/a": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            instance.changed("d/.a.tmp", "x/y/z", "x/y", "x", "d/a", kind=Kind.CONTENT)
            instance.changed("d/a/below", kind=Kind.ATTRIBUTES)
            await sync.followed()
            assert differences(tree, node) == []

    run(work)


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder of an ordinary user, and this process running as that user."""
    folder = Path(tempfile.mkdtemp(prefix="shardsync-test-"))
    os.chown(folder, 65534, 65534)
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(0)
        os.setegid(0)
        shutil.rmtree(folder)


@pytest.mark.fault("source-closed")
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_that_cannot_be_read_is_not_a_missing_one(as_nobody: Path) -> None:
    """EACCES is not ENOENT: nothing below is deleted; it is tried again, the others go on."""
    instance = Instance(as_nobody)
    tree, node = instance.tree, as_nobody / "node"
    fill(tree, {"closed/a": "1", "closed/sub/b": "1", "open/c": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (tree / "closed").chmod(0)
            fill(tree, {"open/c": "22", "open/d": "1"})
            instance.changed("closed/a", "closed/sub/b", "open/c", "open/d")
            instance.changed("closed/sub", scope=Scope.TREE)
            await sync.until((node / "open/d").exists)
            await sync.until(lambda: bool(sync.state.read.work(KEY)))
            assert (node / "open/c").read_text() == "22"
            waiting = sync.state.read.work(KEY)
            assert {item.reason for item in waiting} == {WorkReason.RETRY}
            assert "Permission denied" in waiting[0].last_error
            assert names_below(node) == [
                "closed", "closed/a", "closed/sub", "closed/sub/b", "open", "open/c", "open/d",
            ]  # fmt: skip
            assert row_of(sync).last_error.startswith("closed/")
            assert row_of(sync).last_error.endswith(": cannot be read: Permission denied")
            (tree / "closed").chmod(0o755)
            os.unlink(tree / "closed/a")
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert (answer.exit_code, answer.message) == (0, "")
            assert differences(tree, node) == []

    run(work)
