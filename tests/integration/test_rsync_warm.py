from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.clock import SystemClock
from shardsync.config.settings import NodeSettings
from shardsync.ship.outcome import Outcome
from shardsync.ship.process import whole_pieces
from shardsync.ship.root import RootGuard
from shardsync.ship.transport import NodeTransport
from tests.support.nodes import RsyncDaemon, Sshd, local_node
from tests.support.transports import SECONDS, FolderSource, transport


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree of one file."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "a").write_text("1")
    return folder


def test_a_warm_run_that_died_is_replaced_quietly(root: Path, tmp_path: Path) -> None:
    """After the daemon restarted, the next Batch arrives at once, by a cold start."""
    node = tmp_path / "node"
    node.mkdir()

    async def run() -> None:
        route = transport(daemon.node(), root)
        assert (await route.ship([b"a"], deadline_seconds=SECONDS)).outcome is Outcome.SHIPPED
        await asyncio.sleep(0.5)
        daemon.stop()
        daemon.start()
        (root / "a").write_text("2")
        result = await route.ship([b"a"], deadline_seconds=SECONDS)
        assert (result.outcome, result.warm, result.cut_off) == (Outcome.SHIPPED, False, True)
        await route.close()

    with RsyncDaemon(workspace=tmp_path, path=node) as daemon:
        asyncio.run(run())
    assert (node / "a").read_text() == "2"


@pytest.mark.fault("root-covered")
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_root_covered_while_it_waits_deletes_nothing(root: Path, tmp_path: Path) -> None:
    """The warm rsync reads the pinned root, though an empty file system covers its path."""
    node = tmp_path / "node"

    async def run() -> None:
        guard = RootGuard(path=os.fsencode(root))
        assert guard.pin() is None
        route = NodeTransport(
            node=local_node(node), source=guard, clock=SystemClock(), environment=dict(os.environ)
        )
        await route.ship([b"a"], deadline_seconds=SECONDS)
        await asyncio.sleep(0.2)
        cover(root)
        try:
            result = await route.ship([], gone=[b"a"], deadline_seconds=SECONDS)
            assert (result.outcome, result.warm) == (Outcome.SHIPPED, True)
            result = await route.ship([b"a"], deadline_seconds=SECONDS)
            assert result.outcome is Outcome.SHIPPED
        finally:
            uncover(root)
            await route.close()
            guard.release()

    asyncio.run(run())
    assert (node / "a").read_text() == "1"


def test_a_replaced_subtree_is_not_read_from_the_old_one(root: Path, tmp_path: Path) -> None:
    """A Node that takes a subtree gets what stands there now, not what the warm one waits in."""
    node = tmp_path / "node"

    async def run() -> None:
        guard = RootGuard(path=os.fsencode(root))
        assert guard.pin() is None
        settings = replace(local_node(node), subtree="news")
        route = NodeTransport(
            node=settings, source=guard, clock=SystemClock(), environment=dict(os.environ)
        )
        await route.ship([b"x"], deadline_seconds=SECONDS)
        await asyncio.sleep(0.2)
        (root / "news").rename(root / "old")
        (root / "news").mkdir()
        (root / "news" / "x").write_text("new")
        (root / "old" / "x").unlink()
        result = await route.ship([b"x"], deadline_seconds=SECONDS)
        assert (result.outcome, result.warm, result.cut_off) == (Outcome.SHIPPED, False, False)
        await route.close()
        guard.release()

    (root / "news").mkdir()
    (root / "news" / "x").write_text("old")
    asyncio.run(run())
    assert (node / "x").read_text() == "new"


def test_pause_lets_go_of_the_root(root: Path, tmp_path: Path) -> None:
    """A paused Node holds neither a process nor a descriptor of the tree."""

    async def run() -> None:
        route = transport(local_node(tmp_path / "node"), root)
        before = len(os.listdir("/proc/self/fd"))
        await route.ship([b"a"], deadline_seconds=SECONDS)
        assert waits(route)
        await route.pause()
        assert not waits(route)
        route.warm_up()
        assert not waits(route)
        assert len(os.listdir("/proc/self/fd")) == before
        assert children() == []
        route.resume()
        route.warm_up()
        assert waits(route)
        await route.close()

    asyncio.run(run())


