from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.clock import SystemClock
from shardsync.config.settings import NodeSettings, Target, TargetKind
from shardsync.ship.command import Purpose, RsyncCommand
from shardsync.ship.messages import FailureKind
from shardsync.ship.outcome import Outcome, RunResult, Trouble
from shardsync.ship.rsync import RsyncRun
from tests.support.immutable import immutable
from tests.support.nodes import RsyncDaemon, Sshd, free_port, local_node
from tests.support.old_rsync import takes_missing_args
from tests.support.transports import SECONDS, snapshot, transport

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree of a few paths."""
    folder = tmp_path / "root"
    (folder / "d").mkdir(parents=True)
    for name in ("a", "b", "d/x", "d/y"):
        (folder / name).write_text(name)
    return folder


def done(result: Coroutine[None, None, RunResult]) -> RunResult:
    return asyncio.run(result)


async def ship(
    node: NodeSettings,
    root: Path,
    paths: list[bytes],
    gone: list[bytes] | None = None,
    *,
    filters: tuple[str, ...] = (),
    max_delete: int | None = None,
    seconds: float = SECONDS,
    program: str = "rsync",
) -> RunResult:
    route = transport(node, root, filters=filters, program=program)
    result = await route.ship(
        paths, gone=gone or [], deadline_seconds=seconds, max_delete=max_delete
    )
    await route.close()
    return result


def test_a_missing_parent_of_the_target_is_told(root: Path, tmp_path: Path) -> None:
    """Only the last folder of a target is made; without its parent the destination is at fault."""
    assert done(ship(local_node(tmp_path / "made"), root, [b"a"])).outcome is Outcome.SHIPPED
    result = done(ship(local_node(tmp_path / "no" / "such"), root, [b"a"]))
    assert (result.exit_code, result.trouble) == (11, Trouble.DESTINATION)
    assert "No such file or directory" in result.message


@needs_root
@pytest.mark.root
def test_a_full_disk_is_told(root: Path, tmp_path: Path) -> None:
    """A Node without space counts for nothing, and says why."""
    node = tmp_path / "node"
    node.mkdir()
    (root / "big").write_bytes(os.urandom(300_000))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "test", str(node)], check=True)
    try:
        result = done(ship(local_node(node), root, [b"a", b"big", b"d/x"]))
    finally:
        subprocess.run(["umount", str(node)], check=True)
    assert result.trouble is Trouble.DISK_FULL
    assert b"big" in result.failed or result.outcome is Outcome.NOTHING


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("kind", ["local", "daemon"])
def test_a_file_that_cannot_be_put_into_place_fails_alone(
    root: Path, tmp_path: Path, kind: str
) -> None:
    """One run: it was received whole, and rename(2) is refused. What is beside it is shipped."""
    folder = tmp_path / "node"
    shutil.copytree(root, folder)
    with contextlib.ExitStack() as stack:
        node = local_node(folder)
        if kind == "daemon":
            node = stack.enter_context(RsyncDaemon(workspace=tmp_path, path=folder)).node()
        stack.enter_context(immutable(folder / "d" / "x"))
        result = done(ship(node, root, [b"a", b"d/x", b"d/y"]))
    assert (result.exit_code, result.outcome) == (23, Outcome.PARTIAL)
    assert list(result.failed) == [b"d/x"]
    assert "not permitted" in result.failed[b"d/x"].reason


def test_a_daemon_that_is_down_or_refuses_is_told(root: Path, tmp_path: Path) -> None:
    """Down, wrong password, unknown module, no connections left: each has its name."""
    node = tmp_path / "node"
    node.mkdir()
    daemon = RsyncDaemon(
        workspace=tmp_path,
        path=node,
        user="push",
        password="right",
        module_lines=("max connections = 1", f"lock file = {tmp_path}/lock"),
    )
    with daemon:
        good = daemon.node()
        assert done(ship(good, root, [b"a"])).outcome is Outcome.SHIPPED
        unknown = replace(good, target=replace(good.target, path="other"))
        assert done(ship(unknown, root, [b"a"])).exit_code == 5
        wrong = tmp_path / "wrong"
        wrong.write_text("wrong\n")
        wrong.chmod(0o600)
        result = done(ship(replace(good, password_file=wrong), root, [b"a"]))
        assert (result.exit_code, result.trouble) == (5, Trouble.AUTHENTICATION)
    result = done(ship(good, root, [b"a"]))
    assert (result.exit_code, result.trouble) == (10, Trouble.UNREACHABLE)


def test_ssh_trouble_is_told(root: Path, tmp_path: Path) -> None:
    """No ssh there, and no rsync there, are told apart."""
    node = NodeSettings(
        name="web3",
        tree="main",
        target=Target(kind=TargetKind.SSH, host="127.0.0.1", path=str(tmp_path / "node")),
        ssh_options=("-F", "/dev/null", "-p", str(free_port())),
    )
    result = done(ship(node, root, [b"a"]))
    assert result.trouble is Trouble.SSH
    assert "Connection refused" in result.message
    with Sshd(workspace=tmp_path) as sshd:
        there = replace(
            sshd.node(tmp_path / "node"), rsync_options=("--rsync-path=/no/such/rsync",)
        )
        result = done(ship(there, root, [b"a"]))
    assert result.trouble is Trouble.RSYNC_MISSING


def test_our_own_mistakes_are_told(root: Path, tmp_path: Path) -> None:
    """An option that rsync does not know, and no rsync here at all, are our own fault."""
    node = replace(local_node(tmp_path / "node"), rsync_options=("--no-such-option",))
    result = done(ship(node, root, [b"a"]))
    assert (result.exit_code, result.trouble) == (1, Trouble.INVOCATION)
    result = done(ship(local_node(tmp_path / "node"), root, [b"a"], program="/no/such/rsync"))
    assert result.outcome is Outcome.NOTHING


def test_a_target_that_cannot_be_a_folder_is_told(root: Path, tmp_path: Path) -> None:
    """A plain file stands where the target should be (3), or a module may only be read (1)."""
    (tmp_path / "node").write_text("a file")
    result = done(ship(local_node(tmp_path / "node"), root, [b"a", b"b"]))
    assert (result.exit_code, result.trouble) == (3, Trouble.INVOCATION)
    assert (tmp_path / "node").read_text() == "a file"
    with RsyncDaemon(
        workspace=tmp_path, path=tmp_path, module_lines=("read only = yes",)
    ) as daemon:
        result = done(ship(daemon.node(), root, [b"a"]))
    assert (result.outcome, result.trouble) == (Outcome.NOTHING, Trouble.INVOCATION)
    assert "read only" in result.message


def test_a_login_that_may_not_run_rsync_is_told(root: Path, tmp_path: Path) -> None:
    """A forced command that refuses: 12, nothing counts, and what it said is kept."""
    with Sshd(workspace=tmp_path, forced_command="echo no entry here >&2; exit 1") as sshd:
        result = done(ship(sshd.node(tmp_path / "node"), root, [b"a"]))
    assert (result.exit_code, result.outcome) == (12, Outcome.NOTHING)
    assert result.trouble is Trouble.PROTOCOL
    assert "no entry here" in " ".join([result.message, *result.unattributed])


@pytest.mark.parametrize(
    ("number", "codes"), [(signal.SIGTERM, {20}), (signal.SIGKILL, {-9}), (signal.SIGINT, {20})]
)
def test_a_killed_rsync_counts_for_nothing(
    root: Path, tmp_path: Path, number: signal.Signals, codes: set[int]
) -> None:
    """Ended half-way by anybody: its trouble is called by its name."""
    (root / "big").write_bytes(os.urandom(2_000_000))
    node = replace(local_node(tmp_path / "node"), rsync_options=("--bwlimit=200",))

    async def killed() -> RunResult:
        running = asyncio.create_task(ship(node, root, [b"big"]))
        while not (pids := rsyncs_of_mine()):  # noqa: ASYNC110 (nothing tells of a process)
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        os.kill(min(pids), number)
        return await running

    result = done(killed())
    assert result.exit_code in codes
    assert (result.outcome, result.trouble) == (Outcome.NOTHING, Trouble.KILLED)


def rsyncs_of_mine() -> list[int]:
    found = subprocess.run(
        ["pgrep", "-x", "-P", str(os.getpid()), "rsync"], check=False, capture_output=True
    )
    return [int(pid) for pid in found.stdout.split()]


def test_a_silent_node_times_out(root: Path, tmp_path: Path) -> None:
    """No I/O for rsync's own timeout (30), no connection within --contimeout (35)."""
    node = tmp_path / "node"
    node.mkdir()
    with RsyncDaemon(workspace=tmp_path, path=node) as daemon:
        settings = replace(daemon.node(), rsync_options=("--timeout=1",))
        daemon.signal(signal.SIGSTOP)
        result = done(ship(settings, root, [b"a"]))
        daemon.signal(signal.SIGCONT)
    assert (result.exit_code, result.trouble) == (30, Trouble.TIMEOUT)
    with socket.socket() as deaf, contextlib.ExitStack() as callers:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
        target = replace(settings.target, port=deaf.getsockname()[1])
        settings = replace(settings, target=target, rsync_options=("--contimeout=1",))
        result = done(ship(settings, root, [b"a"]))
    assert (result.exit_code, result.trouble) == (35, Trouble.TIMEOUT)


