"""A file with several names: a write through one of them reaches the Node under all."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.journal.records import LinkedFile
from shardsync.journal.requests import RequestKind
from shardsync.model import Kind, Scope
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import ask, fill
from tests.support.sync import Instance, run, running


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """Two Shards, and a Node that is a plain folder."""
    made = Instance(tmp_path, shards=2)
    made.nodes = [local_node(tmp_path / "node")]
    return made


def _link(tree: Path, name: str, *others: str, text: str = "1") -> None:
    """A new file with several names, in folders that are made for them."""
    fill(tree, {name: text})
    for other in others:
        (tree / other).parent.mkdir(exist_ok=True)
        os.link(tree / name, tree / other)


@pytest.mark.fault("hard-links")
def test_a_write_through_one_name_reaches_all(instance: Instance) -> None:
    """Names made before the first start, later, in another Shard, and renamed by their folder."""
    tree, node = instance.tree, instance.folder / "node"
    _link(tree, "a/one", "b/two")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert differences(tree, node) == []
            (tree / "a" / "one").write_text("2")
            instance.changed("a/one")
            await sync.followed()
            assert differences(tree, node) == []
            os.link(tree / "a" / "one", tree / "three")
            (tree / "b").rename(tree / "c")
            instance.changed("three", shard=1)
            instance.changed("b", "c", scope=Scope.TREE)
            await sync.followed()
            (tree / "three").write_text("3")
            (tree / "three").chmod(0o600)
            instance.changed("three", shard=1)
            await sync.followed()
            assert differences(tree, node) == []
            (tree / "c" / "two").chmod(0o640)
            instance.changed("c/two", kind=Kind.ATTRIBUTES)
            await sync.followed()
            assert differences(tree, node) == []

    run(work)


def test_a_write_that_keeps_size_and_time_reaches_all_names(instance: Instance) -> None:
    """New bytes of the old length, the mtime put back: told for one name, seen under both."""
    tree, node = instance.tree, instance.folder / "node"
    _link(tree, "a", "b", text="1111")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            before = (tree / "a").stat().st_mtime_ns
            (tree / "a").write_text("2222")
            os.utime(tree / "a", ns=(before, before))
            instance.changed("a")
            await sync.followed()
            assert (node / "a").read_text() == "2222"
            assert (node / "b").read_text() == "2222"

    run(work)


def test_a_write_below_a_directory_that_was_renamed_reaches_names_elsewhere(
    instance: Instance,
) -> None:
    """The directory goes as a whole, its file with it; the file's name outside of it goes too."""
    tree, node = instance.tree, instance.folder / "node"
    _link(tree, "a/one", "c/two")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await ask(sync, RequestKind.PAUSE, nodes=("web1",))
            (tree / "a").rename(tree / "b")
            instance.changed("a", "b", scope=Scope.TREE)
            (tree / "b" / "one").write_text("22")
            instance.changed("b/one")
            await ask(sync, RequestKind.RESUME, nodes=("web1",))
            await sync.followed()
            assert (node / "c" / "two").read_text() == "22"
            assert differences(tree, node) == []

    run(work)


def test_a_symlink_that_took_over_the_number_is_no_name(instance: Instance) -> None:
    """A file that lost all its names is searched for once, whatever has its inode number now."""
    tree = instance.tree
    (tree / "symlink").symlink_to("nowhere")
    seen = (tree / "symlink").lstat()

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            lost = LinkedFile(device=seen.st_dev, inode=seen.st_ino, links=2)
            sync.state.links.note("main", {b"lost": lost})
            instance.changed("lost")
            await sync.followed()
            (served,) = sync.service.trees()
            assert served.links.searches == 1

    run(work)


def test_a_name_outside_the_tree_is_searched_for_once(instance: Instance) -> None:
    """A file with a name elsewhere does not have the Tree searched at every write."""
    _link(instance.tree, "a", "../outside")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            for number in range(3):
                (instance.tree / "a").write_text(str(number) * 5)
                instance.changed("a")
                await sync.followed()
            assert (instance.folder / "node" / "a").read_text() == "22222"
            (tree,) = sync.service.trees()
            assert tree.links.searches == 1

    run(work)