def test_many_runs_leak_nothing(root: Path, tmp_path: Path) -> None:
    """Descriptors and processes are where they were after many runs, failed ones too."""

    async def run() -> None:
        good = transport(local_node(tmp_path / "node"), root)
        bad = transport(local_node(tmp_path / "no" / "node"), root)
        await good.ship([b"a"], deadline_seconds=SECONDS)
        await good.close()
        before = len(os.listdir("/proc/self/fd"))
        good.resume()
        for _ in range(15):
            await good.ship([b"a"], deadline_seconds=SECONDS)
            await bad.ship([b"a"], deadline_seconds=SECONDS)
        await good.close()
        await bad.close()
        assert len(os.listdir("/proc/self/fd")) == before
        assert children() == []

    asyncio.run(run())


def test_cancelled_ships_leave_no_process(root: Path, tmp_path: Path) -> None:
    """A ship that is cancelled ends its rsync before it is over."""
    node = tmp_path / "node"
    node.mkdir()

    async def run() -> None:
        route = transport(daemon.node(), root)
        before = children()
        daemon.signal(signal.SIGSTOP)
        task = asyncio.create_task(route.ship([b"a"], deadline_seconds=SECONDS))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await route.close()
        assert children() == before
        daemon.signal(signal.SIGCONT)

    with RsyncDaemon(workspace=tmp_path, path=node) as daemon:
        asyncio.run(run())


KILLED = """
import asyncio, os, sys
from pathlib import Path
from tests.support.nodes import local_node
from tests.support.transports import transport

async def run():
    route = transport(local_node(Path(sys.argv[2])), Path(sys.argv[1]))
    route.warm_up()
    await asyncio.sleep(0.3)
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    print(pids.strip(), flush=True)
    await asyncio.sleep(60)

asyncio.run(run())
"""


@pytest.mark.fault("sync-killed")
def test_a_killed_sync_process_leaves_no_rsync(root: Path, tmp_path: Path) -> None:
    """After kill -9 the waiting rsync ends by itself, having changed nothing."""
    node = tmp_path / "node"
    node.mkdir()
    (node / "foreign").write_text("stays")
    parent = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root), str(node)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait(timeout=10)
    limit = time.monotonic() + 10
    while alive(pid) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not alive(pid)
    assert os.listdir(node) == ["foreign"]


class LaterClock(SystemClock):
    """The machine's clock, moved on by hand."""

    def __init__(self) -> None:
        self.later_seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.later_seconds


@pytest.mark.parametrize("kind", ["ssh", "local"])
def test_idle_ssh_nodes_are_spared_logins(root: Path, tmp_path: Path, kind: str) -> None:
    """A warm rsync is renewed for ever on a plain folder, over ssh until it was idle for long."""
    clock = LaterClock()

    async def run(settings: NodeSettings) -> list[bool]:
        route = NodeTransport(
            node=settings,
            source=FolderSource(root),
            clock=clock,
            environment=dict(os.environ),
        )
        await route.ship([b"a"], deadline_seconds=SECONDS)
        states = [waits(route)]
        for later_seconds in (50.0, 1_000.0):
            clock.later_seconds = later_seconds
            route.warm_up()
            age = route.warm_seconds
            states.append(age is not None and age < 40)
        await route.close()
        return states

    if kind == "local":
        states = asyncio.run(run(local_node(tmp_path / "node")))
    else:
        with Sshd(workspace=tmp_path) as sshd:
            states = asyncio.run(run(sshd.node(tmp_path / "node")))
    assert states == [True, True, kind == "local"]


def test_lists_are_written_in_whole_entries() -> None:
    """No piece ends within a name, and each is small enough for the kernel to take at once."""
    entries = [b"/" + b"x" * (number % 900) + b"\0" for number in range(500)]
    pieces = list(whole_pieces(entries))
    assert b"".join(pieces) == b"".join(entries)
    assert len(pieces) > 10
    assert all(len(piece) <= select.PIPE_BUF for piece in pieces)
    assert all(piece.endswith(b"\0") for piece in pieces)


def waits(route: NodeTransport) -> bool:
    return route.warm_seconds is not None


def cover(path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "test", str(path)], check=True)


def uncover(path: Path) -> None:
    subprocess.run(["umount", "-l", str(path)], check=True)


def children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False