def test_a_lost_source_is_told(root: Path, tmp_path: Path) -> None:
    """Without a root nothing is started, and nothing is deleted."""
    node = tmp_path / "node"
    done(ship(local_node(node), root, [b"a"]))
    shutil.rmtree(root)
    result = done(ship(local_node(node), root, [], [b"a"]))
    assert (result.exit_code, result.trouble) == (None, Trouble.SOURCE)
    assert (node / "a").read_text() == "a"


@pytest.fixture
def unprivileged(tmp_path: Path) -> NodeSettings:
    """A plain-folder Node that rsync works on as the user `nobody`."""
    node = tmp_path / "node"
    node.mkdir()
    for folder in (*list(tmp_path.parents)[:-1], tmp_path):
        if folder.owner() == "root" and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o055)
    node.chmod(0o777)
    return replace(local_node(node), run_as="nobody")


@pytest.mark.fault("source-closed")
@needs_root
@pytest.mark.root
def test_unreadable_and_unwritable_paths_fail_alone(
    root: Path, unprivileged: NodeSettings, tmp_path: Path
) -> None:
    """As another user: what cannot be read here or written there fails by name, the rest ships."""
    node = tmp_path / "node"
    (root / "a").chmod(0o600)
    (node / "d").mkdir(mode=0o755)
    (node / "old").mkdir(mode=0o755)
    (node / "old" / "f").write_text("1")
    result = done(ship(unprivileged, root, [b"a", b"b", b"d/x", b"d/y"], [b"old"]))
    assert (result.exit_code, result.outcome) == (23, Outcome.PARTIAL)
    assert sorted(result.failed) == [b"a", b"d", b"d/x", b"d/y", b"old"]
    assert result.failed[b"a"].reason == "Permission denied (13)"
    assert (node / "b").read_text() == "b"
    assert (node / "b").owner() == "nobody"


