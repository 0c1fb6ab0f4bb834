"""A Node whose settings or whose disk changed gets just what it lacks."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

from shardsync.journal import requests
from shardsync.journal.requests import Request, RequestKind
from shardsync.model import NodeState
from tests.support.compare import differences
from tests.support.nodes import RsyncDaemon, local_node
from tests.support.sync import Instance, Running, run, running

KEY = ("main", "web1")


def _grown(instance: Instance) -> None:
    for number in range(3):
        (instance.tree / f"d{number}").mkdir()
        (instance.tree / f"d{number}" / "page").write_text(str(number))
        (instance.tree / f"d{number}" / "page.tmp").write_text(str(number))


def _state(sync: Running) -> NodeState | None:
    row = sync.state.read.nodes().get(KEY)
    return row.state if row else None


def _serve(instance: Instance) -> None:
    """Run until the Node has taken up its present settings and everything they ask for."""
    (node,) = instance.nodes

    def is_adapted(sync: Running) -> bool:
        row = sync.state.read.nodes().get(KEY)
        values = json.loads(row.fingerprint or "{}") if row else {}
        filters = values.get("filters", [])
        return values.get("target") == str(node.target) and bool(filters) == bool(node.exclude)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: is_adapted(sync))
            await sync.followed()

    run(work)


def test_a_pattern_taken_away_sends_what_it_held_back(tmp_path: Path) -> None:
    """Less excluded: the missing part comes; more excluded: what is there stays."""
    instance = Instance(tmp_path)
    _grown(instance)
    node = dataclasses.replace(local_node(tmp_path / "node"), exclude=("*.tmp",))

    instance.nodes = [node]
    _serve(instance)
    assert sorted(os.listdir(tmp_path / "node/d0")) == ["page"]
    instance.nodes = [dataclasses.replace(node, exclude=())]
    _serve(instance)
    assert differences(instance.tree, tmp_path / "node") == []
    (instance.tree / "d0" / "page.tmp").unlink()
    instance.changed("d0/page.tmp")
    instance.nodes = [node]
    _serve(instance)
    assert (tmp_path / "node/d0/page.tmp").exists()


def test_another_target_is_another_node(tmp_path: Path) -> None:
    """A Node moved to a new folder is filled from nothing, and the old folder left alone."""
    instance = Instance(tmp_path)
    _grown(instance)

    instance.nodes = [local_node(tmp_path / "old")]
    _serve(instance)
    instance.nodes = [local_node(tmp_path / "new")]
    _serve(instance)
    assert differences(instance.tree, tmp_path / "new") == []
    assert differences(instance.tree, tmp_path / "old") == []


def test_a_node_that_comes_back_emptied_is_filled_again(tmp_path: Path) -> None:
    """After an outage the Node's top is looked at: a replaced disk is no silent loss."""
    instance = Instance(tmp_path)
    _grown(instance)
    module = tmp_path / "module"
    module.mkdir()
    with RsyncDaemon(workspace=tmp_path, path=module) as daemon:
        instance.nodes = [daemon.node(name="web1")]

        async def work() -> None:
            async with running(instance) as sync:
                await sync.followed()
                daemon.stop()
                # One file of each directory is pending: that says nothing of its others.
                for top in sorted(path for path in instance.tree.iterdir() if path.is_dir()):
                    (top / "new").write_text("new")
                    instance.changed(top.name, f"{top.name}/new")
                await sync.until(lambda: sync.state.read.nodes()[KEY].attempts > 0)
                shutil.rmtree(module)
                module.mkdir()
                daemon.start()
                await sync.followed()
                assert differences(instance.tree, module) == []

        run(work)


def test_the_paused_setting_holds_until_somebody_resumes(tmp_path: Path) -> None:
    """`paused = true` starts a Node paused; a resume by hand outlives a restart."""
    instance = Instance(tmp_path)
    _grown(instance)
    instance.nodes = [dataclasses.replace(local_node(tmp_path / "node"), paused=True)]

    async def paused() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: _state(sync) is NodeState.PAUSED)
            requests.send(
                instance.state_dir.requests,
                Request(id="r", kind=RequestKind.RESUME, nodes=("web1",)),
            )
            await sync.followed()

    async def resumed() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert not sync.state.read.nodes()[KEY].paused

    run(paused)
    instance.changed("d0/page")
    run(resumed)
