"""The ssh connection that all runs to a Node share, with a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.config.settings import NodeSettings
from shardsync.ship.outcome import Outcome
from shardsync.ship.transport import NodeTransport
from tests.support.nodes import Sshd, local_node
from tests.support.transports import SECONDS, transport


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree of one file."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "a").write_text("1")
    return folder


@contextlib.asynccontextmanager
async def shared(node: NodeSettings, root: Path) -> AsyncIterator[NodeTransport]:
    """A transport whose master answers, and whose warm rsync shares it."""
    route = transport(node, root)
    try:
        assert (await route.ship([b"a"], deadline_seconds=SECONDS)).outcome is Outcome.SHIPPED
        await until(lambda: route.is_shared)
        for _ in range(2):  # the warm one may have logged in by itself, too
            await route.ship([b"a"], deadline_seconds=SECONDS)
        yield route
    finally:
        await route.close()


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 (what is awaited is another process)
            await asyncio.sleep(0.02)


def logins(sshd: Sshd) -> int:
    return sshd.log_text().count("Accepted publickey")


def test_runs_share_one_login(root: Path, tmp_path: Path) -> None:
    """Once the master is there, ten Batches and a comparison cost not one login more."""

    async def run() -> None:
        async with shared(sshd.node(tmp_path / "node"), root) as route:
            before = logins(sshd)
            for number in range(10):
                (root / "a").write_text(f"text {number}")
                result = await route.ship([b"a"], deadline_seconds=SECONDS)
                assert result.outcome is Outcome.SHIPPED
            async with route.compare([b""], deadline_seconds=SECONDS) as comparison:
                assert [difference.path async for difference in comparison] == []
            assert logins(sshd) == before

    with Sshd(workspace=tmp_path, log_level="INFO") as sshd:
        asyncio.run(run())
    assert (tmp_path / "node" / "a").read_text() == "text 9"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_lost_master_is_replaced(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Killed or stopped while nothing runs: the next Batch arrives, and a new one takes over."""

    async def run() -> None:
        async with shared(sshd.node(tmp_path / "node"), root) as route:
            lost = route.master_pid
            assert lost is not None
            os.kill(lost, number)
            (root / "a").write_text("2")
            result = await route.ship([b"a"], deadline_seconds=SECONDS)
            assert result.outcome is Outcome.SHIPPED
            await until(lambda: route.is_shared and route.master_pid != lost)
            assert str(lost) not in children()

    with Sshd(workspace=tmp_path) as sshd:
        asyncio.run(run())
    assert (tmp_path / "node" / "a").read_text() == "2"


