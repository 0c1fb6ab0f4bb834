"""flush of one path, and flush that is content with some Nodes: real Journals, real rsync."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.clock import SystemClock
from shardsync.journal.requests import RequestKind
from shardsync.model import NodeState, Scope, ShardState
from tests.support.nodes import local_node
from tests.support.shipping import KEY, answered, ask, asked, fill, newest, row_of
from tests.support.sync import Instance, Running, run, running

_FLUSH = RequestKind.FLUSH


def _soon(seconds: float) -> int:
    return SystemClock().wall_us() + int(seconds * 1_000_000)


async def _is_open(sync: Running, **fields: object) -> bool:
    """Whether a flush is still waiting after a while: it runs into its deadline."""
    answer = await ask(
        sync, _FLUSH, positions=newest(sync.instance), deadline_us=_soon(0.4), **fields
    )
    assert answer.exit_code in {0, 14}
    return answer.message.startswith("timed out")


@contextlib.contextmanager
def _immutable(folder: Path) -> Iterator[None]:
    """A folder that nothing takes the place of, whoever asks."""
    folder.mkdir()
    (folder / "kept").touch()
    subprocess.run(["chattr", "+i", folder], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", folder], check=True, timeout=10)


def test_a_flush_of_a_path_waits_for_that_alone(tmp_path: Path) -> None:
    """A path that cannot be sent keeps a whole flush open, and that of its folders and itself.

    Beside it, and where nothing ever changed, a flush ends well.
    """
    instance = Instance(tmp_path)
    tree = instance.tree
    fill(tree, {"a/x/one": "1", "a/two": "1", "b/three": "1"})
    instance.nodes = [local_node(tmp_path / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            with _immutable(tmp_path / "node/a/x/bad"):
                fill(tree, {"b/three": "22", "a/x/bad": "1"})
                instance.changed("a/x/bad", "b/three")
                await sync.until(lambda: bool(sync.state.read.failures(KEY)))
                for path in (b"", b"a", b"a/x", b"a/x/bad", b"a/x/bad/below"):
                    assert await _is_open(sync, path=path), path
                for path in (b"b", b"b/three", b"a/two", b"a/x/one", b"a/x/bad2", b"nowhere"):
                    assert not await _is_open(sync, path=path), path
                assert (tmp_path / "node/b/three").read_text() == "22"

    run(work)


def test_a_flush_of_a_path_waits_for_its_pending_change(tmp_path: Path) -> None:
    """The Node lacks all that is pending; only paths that nothing pending is about are done."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a/one": "1", "b/two": "1", "c/three": "1"})
    instance.nodes = [local_node(tmp_path / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await ask(sync, RequestKind.PAUSE, nodes=("web1",))
            await sync.until(lambda: row_of(sync).state is NodeState.PAUSED)
            fill(instance.tree, {"a/one": "22"})
            instance.changed("a/one")
            instance.changed("b", scope=Scope.TREE)
            positions = newest(instance)
            for path in (b"", b"a", b"a/one", b"b", b"b/two"):
                answer = await ask(sync, _FLUSH, positions=positions, path=path)
                assert (answer.exit_code, answer.message) == (14, "not done: web1 (paused)"), path
            for path in (b"c", b"c/three", b"a/two", b"bb"):
                assert (await ask(sync, _FLUSH, positions=positions, path=path)).exit_code == 0

    run(work)


def test_a_flush_of_a_path_waits_for_a_first_contact(tmp_path: Path) -> None:
    """While the Node is bootstrapped nothing can be said to be on it."""
    instance = Instance(tmp_path)
    fill(instance.tree, {f"d{number:02}/f": "1" for number in range(40)})
    instance.nodes = [local_node(tmp_path / "node")]
    instance.journals[0].commit(progress={"state": ShardState.SCANNING.value})

    async def work() -> None:
        async with running(instance) as sync:
            flush = await asked(sync, _FLUSH, positions=newest(instance), path=b"d39/f")
            await sync.until(lambda: sync.state.read.open_requests() != [])
            instance.journals[0].commit(progress={"state": ShardState.FOLLOWING.value})
            assert (await answered(sync, flush)).exit_code == 0
            assert (tmp_path / "node/d39/f").exists()

    run(work)


def test_a_flush_of_a_path_that_a_node_does_not_take_has_nothing_to_wait_for(
    tmp_path: Path,
) -> None:
    """A Node of another subtree lacks nothing of it, however far behind it is."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"news/a": "1", "shop/b": "1"})
    instance.nodes = [dataclasses.replace(local_node(tmp_path / "node"), subtree="news")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await ask(sync, RequestKind.PAUSE, nodes=("web1",))
            instance.changed("news/a")
            answer = await ask(sync, _FLUSH, positions=newest(instance), path=b"news/a")
            assert answer.exit_code == 14
            answer = await ask(sync, _FLUSH, positions=newest(instance), path=b"shop")
            assert answer.exit_code == 0

    run(work)


def test_a_flush_ends_when_so_many_nodes_have_it(tmp_path: Path) -> None:
    """Any two of three will do, and are named; three will not while one is away."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    instance.nodes = [
        local_node(tmp_path / "one"),
        local_node(tmp_path / "no/parent", name="web2"),
        local_node(tmp_path / "three", name="web3"),
    ]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: row_of(sync, ("main", "web2")).attempts > 0)
            fill(instance.tree, {"a": "22"})
            instance.changed("a")
            answer = await ask(sync, _FLUSH, positions=newest(instance), enough=2)
            assert (answer.exit_code, answer.message) == (0, "web1, web3")
            assert (tmp_path / "one/a").read_text() == "22"
            assert (tmp_path / "three/a").read_text() == "22"
            assert await _is_open(sync, enough=3)

    run(work)


@pytest.mark.parametrize(("paused", "code"), [(("web1",), 0), (("web1", "web2"), 14)])
def test_a_flush_ends_at_once_where_too_few_nodes_can_have_it(
    tmp_path: Path, paused: tuple[str, ...], code: int
) -> None:
    """One of two: a pause of the one is no matter, a pause of both is the end."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    instance.nodes = [local_node(tmp_path / "one"), local_node(tmp_path / "two", name="web2")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await ask(sync, RequestKind.PAUSE, nodes=paused)
            fill(instance.tree, {"a": "22"})
            instance.changed("a")
            answer = await ask(sync, _FLUSH, positions=newest(instance), enough=1)
            assert answer.exit_code == code
            assert answer.message.startswith("not done: web1 (paused)" if code else "web2")

    run(work)
