from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.config.settings import NodeSettings
from shardsync.ship.answers import Listing, Probe
from shardsync.ship.command import Capabilities
from shardsync.ship.outcome import Outcome, RunResult, Trouble
from tests.support.nodes import RsyncDaemon, Sshd, local_node
from tests.support.old_rsync import old_rsync, takes_missing_args
from tests.support.transports import ODD_NAMES, SECONDS, snapshot, transport


@pytest.fixture(params=["daemon", "ssh"])
def old_node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NodeSettings]:
    """A Node whose receiver is the old rsync; its files lie in `tmp_path / "node"`."""
    folder = tmp_path / "node"
    folder.mkdir()
    if request.param == "daemon":
        with RsyncDaemon(workspace=tmp_path, path=folder, binary=old_rsync()) as daemon:
            yield daemon.node()
    else:
        with Sshd(workspace=tmp_path) as sshd:
            yield replace(sshd.node(folder), rsync_options=(f"--rsync-path={old_rsync()}",))


@pytest.fixture
def restricted(tmp_path: Path) -> Iterator[NodeSettings]:
    """A Node behind `rrsync -wo`; its files lie in `tmp_path / "node"`."""
    if not shutil.which("rrsync"):
        pytest.skip("no rrsync here")
    folder = tmp_path / "node"
    folder.mkdir()
    with Sshd(workspace=tmp_path, forced_command=f"rrsync -wo {folder}") as sshd:
        yield sshd.node(Path("/"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty tree."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


async def probed(node: NodeSettings, root: Path) -> Probe:
    return await transport(node, root).probe()


@pytest.mark.fault("node-rsync-old")
def test_an_old_receiver_is_found_out_without_harm(
    old_node: NodeSettings, root: Path, tmp_path: Path
) -> None:
    """The probe tells that missing arguments kill the receiver, and changes nothing there."""
    (tmp_path / "node" / "x").write_text("1")
    before = snapshot(tmp_path / "node")
    for _ in range(3):
        found = asyncio.run(probed(old_node, root))
        if found.result.outcome is Outcome.SHIPPED:
            break
        # A receiver that dies may take its last words with it: the Node is contacted again.
    assert found.result.outcome is Outcome.SHIPPED, found
    assert found.capabilities == Capabilities(delete_missing_args=False)
    assert snapshot(tmp_path / "node") == before


def test_the_receiver_of_this_machine_is_found_out(root: Path, tmp_path: Path) -> None:
    """As good as it is, or as old; and a missing target is not made by asking."""
    found = asyncio.run(probed(local_node(tmp_path / "node"), root))
    assert found.capabilities == Capabilities(delete_missing_args=takes_missing_args())
    assert not (tmp_path / "node").exists()


def test_a_node_that_is_down_is_told_by_the_probe(root: Path, tmp_path: Path) -> None:
    """Unreachable is trouble, not an ability that is lacking."""
    with RsyncDaemon(workspace=tmp_path, path=tmp_path) as daemon:
        node = daemon.node()
    found = asyncio.run(probed(node, root))
    assert found.result.trouble is Trouble.UNREACHABLE
    assert found.capabilities == Capabilities()


def test_deletions_reach_an_old_receiver_by_name(
    old_node: NodeSettings, root: Path, tmp_path: Path
) -> None:
    """Odd names and folders with contents go; siblings and excluded files stay."""
    node = tmp_path / "node"
    filters = ("--include=*.html", "--exclude=*.local")

    async def run() -> RunResult:
        route = transport(old_node, root, filters=filters)
        await route.ship(paths, deadline_seconds=SECONDS)
        for name in ODD_NAMES:
            os.unlink(os.fsencode(root) + b"/d/e/" + name)
        shutil.rmtree(root / "d" / "full")
        (root / "new").write_text("1")
        (node / "d" / "e" / "foreign.html").write_text("stays")
        (node / "d" / "full" / "kept.local").write_text("stays")
        (node / "foreign").mkdir()
        gone = [b"d/e/" + name for name in ODD_NAMES]
        result = await route.ship([b"new"], gone=[*gone, b"d/full"], deadline_seconds=SECONDS)
        assert route.capabilities == Capabilities(delete_missing_args=False)
        again = await route.ship([b"new"], gone=[b"d/none"], deadline_seconds=SECONDS)
        assert again.outcome is Outcome.SHIPPED
        await route.close()
        return result

    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "full" / "deep").mkdir(parents=True)
    (root / "d" / "full" / "deep" / "x").write_text("1")
    paths = [b"d", b"d/e", b"d/full", b"d/full/deep", b"d/full/deep/x"]
    for name in ODD_NAMES:
        (root / "d" / "e" / os.fsdecode(name)).write_text("1")
        paths.append(b"d/e/" + name)
    result = asyncio.run(run())
    assert sorted(snapshot(node)) == [
        b"d",
        b"d/e",
        b"d/e/foreign.html",
        b"d/full",
        b"d/full/kept.local",
        b"foreign",
        b"new",
    ]
    assert list(result.failed) == [b"d/full"]


def test_directory_times_come_right_after_filtered_deletions(
    old_node: NodeSettings, root: Path, tmp_path: Path
) -> None:
    """The folder that lost an entry has its own mtime again afterwards."""
    (root / "d").mkdir()
    (root / "d" / "x").write_text("1")
    (root / "d" / "y").write_text("1")

    async def run() -> RunResult:
        route = transport(old_node, root)
        await route.ship([b"d", b"d/x", b"d/y"], deadline_seconds=SECONDS)
        (root / "d" / "x").unlink()
        result = await route.ship([], gone=[b"d/x"], deadline_seconds=SECONDS)
        await route.close()
        return result

    assert asyncio.run(run()).outcome is Outcome.SHIPPED
    assert snapshot(tmp_path / "node") == snapshot(root)


def test_deletions_are_counted_before_they_happen(
    old_node: NodeSettings, root: Path, tmp_path: Path
) -> None:
    """The dry run counts what would go, below a folder too, on an old receiver as well."""
    folder = tmp_path / "node" / "gone"
    folder.mkdir()
    for number in range(20):
        (folder / str(number)).write_text("")

    async def run() -> RunResult:
        route = transport(old_node, root)
        return await route.count_deletions([], gone=[b"gone"], deadline_seconds=SECONDS)

    result = asyncio.run(run())
    assert (result.outcome, result.deleted) == (Outcome.SHIPPED, 21)
    assert len(os.listdir(folder)) == 20


@pytest.mark.fault("node-rsync-old")
def test_rrsync_is_learned_and_served(
    restricted: NodeSettings, root: Path, tmp_path: Path
) -> None:
    """Behind rrsync the refused option is dropped, one run at a time, without a warm one."""
    (root / "a").write_text("1")
    (root / "b").write_text("1")

    async def run() -> list[RunResult]:
        route = transport(restricted, root)
        results = [await route.ship([b"a", b"b"], deadline_seconds=SECONDS)]
        assert results[0].outcome is Outcome.SHIPPED, results
        assert not route.capabilities.modify_window
        (root / "b").unlink()
        results.append(await route.ship([], gone=[b"b"], deadline_seconds=SECONDS))
        assert route.warm_seconds is None
        async with route.compare([b""], deadline_seconds=SECONDS) as comparison:
            assert [difference async for difference in comparison] == []
        results.append(comparison.result)
        await route.close()
        return results

    assert [result.outcome for result in asyncio.run(run())] == [Outcome.SHIPPED] * 3
    assert sorted(snapshot(tmp_path / "node")) == [b"a"]
    found = asyncio.run(probed(restricted, root)).capabilities
    assert found == Capabilities(modify_window=False, delete_missing_args=takes_missing_args())


def test_the_root_of_a_node_is_listed_one_level_deep(root: Path, tmp_path: Path) -> None:
    """Names at the top are told with odd ones among them, a missing target as missing."""
    node = tmp_path / "node"

    async def listed() -> Listing:
        return await transport(local_node(node), root).list_root()

    found = asyncio.run(listed())
    assert (found.names, found.is_missing, found.result.outcome) == ((), True, Outcome.SHIPPED)
    node.mkdir()
    found = asyncio.run(listed())
    assert (found.names, found.is_missing) == ((), False)
    (node / "full" / "deep").mkdir(parents=True)
    (node / "full" / "deep" / "x").write_text("")
    (node / "hollow").mkdir()
    for name in ODD_NAMES:
        (node / os.fsdecode(name)).write_text("")
    found = asyncio.run(listed())
    assert found.names == tuple(sorted([*ODD_NAMES, b"full", b"hollow"]))
    assert found.result.outcome is Outcome.SHIPPED
