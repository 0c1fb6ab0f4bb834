"""Roots that vanish, `max_delete`, and Nodes that are not owned: what stops deletions, and what
lets them go on.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shardsync.config.settings import DeleteLimit, SyncSettings
from shardsync.journal.requests import RequestKind
from shardsync.model import NodeState, Scope
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import KEY, ask, fill, names_below, newest, node_of_kind, row_of
from tests.support.sync import Instance, Running, run, running


def _missing(tree: Path) -> Callable[[], object]:
    os.rename(tree, tree.with_name("away"))
    return lambda: os.rename(tree.with_name("away"), tree)


def _replaced_by_an_empty_one(tree: Path) -> Callable[[], object]:
    os.rename(tree, tree.with_name("away"))
    tree.mkdir()

    def heal() -> None:
        tree.rmdir()
        os.rename(tree.with_name("away"), tree)

    return heal


def _replaced_by_a_file(tree: Path) -> Callable[[], object]:
    os.rename(tree, tree.with_name("away"))
    tree.write_text("")

    def heal() -> None:
        tree.unlink()
        os.rename(tree.with_name("away"), tree)

    return heal


def _emptied(tree: Path) -> Callable[[], object]:
    away = tree.with_name("away")
    away.mkdir()
    for name in os.listdir(tree):
        os.rename(tree / name, away / name)

    def heal() -> None:
        for name in os.listdir(away):
            os.rename(away / name, tree / name)

    return heal


def _without_its_marker(tree: Path) -> Callable[[], object]:
    os.rename(tree / "marker", tree.with_name("marker"))
    shutil.rmtree(tree / "d")

    def heal() -> None:
        os.rename(tree.with_name("marker"), tree / "marker")
        fill(tree, {"d/page": "1"})

    return heal


@pytest.mark.parametrize(
    ("lose", "words"),
    [
        (_missing, "is missing"),
        (_replaced_by_an_empty_one, "is another directory"),
        (_replaced_by_a_file, "is missing, or no directory"),
        (_emptied, "is empty, and was not before"),
        (_without_its_marker, 'has no marker file "marker"'),
    ],
)
def test_a_lost_root_deletes_nothing_and_heals(
    tmp_path: Path, lose: Callable[[Path], Callable[[], object]], words: str
) -> None:
    """Node and Tree are halted in clear words, the Node keeps all; it goes on when it is back."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"d/page": "1", "top": "1", "marker": ""})
    instance.marker = "marker" if lose is _without_its_marker else ""
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            heal = lose(tree)
            instance.changed("d/page", "d", "top")
            instance.changed("d", scope=Scope.TREE)
            instance.changed("d", scope=Scope.LISTING)
            await sync.until(lambda: row_of(sync).state is NodeState.HALTED)
            await sync.until(lambda: words in sync.state.read.tree_halted("main"))
            assert words in row_of(sync).last_error
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 14
            assert words in answer.message
            assert names_below(node) == ["d", "d/page", "marker", "top"]
            heal()
            fill(tree, {"top": "22"})
            await sync.followed()
            await sync.until(lambda: row_of(sync).state is NodeState.FOLLOWING)
            await sync.until(lambda: not sync.state.read.tree_halted("main"))
            assert row_of(sync).last_error == ""
            assert differences(tree, node) == []

    run(work)


def test_a_flush_on_a_halted_tree_does_not_say_all_is_well(tmp_path: Path) -> None:
    """Even with nothing pending: what changed under a lost root, nobody can say."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"d/page": "1"})
    instance.nodes = [local_node(tmp_path / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            heal = _missing(instance.tree)
            await sync.until(lambda: bool(sync.state.read.tree_halted("main")))
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 14
            assert "missing" in answer.message
            heal()
            await sync.until(lambda: not sync.state.read.tree_halted("main"))
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0

    run(work)


def test_an_idle_node_heals_without_an_error_left(tmp_path: Path) -> None:
    """A root that was away while nothing was pending leaves no old error behind."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"d/page": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            heal = _missing(tree)
            instance.changed("d/page")
            await sync.until(lambda: row_of(sync).state is NodeState.HALTED)
            heal()
            await sync.until(lambda: row_of(sync).state is NodeState.FOLLOWING)
            await sync.followed()
            assert row_of(sync).last_error == ""

    run(work)