def test_the_brake_stops_deletions(root: Path, tmp_path: Path) -> None:
    """With --max-delete no deletion is believed, locally (25) and through a daemon (0)."""
    node = tmp_path / "node"
    for name in ("gone", "other"):
        (node / name).mkdir(parents=True)
        for number in range(50):
            (node / name / str(number)).write_text("")
    result = done(ship(local_node(node), root, [b"a"], [b"gone"], max_delete=10))
    assert (result.exit_code, result.outcome) == (25, Outcome.PARTIAL)
    assert list(result.failed) == [b"gone"]
    assert len(os.listdir(node / "gone")) == 40
    with RsyncDaemon(workspace=tmp_path, path=node) as daemon:
        result = done(ship(daemon.node(), root, [b"a"], [b"other"], max_delete=10))
    assert result.outcome is Outcome.PARTIAL
    assert list(result.failed) == [b"other"]
    assert (node / "other").is_dir()


@pytest.mark.parametrize("kind", ["local", "daemon"])
def test_the_brake_leaves_every_listed_deletion_open(
    root: Path, tmp_path: Path, kind: str
) -> None:
    """Nothing tells which files of a list the brake spared: all are to be tried again."""
    node = tmp_path / "node"
    node.mkdir()
    gone = []
    for number in range(20):
        (node / f"gone{number}").write_text("")
        gone.append(b"gone%d" % number)
    if kind == "local":
        result = done(ship(local_node(node), root, [b"a"], gone, max_delete=5))
    else:
        with RsyncDaemon(workspace=tmp_path, path=node) as daemon:
            result = done(ship(daemon.node(), root, [b"a"], gone, max_delete=5))
    assert result.outcome is Outcome.PARTIAL
    assert sorted(result.failed) == sorted(gone)
    assert len(os.listdir(node)) == 16