@pytest.mark.fault("node-down")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_cold_run_survives_its_master(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Lost in the middle of a transfer: the same run is made again, and told as one success."""

    async def run() -> None:
        node = replace(sshd.node(tmp_path / "node"), bandwidth="1000KiB")
        async with shared(node, root) as route:
            lost = route.master_pid
            assert lost is not None
            task = asyncio.create_task(
                route.ship([b"big"], max_delete=1, deadline_seconds=2 * SECONDS)
            )
            await asyncio.sleep(0.7)
            assert not task.done()
            os.kill(lost, number)
            result = await task
            assert (result.outcome, result.warm) == (Outcome.SHIPPED, False)

    (root / "big").write_bytes(os.urandom(3_000_000))
    with Sshd(workspace=tmp_path) as sshd:
        asyncio.run(run())
    assert (tmp_path / "node" / "big").read_bytes() == (root / "big").read_bytes()


@pytest.mark.fault("node-down")
def test_a_restarted_sshd_is_reached_again(root: Path, tmp_path: Path) -> None:
    """After an outage with all sessions gone, Batches arrive and the connection is shared anew."""

    async def run() -> None:
        async with shared(sshd.node(tmp_path / "node"), root) as route:
            lost = route.master_pid
            sshd.stop()
            assert lost is not None
            os.kill(lost, signal.SIGKILL)
            refused = await route.ship([b"a"], deadline_seconds=SECONDS)
            assert refused.outcome is Outcome.NOTHING
            sshd.start()
            (root / "a").write_text("2")
            result = await route.ship([b"a"], deadline_seconds=SECONDS)
            assert result.outcome is Outcome.SHIPPED
            await until(lambda: route.is_shared)

    with Sshd(workspace=tmp_path) as sshd:
        asyncio.run(run())
    assert (tmp_path / "node" / "a").read_text() == "2"


def test_a_pause_ends_it_with_its_socket(root: Path, tmp_path: Path) -> None:
    """A paused Node holds no connection, no process, no folder for a socket."""

    async def run() -> None:
        async with shared(sshd.node(tmp_path / "node"), root) as route:
            assert len(folders()) == 1
            await route.pause()
            assert route.master_pid is None
            assert folders() == []
            assert children() == [str(sshd.pid)]
            assert (await route.ship([b"a"], deadline_seconds=SECONDS)).outcome is Outcome.SHIPPED
            assert folders() == []
            route.resume()
            await route.ship([b"a"], deadline_seconds=SECONDS)
            await until(lambda: route.is_shared)

    with Sshd(workspace=tmp_path) as sshd:
        asyncio.run(run())
    assert folders() == []


@pytest.mark.parametrize(
    "change",
    [
        {"warm": False},
        {"ssh_options": ("-o", "ControlPath=none")},
        {"ssh_options": ("-oControlMaster=no",)},
        {"ssh_options": ("-S", "none")},
    ],
)
def test_settings_keep_us_from_sharing(
    root: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    """`warm = false`, or `ssh_options` of the operator's own about sharing: no master of ours."""

    async def run() -> None:
        node = sshd.node(tmp_path / "node")
        own = change.get("ssh_options", ())
        assert isinstance(own, tuple)
        given = {**change, "ssh_options": (*own, *node.ssh_options)}
        route = transport(replace(node, **given), root)  # type: ignore[arg-type]  # by name
        result = await route.ship([b"a"], deadline_seconds=SECONDS)
        assert result.outcome is Outcome.SHIPPED
        assert route.master_pid is None
        await route.close()

    with Sshd(workspace=tmp_path) as sshd:
        asyncio.run(run())


def test_a_server_that_takes_one_session_still_gets_everything(root: Path, tmp_path: Path) -> None:
    """`MaxSessions 1`: a run that cannot share logs in by itself, and that is no failure."""

    async def run() -> None:
        async with shared(sshd.node(tmp_path / "node"), root) as route:
            for number in range(3):
                (root / "a").write_text(f"text {number}")
                result = await route.ship([b"a"], deadline_seconds=SECONDS)
                assert (result.outcome, result.unattributed) == (Outcome.SHIPPED, ())

    with Sshd(workspace=tmp_path, lines=("MaxSessions 1",)) as sshd:
        asyncio.run(run())
    assert (tmp_path / "node" / "a").read_text() == "text 2"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the user")
def test_another_user_shares_its_own_login(root: Path, tmp_path: Path) -> None:
    """With `run_as` the master runs as that user, its socket in a folder of that user's alone."""
    user = pwd.getpwnam("www-data")
    folder = tmp_path / "node"

    async def run() -> None:
        key = Path(sshd.ssh_options[5])
        own = tmp_path / "key"
        shutil.copyfile(key, own)
        os.chown(own, user.pw_uid, user.pw_gid)
        own.chmod(0o600)
        options = [str(own) if word == str(key) else word for word in sshd.ssh_options]
        options[-3] = "UserKnownHostsFile=/dev/null"
        node = replace(sshd.node(folder), run_as="www-data", ssh_options=tuple(options))
        node = replace(node, target=replace(node.target, user="root"))
        async with shared(node, root) as route:
            pid = route.master_pid
            assert os.stat(f"/proc/{pid}").st_uid == user.pw_uid
            (socket_folder,) = folders()
            assert socket_folder.stat().st_uid == user.pw_uid
            assert socket_folder.stat().st_mode & 0o777 == 0o700
            (root / "a").write_text("2")
            result = await route.ship([b"a"], deadline_seconds=SECONDS)
            assert result.outcome is Outcome.SHIPPED

    for part in (tmp_path, *tmp_path.parents[:3]):
        if os.stat(part).st_uid == os.geteuid() and part != Path("/tmp"):
            part.chmod(part.stat().st_mode | 0o011)
    root.chmod(0o755)
    with Sshd(workspace=tmp_path) as sshd:
        asyncio.run(run())
    assert (folder / "a").read_text() == "2"


def test_folders_of_killed_processes_are_swept(root: Path, tmp_path: Path) -> None:
    """What a killed process left goes when the next master begins; a stranger's stays."""
    place = Path("/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/tmp"))
    left = place / "shardsync-ssh-4194999-test"
    other = place / f"shardsync-ssh-{os.getppid()}-test"
    left.mkdir()
    other.mkdir()

    async def run() -> None:
        async with shared(sshd.node(tmp_path / "node"), root):
            assert not left.exists()
            assert other.exists()

    try:
        with Sshd(workspace=tmp_path) as sshd:
            asyncio.run(run())
    finally:
        other.rmdir()


KILLED = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from tests.support.nodes import local_node
from tests.support.transports import transport
from shardsync.config.settings import Target, TargetKind

async def run():
    root, node, *options = sys.argv[1:]
    target = Target(kind=TargetKind.SSH, host="127.0.0.1", path=node)
    far = replace(local_node(Path(node)), target=target, ssh_options=tuple(options))
    route = transport(far, Path(root))
    await route.ship([b"a"], deadline_seconds=30)
    while not route.is_shared:
        await asyncio.sleep(0.02)
    print(route.master_pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(run())
"""


@pytest.mark.fault("sync-killed")
def test_a_killed_sync_process_leaves_no_master(root: Path, tmp_path: Path) -> None:
    """After kill -9 the connection ends by itself."""
    with Sshd(workspace=tmp_path) as sshd:
        parent = subprocess.Popen(
            [sys.executable, "-c", KILLED, root, tmp_path / "node", *sshd.ssh_options],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert parent.stdout is not None
        with parent.stdout:
            pid = int(parent.stdout.readline())
        master = os.pidfd_open(pid)
        try:
            parent.kill()
            parent.wait(timeout=10)
            assert select.select([master], [], [], 20)[0]
        finally:
            os.close(master)


def test_other_kinds_have_none(root: Path, tmp_path: Path) -> None:
    """A plain folder needs no login."""

    async def run() -> None:
        route = transport(local_node(tmp_path / "node"), root)
        await route.ship([b"a"], deadline_seconds=SECONDS)
        assert route.master_pid is None
        assert not route.is_shared
        await route.close()

    asyncio.run(run())


def folders() -> list[Path]:
    """Folders for sockets that this process has made."""
    places = {Path("/run"), Path("/tmp"), Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp"))}
    name = f"shardsync-ssh-{os.getpid()}-*"
    return [folder for place in places for folder in place.glob(name)]


def children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()
