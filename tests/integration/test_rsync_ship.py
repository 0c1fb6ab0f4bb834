from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.config.settings import NodeSettings
from shardsync.ship.command import Purpose
from shardsync.ship.outcome import Outcome, RunResult
from tests.support.nodes import RsyncDaemon, Sshd, local_node
from tests.support.transports import ODD_NAMES, SECONDS, snapshot, transport


@pytest.fixture(params=["local", "daemon", "ssh"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NodeSettings]:
    """One Node of each kind; its files lie in `tmp_path / "node"`."""
    folder = tmp_path / "node"
    folder.mkdir()
    if request.param == "local":
        yield local_node(folder)
    elif request.param == "daemon":
        with RsyncDaemon(workspace=tmp_path, path=folder, user="push", password="p") as daemon:
            yield daemon.node()
    else:
        with Sshd(workspace=tmp_path) as sshd:
            yield sshd.node(folder)


def ship(node: NodeSettings, root: Path, *lists: tuple[list[bytes], list[bytes]]) -> RunResult:
    async def run() -> RunResult:
        route = transport(node, root)
        for paths, gone in lists:
            result = await route.ship(paths, gone=gone, deadline_seconds=SECONDS)
        await route.close()
        return result

    return asyncio.run(run())


def test_odd_names_arrive_and_go(node: NodeSettings, tmp_path: Path) -> None:
    """Names of any bytes are shipped, and deleted by name; what is beside them stays."""
    root, target = tmp_path / "root", tmp_path / "node"
    (root / "d").mkdir(parents=True)
    paths = [b"d"]
    for name in ODD_NAMES:
        for path in (name, b"d/" + name):
            paths.append(path)
            with open(os.fsencode(root) + b"/" + path, "wb") as file:
                file.write(name)
    result = ship(node, root, (paths, []))
    assert (result.outcome, result.failed, result.exit_code) == (Outcome.SHIPPED, {}, 0)
    assert result.listed == 2 * len(ODD_NAMES) + 1
    assert snapshot(target) == snapshot(root)

    (target / "foreign").write_text("stays")
    (target / "d" / "foreign").write_text("stays")
    for path in paths[1:]:
        os.unlink(os.fsencode(root) + b"/" + path)
    result = ship(node, root, ([], paths[1:]))
    assert result.outcome is Outcome.SHIPPED
    assert result.deleted == 2 * len(ODD_NAMES)
    assert sorted(snapshot(target)) == [b"d", b"d/foreign", b"foreign"]


def test_type_changes_replace_each_other(node: NodeSettings, tmp_path: Path) -> None:
    """File, directory with contents, symlink and fifo replace each other on the Node."""
    root, target = tmp_path / "root", tmp_path / "node"
    root.mkdir()
    (root / "a").mkdir()
    (root / "a" / "x").write_text("1")
    (root / "b").write_text("1")
    os.symlink("../somewhere/else", root / "c")
    ship(node, root, ([b"a", b"a/x", b"b", b"c"], []))
    assert snapshot(target) == snapshot(root)
    shutil.rmtree(root / "a")
    (root / "a").write_text("now a file")
    (root / "b").unlink()
    (root / "b").mkdir(mode=0o750)
    (root / "c").unlink()
    os.mkfifo(root / "c", 0o640)
    result = ship(node, root, ([b"a", b"b", b"c"], []))
    assert (result.outcome, result.exit_code) == (Outcome.SHIPPED, 0)
    assert snapshot(target) == snapshot(root)


def test_warm_runs_follow_one_another(node: NodeSettings, tmp_path: Path) -> None:
    """The first Batch is cold, the later ones find an rsync waiting; all arrive."""
    root, target = tmp_path / "root", tmp_path / "node"
    root.mkdir()

    async def run() -> list[bool]:
        route = transport(node, root)
        warm = []
        for number in range(4):
            (root / "a").write_text(str(number))
            result = await route.ship([b"a"], deadline_seconds=SECONDS)
            assert result.outcome is Outcome.SHIPPED, result
            assert (target / "a").read_text() == str(number)
            warm.append(result.warm)
        await route.close()
        return warm

    assert asyncio.run(run()) == [False, True, True, True]


@pytest.mark.fault("same-size-same-time")
def test_rewrite_of_equal_size_and_time_arrives(node: NodeSettings, tmp_path: Path) -> None:
    """A Batch sends content even where size and mtime say that nothing changed."""
    root, target = tmp_path / "root", tmp_path / "node"
    root.mkdir()
    (root / "a").write_text("old")
    os.utime(root / "a", (1, 1))
    ship(node, root, ([b"a"], []))
    (root / "a").write_text("new")
    os.utime(root / "a", (1, 1))
    ship(node, root, ([b"a"], []))
    assert (target / "a").read_text() == "new"


@pytest.mark.fault("attributes")
def test_attributes_send_no_data(tmp_path: Path) -> None:
    """A chmod of a big file costs no transfer of its content."""
    root, target = tmp_path / "root", tmp_path / "node"
    root.mkdir()
    (root / "big").write_bytes(bytes(2_000_000))

    async def run() -> RunResult:
        route = transport(local_node(target), root)
        await route.ship([b"big"], deadline_seconds=SECONDS)
        (root / "big").chmod(0o600)
        result = await route.ship([b"big"], purpose=Purpose.ATTRIBUTES, deadline_seconds=SECONDS)
        await route.close()
        return result

    result = asyncio.run(run())
    assert result.outcome is Outcome.SHIPPED
    assert result.bytes_sent < 2_000
    assert snapshot(target) == snapshot(root)


def test_tree_ships_subtrees_and_deletes_nothing(node: NodeSettings, tmp_path: Path) -> None:
    """A `tree` run ships all below its roots, and leaves what is foreign there."""
    root, target = tmp_path / "root", tmp_path / "node"
    (root / "news" / "2026" / "#odd").mkdir(parents=True)
    (root / "news" / "2026" / "a").write_text("1")
    (root / "other").write_text("not listed")
    (target / "news").mkdir()
    (target / "news" / "foreign").write_text("stays")

    async def run() -> RunResult:
        route = transport(node, root)
        result = await route.ship([b"news"], purpose=Purpose.TREE, deadline_seconds=SECONDS)
        await route.close()
        return result

    assert asyncio.run(run()).outcome is Outcome.SHIPPED
    assert sorted(snapshot(target)) == [
        b"news",
        b"news/2026",
        b"news/2026/#odd",
        b"news/2026/a",
        b"news/foreign",
    ]