@pytest.mark.parametrize("kind", ["local", "daemon"])
def test_excluded_files_survive_the_deletion_of_their_folder(
    root: Path, tmp_path: Path, kind: str
) -> None:
    """What is excluded is never touched, and the folder that keeps it is told as not empty."""
    node = tmp_path / "node"
    (node / "gone").mkdir(parents=True)
    (node / "gone" / "x.local").write_text("keep")
    (node / "gone" / "x").write_text("")
    filters = ("--exclude=*.local",)
    if kind == "local":
        result = done(ship(local_node(node), root, [b"a"], [b"gone"], filters=filters))
    else:
        with RsyncDaemon(workspace=tmp_path, path=node) as daemon:
            result = done(ship(daemon.node(), root, [b"a"], [b"gone"], filters=filters))
    assert os.listdir(node / "gone") == ["x.local"]
    assert result.outcome is Outcome.PARTIAL
    assert result.failed[b"gone"].kind is FailureKind.NOT_EMPTY


def test_without_delete_nothing_makes_way(root: Path, tmp_path: Path) -> None:
    """A Node with `delete = false` keeps everything, also where a folder stands in the way."""
    node = tmp_path / "node"
    (node / "a").mkdir(parents=True)
    (node / "a" / "inside").write_text("1")
    (node / "gone").write_text("1")
    settings = replace(local_node(node), delete=False)
    result = done(ship(settings, root, [b"a", b"b"], [b"gone"]))
    assert result.outcome is Outcome.PARTIAL
    assert list(result.failed) == [b"a"]
    assert (node / "a" / "inside").exists()
    assert (node / "gone").exists()
    assert (node / "b").read_text() == "b"


def test_vanished_paths_are_told_and_the_rest_ships(root: Path, tmp_path: Path) -> None:
    """A listed path whose folder vanished (24; 0 where old receivers have it passed over)."""
    result = done(ship(local_node(tmp_path / "node"), root, [b"a", b"nope/x"]))
    told = (24, (b"nope",)) if takes_missing_args() else (0, ())
    assert (result.exit_code, result.vanished) == told
    assert result.outcome is Outcome.SHIPPED
    assert (tmp_path / "node" / "a").exists()


@pytest.mark.fault("path-too-long")
def test_a_path_that_rsync_cannot_take_fails_alone(root: Path, tmp_path: Path) -> None:
    """A path longer than PATH_MAX is not even listed, the others are."""
    long = b"/".join([b"d" * 200] * 25)
    result = done(ship(local_node(tmp_path / "node"), root, [b"a", long]))
    assert list(result.failed) == [long]
    assert result.outcome is Outcome.PARTIAL
    assert (tmp_path / "node" / "a").exists()


