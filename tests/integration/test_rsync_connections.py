"""Daemons that take few connections, and Nodes whose connections are switched off."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.clock import SystemClock
from shardsync.ship.outcome import Outcome, Trouble
from shardsync.ship.verify import Verifier
from tests.support.nodes import RsyncDaemon, local_node
from tests.support.transports import SECONDS, transport


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree of one file."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "a").write_text("1")
    return folder


@pytest.fixture
def single(tmp_path: Path) -> Iterator[RsyncDaemon]:
    """A daemon that takes one connection at a time; its files lie in `tmp_path / "node"`."""
    (tmp_path / "node").mkdir()
    lines = ("max connections = 1", f"lock file = {tmp_path / 'rsyncd.lock'}")
    with RsyncDaemon(workspace=tmp_path, path=tmp_path / "node", module_lines=lines) as daemon:
        yield daemon


def test_a_daemon_of_one_connection_is_not_kept_busy(root: Path, single: RsyncDaemon) -> None:
    """Found out before anyone needs it: another process gets in while nothing is sent."""

    async def run() -> None:
        route = transport(single.node(), root)
        for _ in range(5):
            route.warm_up()
            await asyncio.sleep(0.5)
        assert route.warm_seconds is None
        other = transport(replace(single.node(), warm=False), root)
        assert (await other.probe()).result.outcome is Outcome.SHIPPED
        await route.close()

    asyncio.run(run())


def test_all_work_goes_through_one_connection(
    root: Path, single: RsyncDaemon, tmp_path: Path
) -> None:
    """Batches, listings, probes and comparisons, side by side, over one connection at a time."""

    async def run() -> None:
        route = transport(single.node(), root)
        route.warm_up()
        results = [await route.ship([b"a"], deadline_seconds=SECONDS)]
        results.append((await route.list_root()).result)
        results.append((await route.probe()).result)
        results += await asyncio.gather(
            *(route.ship([b"a"], deadline_seconds=SECONDS) for _ in range(3)),
            route.count_deletions([], gone=[b"b"], deadline_seconds=SECONDS),
        )
        assert [result.message for result in results] == [""] * len(results)
        await route.close()

    asyncio.run(run())
    assert (tmp_path / "node" / "a").read_text() == "1"


def test_a_comparison_makes_room_for_itself(root: Path, single: RsyncDaemon) -> None:
    """A verify that meets our own waiting rsync lets go of that, and compares."""

    async def run() -> None:
        route = transport(single.node(), root)
        route.warm_up()
        await asyncio.sleep(0.1)
        verifier = Verifier(transport=route, clock=SystemClock())
        found = [
            difference.path
            async for difference in verifier.differences(checksum=False, deadline_seconds=SECONDS)
        ]
        assert verifier.verification.failed is None
        assert found == [b"a"]
        await route.close()

    asyncio.run(run())


def test_a_daemon_kept_busy_by_others_is_told_as_such(root: Path, single: RsyncDaemon) -> None:
    """Somebody else holds the only connection: the run fails, soon, in the daemon's words."""

    async def run() -> None:
        route = transport(single.node(), root)
        result = await route.ship([b"a"], deadline_seconds=SECONDS)
        assert (result.outcome, result.trouble) == (Outcome.NOTHING, Trouble.BUSY)
        assert "max connections" in result.message
        await route.close()

    argv = ["rsync", "-n", "--files-from=-", f"{root}/", f"{single.url}/"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as stranger:
        time.sleep(0.5)
        asyncio.run(run())
        stranger.communicate(timeout=10)


@pytest.mark.parametrize("kind", ["local", "daemon"])
def test_nothing_waits_where_warm_is_switched_off(root: Path, tmp_path: Path, kind: str) -> None:
    """`warm = false`: each Batch starts cold, and no connection is held in between."""

    async def run() -> None:
        node = daemon.node() if kind == "daemon" else local_node(tmp_path / "node")
        route = transport(replace(node, warm=False), root)
        for _ in range(3):
            route.warm_up()
            result = await route.ship([b"a"], deadline_seconds=SECONDS)
            assert (result.outcome, result.warm) == (Outcome.SHIPPED, False)
            assert route.warm_seconds is None
        await route.close()

    (tmp_path / "node").mkdir()
    with RsyncDaemon(workspace=tmp_path, path=tmp_path / "node") as daemon:
        asyncio.run(run())


def test_a_stream_of_batches_never_waits_for_a_connection(root: Path, tmp_path: Path) -> None:
    """Batch upon Batch: two wait ahead, so that each starts warm; afterwards one is left."""

    async def run() -> None:
        route = transport(daemon.node(), root)
        results = [await route.ship([b"a"], deadline_seconds=SECONDS) for _ in range(12)]
        assert [result.warm for result in results[3:]] == [True] * 9
        await few_children(1 + 2)
        await route.close()
        assert len(children()) == 1

    (tmp_path / "node").mkdir()
    with RsyncDaemon(workspace=tmp_path, path=tmp_path / "node") as daemon:
        asyncio.run(run())


def test_a_daemon_of_two_connections_gets_one_that_waits(root: Path, tmp_path: Path) -> None:
    """Turned away with a second one ahead, a stream goes on with one, and all arrives."""

    async def run() -> None:
        route = transport(daemon.node(), root)
        for number in range(12):
            (root / "a").write_text(f"text {number}")
            result = await route.ship([b"a"], deadline_seconds=SECONDS)
            assert (result.outcome, result.message) == (Outcome.SHIPPED, "")
        await few_children(1 + 1)
        await route.close()

    (tmp_path / "node").mkdir()
    lines = ("max connections = 2", f"lock file = {tmp_path / 'rsyncd.lock'}")
    node = tmp_path / "node"
    with RsyncDaemon(workspace=tmp_path, path=node, module_lines=lines) as daemon:
        asyncio.run(run())
    assert (node / "a").read_text() == "text 11"


async def few_children(most: int) -> None:
    """What was let go of has ended, too, in the end."""
    async with asyncio.timeout(10):
        while len(children()) > most:  # noqa: ASYNC110 (awaited are processes)
            await asyncio.sleep(0.02)


def children() -> list[str]:
    """Processes of ours that live: the daemon of the test, and rsyncs."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [pid for pid in file.read().split() if is_alive(pid)]


def is_alive(pid: str) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(") ")[2][0] != "Z"