def test_a_name_that_is_gone_before_the_node_is_ready_is_not_forgotten(instance: Instance) -> None:
    """Linked, written through the new name, which is then removed, all while the Node is away."""
    tree, node = instance.tree, instance.folder / "node"
    (tree / "a").write_text("1")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await ask(sync, RequestKind.PAUSE, nodes=("web1",))
            os.link(tree / "a", tree / "b")
            instance.changed("b")
            await sync.until(lambda: bool(sync.state.read.linked_files("main", b"b")))
            (tree / "b").write_text("2")
            instance.changed("b")
            (tree / "b").unlink()
            instance.changed("b")
            await ask(sync, RequestKind.RESUME, nodes=("web1",))
            await sync.followed()
            assert (node / "a").read_text() == "2"
            assert differences(tree, node) == []

    run(work)


def test_a_name_that_is_gone_and_one_that_is_there_are_searched_for_once(
    instance: Instance,
) -> None:
    """Of one file that has a name elsewhere, too: neither forgets what was searched for the other.

    Else two pieces of open work would have the Tree searched for ever, in turn.
    """
    tree = instance.tree
    _link(tree, "a", "gone", "third", "../outside")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            instance.changed("a", "gone", "third")
            await sync.followed()
            (tree / "gone").unlink()
            (served,) = sync.service.trees()
            seen = (tree / "a").lstat()
            linked = {b"a": LinkedFile(device=seen.st_dev, inode=seen.st_ino, links=3)}

            async def unresolved() -> set[bytes]:
                found = set()
                for these, others in ((), [b"gone"]), (linked, []):
                    with served.links._view.looking() as looker:
                        found |= served.links.siblings(dict(these), others, looker.look).unresolved
                    await sync.until(lambda: not served.links.is_searching)
                return found

            assert await unresolved() != set()
            assert await unresolved() == set()

    run(work)


@pytest.mark.fault("hard-links")
def test_a_write_through_a_name_that_became_something_else_reaches_the_others(
    instance: Instance,
) -> None:
    """A directory, a path below a file, a name of another such file: by the time it is sent."""
    tree, node = instance.tree, instance.folder / "node"
    lost = {"one": "kept1", "deep/two": "kept2", "three": "kept3"}
    for name, kept in lost.items():
        _link(tree, name, kept)
    _link(tree, "other", "another", text="other")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            instance.changed(*lost)
            await sync.followed()
            for name in lost:
                (tree / name).write_text("written through it")
                os.unlink(tree / name)
            (tree / "one").mkdir()
            (tree / "deep").rmdir()
            (tree / "deep").write_text("a file now")
            os.link(tree / "other", tree / "three")
            instance.changed("one", "deep/two", "deep", "three")
            await sync.followed()
            assert differences(tree, node) == []

    run(work)


def test_a_name_that_became_another_file_s_tells_every_node(instance: Instance) -> None:
    """Written through, then made a name of another file: also to one that looks for itself."""
    tree, nodes = instance.tree, [instance.folder / name for name in ("one", "two")]
    one, two = (local_node(node, name=node.name) for node in nodes)
    instance.nodes = [one, replace(two, exclude=("*.tmp",))]
    _link(tree, "name", "kept")
    _link(tree, "other", "another", text="other")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            instance.changed("name")
            await sync.followed()
            await ask(sync, RequestKind.PAUSE, nodes=("two",))
            (tree / "name").write_text("written through it")
            os.unlink(tree / "name")
            os.link(tree / "other", tree / "name")
            instance.changed("name")
            await sync.until(lambda: differences(tree, nodes[0]) == [])
            await ask(sync, RequestKind.RESUME, nodes=("two",))
            await sync.followed()
            assert differences(tree, nodes[1]) == []

    run(work)