def test_a_root_accepted_by_the_operator_is_shipped(tmp_path: Path) -> None:
    """`resume --accept-root`: the other directory is the root from now on."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"a": "1", "b": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            os.rename(tree, tmp_path / "away")
            fill(tree, {"a": "new"})
            instance.changed("a", "b")
            await sync.until(lambda: row_of(sync).state is NodeState.HALTED)
            answer = await ask(sync, RequestKind.RESUME, tree="main", accept_root=True)
            assert (answer.exit_code, answer.message) == (0, "")
            await sync.followed()
            assert differences(tree, node) == []

    run(work)


LIMITS = {
    "number": DeleteLimit(entries=5, share=None),
    "share": DeleteLimit(share=0.2, floor=5),
}


def _gone(instance: Instance, *names: str) -> None:
    for name in names:
        shutil.rmtree(instance.tree / name)


async def _halted(sync: Running) -> None:
    await sync.until(lambda: bool(row_of(sync).halted))
    assert row_of(sync).state is NodeState.HALTED
    assert "max_delete" in row_of(sync).halted


@pytest.mark.parametrize("limit", ["number", "share"])
@pytest.mark.parametrize("scope", [Scope.ENTRY, Scope.TREE, Scope.LISTING])
def test_more_deletions_than_max_delete_halt_the_node(
    tmp_path: Path, limit: str, scope: Scope
) -> None:
    """Entries below a removed directory count; nothing is deleted; what was pending at
    `resume --allow-delete` passes, what comes later is counted again.
    """
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {f"d{number}/f{n}": "1" for number in range(6) for n in range(3)})
    fill(tree, {f"p/d{number}/f{n}": "1" for number in range(6) for n in range(3)})
    instance.nodes = [local_node(node)]
    instance.sync = SyncSettings(max_delete=LIMITS[limit])

    def lost(first: int) -> None:
        names = [f"p/d{number}" for number in range(first, first + 3)]
        _gone(instance, *names)
        if scope is Scope.LISTING:
            instance.changed("p", scope=scope)
        elif scope is Scope.TREE:
            instance.changed(*names, scope=scope)
        else:
            instance.changed(*(f"{name}/f{n}" for name in names for n in range(3)), *names)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            before = names_below(node)
            lost(0)
            await _halted(sync)
            assert names_below(node) == before
            why = row_of(sync).halted
            answer = await ask(sync, RequestKind.RESUME, nodes=("web1",))
            assert answer.exit_code == 14
            assert answer.message == f"node web1 is halted: {why}"
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 14
            assert answer.message == f"not done: web1 (halted: {why})"
            assert "web1" not in why
            answer = await ask(sync, RequestKind.RESUME, nodes=("web1",), allow_delete=True)
            assert answer.exit_code == 0
            await sync.followed()
            assert differences(tree, node) == []
            before = names_below(node)
            lost(3)
            await _halted(sync)
            assert names_below(node) == before

    run(work)


def test_allowed_deletions_are_those_of_all_batches(tmp_path: Path) -> None:
    """`--allow-delete` covers all that was pending, in however many Batches, and what deletes
    nothing does not use it up.
    """
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {f"f{number:02}": "1" for number in range(30)})
    fill(tree, {"keep": "1"})
    instance.nodes = [local_node(node)]
    instance.sync = SyncSettings(batch_paths=8, max_delete=DeleteLimit(entries=3, share=None))

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            for number in range(30):
                os.unlink(tree / f"f{number:02}")
            fill(tree, {"keep": "2"})
            instance.changed(*(["keep"] * 12), *(f"f{number:02}" for number in range(30)))
            await _halted(sync)
            assert len(names_below(node)) == 31
            await ask(sync, RequestKind.RESUME, nodes=("web1",), allow_delete=True)
            await sync.followed()
            assert names_below(node) == ["keep"]
            assert not row_of(sync).halted

    run(work)


def test_temporary_files_do_not_use_up_max_delete(tmp_path: Path) -> None:
    """Written beside and renamed, again and again: nothing is deleted, so nothing is counted."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {f"f{number}": "1" for number in range(6)})
    instance.nodes = [local_node(node)]
    instance.sync = SyncSettings(max_delete=DeleteLimit(entries=5, share=None))

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            for text in ("22", "333"):
                fill(tree, {f"f{number}": text for number in range(6)})
                instance.changed(*(f".f{n}.tmp" for n in range(6)), *(f"f{n}" for n in range(6)))
                await sync.followed()
            assert differences(tree, node) == []
            assert sync.state.read.deleted_since(KEY, 0) == 0

    run(work)


