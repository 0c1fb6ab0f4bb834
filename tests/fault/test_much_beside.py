"""A Node that holds, or claims to hold, very much that the tree does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardsync.config.settings import DeleteLimit, SyncSettings
from shardsync.journal.requests import RequestKind
from shardsync.model import Scope
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import KEY, ask, fill, newest, row_of
from tests.support.sync import Instance, Running, run, running

_MOST = 5


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """A Node that is a plain folder; few paths that it alone has are kept in memory."""
    monkeypatch.setattr("shardsync.ship.findings.MOST_BESIDE", _MOST)
    made = Instance(tmp_path)
    fill(made.tree, {"d/page": "1", "top": "1"})
    made.nodes = [local_node(tmp_path / "node")]
    return made


def _litter(node: Path) -> None:
    fill(node, {f"d/foreign-{number}": "1" for number in range(4 * _MOST + 2)})
    fill(node, {f"dir-{number}/x": "1" for number in range(3)})


async def _reconcile(sync: Running) -> int:
    return (await ask(sync, RequestKind.RECONCILE, nodes=("web1",))).exit_code


@pytest.mark.fault("node-edited")
def test_all_of_it_goes_from_an_owned_node(instance: Instance, tmp_path: Path) -> None:
    """In several looks, by a reconcile and by a Change of the directory."""
    node = tmp_path / "node"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _litter(node)
            assert await _reconcile(sync) == 0
            assert differences(instance.tree, node) == []
            _litter(node)
            instance.changed("d", scope=Scope.LISTING)
            instance.changed("dir-0", "dir-1", "dir-2", scope=Scope.TREE)
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            assert differences(instance.tree, node) == []

    run(work)


@pytest.mark.parametrize("how", ["reconcile", "listing"])
def test_all_of_it_counts_before_any_of_it_goes(
    instance: Instance, tmp_path: Path, how: str
) -> None:
    """More than `max_delete` allows halts the Node, though what is kept of it would not."""
    node = tmp_path / "node"
    instance.sync = SyncSettings(max_delete=DeleteLimit(entries=3 * _MOST, share=None))

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _litter(node)
            if how == "reconcile":
                await _reconcile(sync)
            else:
                instance.changed("d", scope=Scope.LISTING)
            await sync.until(lambda: bool(row_of(sync).halted))
            assert len(list((node / "d").iterdir())) == 1 + 4 * _MOST + 2
            answer = await ask(sync, RequestKind.RESUME, nodes=("web1",), allow_delete=True)
            assert answer.exit_code == 0
            await sync.followed()
            assert [path.name for path in (node / "d").iterdir()] == ["page"]

    run(work)


def test_a_node_that_is_not_owned_keeps_it_and_it_is_counted(
    instance: Instance, tmp_path: Path
) -> None:
    """Few paths are listed; status tells how many there are; nothing is swept by an incomplete
    list.
    """
    node = tmp_path / "node"
    _litter(node)
    (node / "d" / ".page.AbCdEf").write_text("a user's")

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            listed = sync.state.read.foreign_paths(KEY)
            assert 0 < len(listed) < 4 * _MOST
            assert row_of(sync).foreign_paths > len(listed)
        async with running(instance) as sync:
            # What was pending when it started is swept for what an rsync that was killed left.
            fill(instance.tree, {"d/page": "2"})
            instance.changed("d/page")
            await sync.followed()
        assert (node / "d" / ".page.AbCdEf").exists()
        assert len(list((node / "d").iterdir())) == 1 + 4 * _MOST + 3

    run(work)
