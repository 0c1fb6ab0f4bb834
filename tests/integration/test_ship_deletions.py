"""What must not be deleted, on a Node of each kind: a plain folder, a daemon, and over ssh."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.config.settings import DeleteLimit, SyncSettings
from shardsync.journal.records import WorkReason
from shardsync.journal.requests import RequestKind
from shardsync.model import NodeState, Scope
from tests.support.compare import differences
from tests.support.mounting import Mounts
from tests.support.shipping import KEY, ask, fill, names_below, newest, node_of_kind, row_of
from tests.support.sickly import SicklyMount
from tests.support.sync import Instance, run, running

KINDS = pytest.mark.parametrize("kind", ["local", "daemon", "ssh"])
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    made = Mounts()
    try:
        yield made
    finally:
        made.undo()


@pytest.mark.fault("disk-sick")
@pytest.mark.root
@NEEDS_ROOT
@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("local", errno.EIO),
        ("local", errno.EACCES),
        ("local", errno.ESTALE),
        ("local", errno.ENOTCONN),
        ("daemon", errno.EIO),
        ("ssh", errno.ESTALE),
    ],
)
def test_an_error_is_not_a_missing_path(tmp_path: Path, kind: str, failure: int) -> None:
    """A disk that answers with errors: nothing below is deleted, by no kind of Change and by no
    reconcile; it waits in the retry table, all else goes on; what really went is deleted after.
    """
    instance = Instance(tmp_path)
    tree, back = instance.tree, tmp_path / "back"
    fill(back, {"sick/a": "1", "sick/sub/b": "1", "well/x": "1"})
    fill(tree, {"d/page": "1"})

    async def work(folder: Path, disk: SicklyMount) -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert row_of(sync).owned
            before = names_below(folder)
            assert "vol/sick/sub/b" in before
            disk.fails[b"sick"] = failure
            os.unlink(back / "sick/a")
            fill(back, {"well/x": "22"})
            fill(tree, {"d/page": "22"})
            instance.changed("vol/sick/a", "vol/sick/sub/b", "vol/well/x", "d/page")
            instance.changed("vol/sick", "vol/sick/sub", scope=Scope.TREE)
            instance.changed("vol/sick", "vol", scope=Scope.LISTING)
            await sync.until(lambda: (folder / "d/page").read_text() == "22")
            await sync.until(lambda: (folder / "vol/well/x").read_text() == "22")
            await sync.until(lambda: bool(sync.state.read.work(KEY)))
            assert {item.reason for item in sync.state.read.work(KEY)} == {WorkReason.RETRY}
            assert os.strerror(failure) in row_of(sync).last_error
            instance.changed("vol", "", scope=Scope.TREE)
            fill(tree, {"d/page": "333"})
            instance.changed("d/page")
            await sync.until(lambda: (folder / "d/page").read_text() == "333")
            answer = await ask(sync, RequestKind.RECONCILE, nodes=("web1",))
            assert answer.exit_code == 14
            assert names_below(folder) == before
            assert row_of(sync).state is NodeState.FOLLOWING
            del disk.fails[b"sick"]
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert (answer.exit_code, answer.message) == (0, "")
            assert names_below(folder) == [name for name in before if name != "vol/sick/a"]

    with (
        SicklyMount(back=back, point=tree / "vol") as disk,
        node_of_kind(kind, tmp_path) as (node, folder),
    ):
        instance.nodes = [node]
        run(lambda: work(folder, disk))


@KINDS
@pytest.mark.parametrize("way", ["named", "tree", "listing", "reconcile"])
def test_max_delete_holds_for_every_kind_of_deletion(tmp_path: Path, kind: str, way: str) -> None:
    """Six entries gone, five may go: named one by one, by a whole `tree`, by a `listing` and by
    a reconcile, nothing is deleted nor sent until `resume --allow-delete`.
    """
    instance = Instance(tmp_path)
    tree = instance.tree
    fill(tree, {f"way/d/f{number}": "1" for number in range(6)} | {"page": "0"})
    instance.sync = SyncSettings(max_delete=DeleteLimit(entries=5, share=None))

    async def work(folder: Path) -> None:
        async with running(instance) as sync:
            await sync.followed()
            before = names_below(folder)
            shutil.rmtree(tree / "way/d")
            fill(tree, {"page": "1"})
            if way == "named":
                instance.changed(*(f"way/d/f{number}" for number in range(6)), "way/d")
            elif way == "tree":
                instance.changed("way/d", scope=Scope.TREE)
            elif way == "listing":
                instance.changed("way", scope=Scope.LISTING)
            else:
                await ask(sync, RequestKind.RECONCILE, nodes=("web1",), path=b"way")
            await sync.until(lambda: bool(row_of(sync).halted))
            instance.changed("page")
            assert row_of(sync).state is NodeState.HALTED
            assert "max_delete" in row_of(sync).last_error
            assert names_below(folder) == before
            assert (folder / "page").read_text() == "0"
            answer = await ask(sync, RequestKind.RESUME, nodes=("web1",), allow_delete=True)
            assert answer.exit_code == 0
            await sync.followed()
            assert differences(tree, folder) == []

    with node_of_kind(kind, tmp_path) as (node, folder):
        instance.nodes = [node]
        run(lambda: work(folder))


@KINDS
def test_what_is_newly_excluded_stays_where_it_was(tmp_path: Path, kind: str) -> None:
    """Settings that exclude more: the Node keeps what it has there, whatever becomes of it in
    the tree; settings that exclude less again have it compared.
    """
    instance = Instance(tmp_path)
    tree = instance.tree
    fill(tree, {"d/page": "1", "d/x.tmp": "1", "cache/a": "1", "cache/b": "1", "keep": "1"})

    async def plain(folder: Path) -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert differences(tree, folder) == []

    async def excluding(folder: Path) -> None:
        async with running(instance) as sync:
            os.unlink(tree / "d/x.tmp")
            shutil.rmtree(tree / "cache")
            os.unlink(tree / "keep")
            instance.changed("d/x.tmp", "cache/a", "cache/b", "cache", "keep")
            instance.changed("cache", "", scope=Scope.TREE)
            instance.changed("d", "", scope=Scope.LISTING)
            await sync.followed()
            answer = await ask(sync, RequestKind.RECONCILE, nodes=("web1",))
            assert answer.exit_code == 0
            assert names_below(folder) == [
                "cache", "cache/a", "cache/b", "d", "d/page", "d/x.tmp",
            ]  # fmt: skip

    async def again(folder: Path) -> None:
        async with running(instance) as sync:
            await sync.until(lambda: differences(tree, folder) == [])

    with node_of_kind(kind, tmp_path) as (node, folder):
        instance.nodes = [node]
        run(lambda: plain(folder))
        instance.nodes = [dataclasses.replace(node, exclude=("*.tmp", "/cache/"))]
        run(lambda: excluding(folder))
        instance.nodes = [node]
        run(lambda: again(folder))


@KINDS
def test_delete_false_keeps_everything(tmp_path: Path, kind: str) -> None:
    """Whatever the Change, through a reconcile too, and nothing is left waiting."""
    instance = Instance(tmp_path)
    tree = instance.tree
    fill(tree, {"a": "1", "d/x": "1", "t/x": "1", "l/x": "1"})

    async def work(folder: Path) -> None:
        async with running(instance) as sync:
            await sync.followed()
            os.unlink(tree / "a")
            shutil.rmtree(tree / "d")
            os.unlink(tree / "t/x")
            os.unlink(tree / "l/x")
            fill(tree, {"new": "1"})
            instance.changed("a", "d/x", "d", "new")
            instance.changed("t", "", scope=Scope.TREE)
            instance.changed("l", scope=Scope.LISTING)
            await sync.followed()
            answer = await ask(sync, RequestKind.RECONCILE, nodes=("web1",))
            assert answer.exit_code == 0
            assert names_below(folder) == ["a", "d", "d/x", "l", "l/x", "new", "t", "t/x"]

    with node_of_kind(kind, tmp_path) as (node, folder):
        instance.nodes = [dataclasses.replace(node, delete=False)]
        run(lambda: work(folder))


@pytest.mark.root
@NEEDS_ROOT
@KINDS
def test_an_unmounted_file_system_below_the_root_deletes_nothing(
    tmp_path: Path, mounts: Mounts, kind: str
) -> None:
    """Its files are kept on the Node until it is back; what went meanwhile goes then."""
    instance = Instance(tmp_path)
    tree, volume = instance.tree, tmp_path / "volume"
    mounts.tmpfs(volume)
    fill(volume, {"page": "1", "sub/x": "1", "gone": "1"})
    mounts.bind(volume, tree / "vol")
    fill(tree, {"d/page": "1"})

    async def work(folder: Path) -> None:
        async with running(instance) as sync:
            await sync.followed()
            before = names_below(folder)
            assert mounts.umount(tree / "vol")
            os.unlink(volume / "gone")
            instance.changed("vol/page", "vol/sub/x", "vol/sub", "vol/gone")
            instance.changed("vol", "", scope=Scope.TREE)
            instance.changed("vol", scope=Scope.LISTING)
            await sync.until(lambda: row_of(sync).state is NodeState.HALTED)
            assert "no longer has a mount at vol" in row_of(sync).last_error
            assert names_below(folder) == before
            mounts.bind(volume, tree / "vol")
            await sync.followed()
            assert names_below(folder) == [name for name in before if name != "vol/gone"]

    with node_of_kind(kind, tmp_path) as (node, folder):
        instance.nodes = [node]
        run(lambda: work(folder))