@pytest.mark.fault("node-stalls")
def test_a_stalled_node_is_ended_at_the_deadline(root: Path, tmp_path: Path) -> None:
    """A Node that stops in its tracks costs the deadline, and leaves no rsync behind."""
    node = tmp_path / "node"
    node.mkdir()
    with RsyncDaemon(workspace=tmp_path, path=node) as daemon:
        daemon.signal(signal.SIGSTOP)
        result = done(ship(daemon.node(), root, [b"a"], seconds=1.5))
        daemon.signal(signal.SIGCONT)
    assert (result.outcome, result.trouble) == (Outcome.NOTHING, Trouble.DEADLINE)
    assert result.seconds < 10


async def rogue(script: str, seconds: float = SECONDS, *, paused: bool = False) -> RunResult:
    """A run in which the program is not rsync at all but what a hostile Node could make of it."""
    descriptor = os.open("/", os.O_PATH)
    run = RsyncRun(
        command=RsyncCommand(
            argv=("/bin/sh", "-c", script), environment={"PATH": "/usr/bin:/bin"}
        ),
        purpose=Purpose.BATCH,
        target=Target(kind=TargetKind.LOCAL, path="/nowhere"),
        source_fd=descriptor,
        clock=SystemClock(),
    )
    run.start()
    os.close(descriptor)
    if paused:
        run.pause()
    return await run.finish(paths=[b"a"], deadline_seconds=seconds)


@pytest.mark.fault("node-babbles")
@pytest.mark.parametrize(
    "script",
    [
        "exec yes 'endless chatter of a node, line by line'",
        "exec yes 'endless chatter of a node, line by line' >&2",
        "exec tr '\\0' x < /dev/zero",
    ],
)
def test_endless_output_is_cut_off(script: str) -> None:
    """A Node that never stops talking is ended, with little memory and no effect believed."""
    result = done(rogue(script, seconds=20))
    assert (result.outcome, result.trouble) == (Outcome.NOTHING, Trouble.DEADLINE)
    assert len(result.unattributed) <= 50


@pytest.mark.parametrize("paused", [False, True])
def test_the_last_words_of_a_run_are_heard(*, paused: bool) -> None:
    """All that its pipes hold, also where nobody listened as it ended: what is not heard to have
    failed counts as shipped.
    """
    script = (
        "cat > /dev/null; for n in $(seq 6000); do echo '@send|<f+++++++++|1|1|some/path'; done;"
        " echo 'rsync: [sender] something that is not known' >&2; exit 23"
    )
    result = done(rogue(script, paused=paused))
    assert (result.exit_code, result.sent) == (23, 6_000)
    assert result.unattributed == ("rsync: [sender] something that is not known",)


def test_children_are_ended_too(tmp_path: Path) -> None:
    """Whatever a run started is ended with it, also what ignores SIGTERM."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 600 & echo $! > {pids}; sleep 600"
    result = done(rogue(script, seconds=1.0))
    assert result.trouble is Trouble.DEADLINE
    pid = int(pids.read_text())
    limit = time.monotonic() + 5
    while running(pid) and time.monotonic() < limit:
        time.sleep(0.01)
    assert not running(pid)


def test_pipes_kept_open_by_a_grandchild_do_not_hold_us_up(tmp_path: Path) -> None:
    """An ssh master that keeps stderr open after the run is not waited for."""
    pids = tmp_path / "pids"
    result = done(rogue(f"cat > /dev/null; setsid sleep 20 & echo $! > {pids}; exit 0"))
    os.kill(int(pids.read_text()), signal.SIGKILL)
    assert result.exit_code == 0
    assert result.seconds < 10


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_many_failing_paths_are_all_named(root: Path, tmp_path: Path) -> None:
    """Thousands of failures are attributed one by one, and the rest counts as shipped."""
    node = tmp_path / "node"
    paths = []
    for number in range(2_000):
        (root / f"f{number}").write_text("")
        paths.append(b"f%d" % number)
        if number % 2:
            (node / f"f{number}").mkdir(parents=True)
            (node / f"f{number}" / "x").write_text("")
    settings = replace(local_node(node), delete=False)
    result = done(ship(settings, root, paths))
    assert result.outcome is Outcome.PARTIAL
    assert len(result.failed) == 1_000
    assert len([name for name in snapshot(node) if b"/" not in name]) == 2_000
