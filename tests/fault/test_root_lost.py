"""A root on a file system of its own that goes in every way there is: no Node loses anything."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardsync.journal.requests import RequestKind
from shardsync.model import NodeState, Scope
from tests.support.mounting import Mounts
from tests.support.nodes import local_node
from tests.support.shipping import ask, fill, names_below, newest, row_of
from tests.support.sync import Instance, run, running

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount"),
]


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    made = Mounts()
    try:
        yield made
    finally:
        made.undo()


Lose = Callable[[Mounts, Path, Path], Callable[[], object]]


def _lazily_unmounted(mounts: Mounts, tree: Path, spare: Path) -> Callable[[], object]:
    assert mounts.umount(tree, "-l")

    def heal() -> None:
        mounts.bind(spare, tree)
        mounts.bind(spare / "vol-spare", tree / "vol")

    return heal


def _overmounted(mounts: Mounts, tree: Path, spare: Path) -> Callable[[], object]:
    del spare
    mounts.tmpfs(tree)
    return lambda: mounts.umount(tree)


def _overmounted_by_another_tree(mounts: Mounts, tree: Path, spare: Path) -> Callable[[], object]:
    del spare
    mounts.tmpfs(tree)
    fill(tree, {"other": "of another tree", "marker": ""})
    return lambda: mounts.umount(tree)


def _below_unmounted(mounts: Mounts, tree: Path, spare: Path) -> Callable[[], object]:
    assert mounts.umount(tree / "vol")
    return lambda: mounts.bind(spare / "vol-spare", tree / "vol")


def _below_lazily_unmounted(mounts: Mounts, tree: Path, spare: Path) -> Callable[[], object]:
    assert mounts.umount(tree / "vol", "-l")
    return lambda: mounts.bind(spare / "vol-spare", tree / "vol")


def _below_overmounted(mounts: Mounts, tree: Path, spare: Path) -> Callable[[], object]:
    del spare
    mounts.tmpfs(tree / "vol")
    return lambda: mounts.umount(tree / "vol")


def _below_overmounted_by_another(mounts: Mounts, tree: Path, spare: Path) -> Callable[[], object]:
    heal = _below_overmounted(mounts, tree, spare)
    fill(tree, {"vol/other": "of another file system"})
    return heal


def _below_emptied(mounts: Mounts, tree: Path, spare: Path) -> Callable[[], object]:
    del mounts
    away = spare.parent / "away"
    away.mkdir()
    for name in os.listdir(tree / "vol"):
        subprocess.run(["mv", tree / "vol" / name, away], check=True)

    def heal() -> None:
        for name in os.listdir(away):
            subprocess.run(["mv", away / name, tree / "vol"], check=True)

    return heal


def _a_directory_covered(mounts: Mounts, tree: Path, spare: Path) -> Callable[[], object]:
    del spare
    mounts.tmpfs(tree / "d")
    return lambda: mounts.umount(tree / "d")


@pytest.mark.fault("root-covered")
@pytest.mark.parametrize(
    ("lose", "words"),
    [
        (_lazily_unmounted, "another file system"),
        (_overmounted, "another file system"),
        (_overmounted_by_another_tree, "another file system"),
        (_below_unmounted, "no longer has a mount at vol"),
        (_below_lazily_unmounted, "no longer has a mount at vol"),
        (_below_overmounted, "has another file system mounted at vol than before"),
        (_below_overmounted_by_another, "has another file system mounted at vol than before"),
        (_below_emptied, "has a file system at vol that is empty, and was not before"),
        (_a_directory_covered, "has an empty file system newly mounted at d"),
    ],
)
def test_a_lost_file_system_deletes_nothing_and_heals(
    tmp_path: Path, mounts: Mounts, lose: Lose, words: str
) -> None:
    """Whatever Changes come of it, the owned Node keeps all; Tree and Node are halted in clear
    words; once it is back, all goes on.
    """
    instance = Instance(tmp_path)
    tree, node, spare = instance.tree, tmp_path / "node", tmp_path / "spare"
    mounts.tmpfs(tree)
    mounts.bind(tree, spare)
    fill(tree, {"d/page": "1", "d/sub/x": "1", "top": "1"})
    mounts.tmpfs(tmp_path / "vol-fs")
    fill(tmp_path / "vol-fs", {"page": "1", "sub/x": "1"})
    (tree / "vol-spare").mkdir()
    mounts.bind(tmp_path / "vol-fs", spare / "vol-spare")
    mounts.bind(tmp_path / "vol-fs", tree / "vol")
    instance.nodes = [local_node(node)]
    changed = ["d/page", "d/sub/x", "d/sub", "d", "top", "vol/page", "vol/sub/x", "vol"]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert row_of(sync).owned
            before = names_below(node)
            assert "vol/sub/x" in before
            heal = lose(mounts, tree, spare)
            instance.changed(*changed)
            instance.changed("d", "vol", "", scope=Scope.TREE)
            instance.changed("d", "vol", "", scope=Scope.LISTING)
            await sync.until(lambda: row_of(sync).state is NodeState.HALTED)
            await sync.until(lambda: bool(sync.state.read.tree_halted("main")))
            told = sync.state.read.tree_halted("main")
            assert any(word in told for word in words.split("|")), told
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert (answer.exit_code, told in answer.message) == (14, True)
            answer = await ask(sync, RequestKind.RECONCILE, nodes=("web1",))
            assert answer.exit_code == 14
            assert names_below(node) == before
            heal()
            fill(tree, {"top": "22"})
            instance.changed("top")
            await sync.followed()
            await sync.until(lambda: not sync.state.read.tree_halted("main"))
            await sync.until(lambda: (node / "top").read_text() == "22")
            assert names_below(node) == before
            assert row_of(sync).state is NodeState.FOLLOWING

    run(work)