def test_a_directory_replaced_by_a_symlink_is_counted(tmp_path: Path) -> None:
    """What a Node loses to make way for a symlink counts like any deletion."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {f"d/f{number}": "1" for number in range(9)})
    instance.nodes = [local_node(node)]
    instance.sync = SyncSettings(max_delete=DeleteLimit(entries=5, share=None))

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            os.rename(tree / "d", tmp_path / "outside")
            (tree / "d").symlink_to("nowhere")
            instance.changed("d", scope=Scope.TREE)
            instance.changed("d")
            await _halted(sync)
            assert len(names_below(node)) == 10
            await ask(sync, RequestKind.RESUME, nodes=("web1",), allow_delete=True)
            await sync.followed()
            assert differences(tree, node) == []

    run(work)


@pytest.mark.parametrize("kind", ["local", "daemon", "ssh"])
def test_a_node_that_is_not_owned_keeps_what_is_foreign(tmp_path: Path, kind: str) -> None:
    """It is listed, kept through `tree` and `listing` Changes and reconcile, and removed once
    adopted. What a live Change names is deleted all the same.
    """
    instance = Instance(tmp_path)
    tree = instance.tree
    fill(tree, {"d/page": "1", "d/old": "1", "t/x": "1", "t/y": "1", "top": "1"})

    async def work(folder: Path) -> None:
        async with running(instance) as sync:
            await sync.followed()
            row = row_of(sync)
            assert (row.owned, row.contacted) == (False, True)
            foreign = [b"d/foreign", b"other"]
            assert sync.state.read.foreign_paths(KEY) == foreign
            os.unlink(tree / "d/old")
            os.unlink(tree / "t/y")
            instance.changed("d/old", "t/y")
            instance.changed("t", scope=Scope.TREE)
            instance.changed("d", scope=Scope.LISTING)
            await sync.followed()
            answer = await ask(sync, RequestKind.RECONCILE, nodes=("web1",))
            assert answer.exit_code == 0
            answer = await ask(sync, RequestKind.RECONCILE, nodes=("web1",), path=b"other")
            assert answer.exit_code == 0
            assert names_below(folder) == [
                "d", "d/foreign", "d/page", "other", "other/x", "t", "t/x", "top",
            ]  # fmt: skip
            assert sync.state.read.foreign_paths(KEY) == foreign
            assert row_of(sync).foreign_paths == 2
            answer = await ask(sync, RequestKind.RESUME, nodes=("web1",), adopt=True)
            assert answer.exit_code == 0
            await sync.followed()
            assert differences(tree, folder) == []
            assert sync.state.read.foreign_paths(KEY) == []
            assert row_of(sync).owned

    with node_of_kind(kind, tmp_path) as (node, folder):
        fill(folder, {"d/foreign": "node's", "other/x": "node's", "d/page": "different"})
        instance.nodes = [node]
        run(lambda: work(folder))


def test_adopting_before_first_contact_holds(tmp_path: Path) -> None:
    """`resume --adopt` of a Node that was never reached: it is owned once it is met."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "deep" / "node"
    fill(tree, {"a": "1"})
    instance.nodes = [dataclasses.replace(local_node(node))]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: row_of(sync).state is NodeState.BACKING_OFF)
            fill(node, {"foreign": "1"})
            await ask(sync, RequestKind.RESUME, nodes=("web1",), adopt=True)
            await sync.followed()
            assert names_below(node) == ["a"]

    run(work)
