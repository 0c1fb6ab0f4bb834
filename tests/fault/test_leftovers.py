"""What killed and cut off rsyncs leave on a Node is swept; a user's file of that form never is."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shardsync.config.settings import NodeSettings, Target, TargetKind
from shardsync.journal.requests import RequestKind
from shardsync.model import NodeState
from tests.support.compare import differences
from tests.support.nodes import RsyncDaemon, local_node
from tests.support.shipping import KEY, ask, fill, killed_at_exit, names_below, newest, row_of
from tests.support.sync import Instance, Running, run, running

IS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")
SLOW = ("--bwlimit=400",)


def _leftovers(folder: Path) -> list[str]:
    return [name for name in names_below(folder) if ".big." in name]


def _kill_rsyncs() -> None:
    """SIGKILL to all rsyncs that this process started."""
    found = subprocess.run(
        ["pgrep", "-x", "-P", str(os.getpid()), "rsync"], check=False, capture_output=True
    )
    for pid in found.stdout.split():
        children = subprocess.run(["pgrep", "-P", pid], check=False, capture_output=True)
        grandchildren = subprocess.run(
            ["pgrep", "-P", b",".join(children.stdout.split()) or b"0"],
            check=False,
            capture_output=True,
        )
        for each in (*grandchildren.stdout.split(), *children.stdout.split(), pid):
            os.kill(int(each), signal.SIGKILL)


async def _half_sent(sync: Running, tree: Path, node: Path) -> None:
    """A file of 2 MB is under way to the Node, at 400 kB/s."""
    (tree / "d/big").write_bytes(os.urandom(2_000_000))
    sync.instance.changed("d/big")
    await sync.until(lambda: bool(_leftovers(node)))


@pytest.mark.fault("node-killed")
@pytest.mark.parametrize("owned", [True, False])
def test_a_node_that_dies_half_way_is_swept(tmp_path: Path, *, owned: bool) -> None:
    """SIGKILL of the daemon leaves a temporary file; it is gone once the Node follows again.
    What users own stays: in the tree, on the Node, and beside what is sent.
    """
    instance = Instance(tmp_path)
    tree, module = instance.tree, tmp_path / "module"
    module.mkdir()
    fill(tree, {"d/big": "small", "d/.big.AbCdE1": "the tree's", "d/index.html": "1"})
    foreign = ["d/.index.html.AbCdEf", "d/.big.backup", "d/.big.XyZ123"]
    if not owned:
        fill(module, dict.fromkeys(foreign, "a user's"))

    async def work(daemon: RsyncDaemon) -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert row_of(sync).owned is owned
            if not owned:
                # Of a file that nobody sends now: put there by a user since.
                fill(module, {"d/.index.html.ZyXwV9": "a user's"})
            before = names_below(module)
            await _half_sent_beside(sync, before)
            daemon.signal(signal.SIGKILL)
            daemon.stop()
            left = set(names_below(module)) - set(before)
            assert len(left) == 1
            await sync.until(lambda: row_of(sync).state is NodeState.BACKING_OFF)
            fill(tree, {"d/big": "small again"})
            instance.changed("d/big")
            daemon.start()
            await sync.followed(seconds=60)
            # One in two hundred has no capital and no digit: it might be a user's word.
            doubtful = {name for name in left if not owned and name[-6:].islower()}
            assert set(names_below(module)) - doubtful == set(before)
            assert (module / "d/big").read_text() == "small again"

    async def _half_sent_beside(sync: Running, before: list[str]) -> None:
        """As `_half_sent`, among files of that form."""
        (tree / "d/big").write_bytes(os.urandom(2_000_000))
        sync.instance.changed("d/big")
        await sync.until(lambda: names_below(module) != before)

    with RsyncDaemon(workspace=tmp_path, path=module) as daemon:
        instance.nodes = [dataclasses.replace(daemon.node(name="web1"), rsync_options=SLOW)]
        run(lambda: work(daemon))


def test_a_bootstrap_that_was_cut_off_sweeps_nothing_of_a_users(tmp_path: Path) -> None:
    """Before all that is foreign on a Node is known nothing there is taken for ours."""
    instance = Instance(tmp_path)
    tree, module = instance.tree, tmp_path / "module"
    fill(module, {"d/.big.AbCdEf": "a user's", "d/.index.html.XyZ123": "a user's"})
    fill(tree, {"d/index.html": "1"})
    (tree / "d/big").write_bytes(os.urandom(2_000_000))

    async def work(daemon: RsyncDaemon) -> None:
        async with running(instance) as sync:
            await sync.until(lambda: len(_leftovers(module)) > 1)
            daemon.signal(signal.SIGKILL)
            daemon.stop()
            await sync.until(lambda: row_of(sync).state is NodeState.BACKING_OFF)
            fill(tree, {"d/big": "small"})
            instance.changed("d/big")
            daemon.start()
            await sync.followed(seconds=60)
            assert {"d/.big.AbCdEf", "d/.index.html.XyZ123"} <= set(names_below(module))
            assert b"d/.big.AbCdEf" in sync.state.read.foreign_paths(KEY)

    with RsyncDaemon(workspace=tmp_path, path=module) as daemon:
        instance.nodes = [dataclasses.replace(daemon.node(name="web1"), rsync_options=SLOW)]
        run(lambda: work(daemon))


@pytest.mark.fault("sync-killed")
@pytest.mark.parametrize("whose", ["rsync", "sync"])
def test_our_own_rsyncs_that_are_killed_are_swept(tmp_path: Path, whose: str) -> None:
    """SIGKILL of sender and receiver alike, with the sync process cut off or not: after the
    restart, or the next try, nothing of ours is left.
    """
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"d/big": "small", "d/page": "1"})
    instance.nodes = [dataclasses.replace(local_node(node), rsync_options=SLOW)]

    async def killed() -> None:
        async with killed_at_exit(instance) as sync:
            await sync.followed()
            await _half_sent(sync, tree, node)
            _kill_rsyncs()
            if whose == "rsync":
                await sync.followed(seconds=60)
        assert bool(_leftovers(node)) is (whose == "sync")

    async def again() -> None:
        async with running(instance) as sync:
            fill(tree, {"d/big": "small again"})
            instance.changed("d/big")
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            assert _leftovers(node) == []
            assert differences(tree, node) == []

    run(killed)
    run(again)


class Namespace:
    """A network namespace with a cable to ours, which can be cut."""

    def __init__(self) -> None:
        self.name = f"shardsync-{os.getpid()}"
        number = os.getpid() % 250
        self.ours, self.theirs = f"10.251.{number}.1", f"10.251.{number}.2"
        self.cable = f"sst{os.getpid() % 100_000}"

    def make(self) -> None:
        _do("ip", "netns", "add", self.name)
        _do(
            "ip",
            "link",
            "add",
            self.cable,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.name,
        )
        _do("ip", "addr", "add", f"{self.ours}/30", "dev", self.cable)
        _do("ip", "link", "set", self.cable, "up")
        self.inside("ip", "addr", "add", f"{self.theirs}/30", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")

    def inside(self, *words: str) -> None:
        _do("ip", "netns", "exec", self.name, *words)

    def cut(self) -> None:
        """Drop all that comes and goes, without a word to either side."""
        self.inside("nft", "add table inet cut")
        for hook in ("input", "output"):
            chain = (
                f"add chain inet cut {hook} {{ type filter hook {hook} priority 0; policy drop; }}"
            )
            self.inside("nft", chain)

    def mend(self) -> None:
        self.inside("nft", "delete table inet cut")

    def remove(self) -> None:
        for words in (("ip", "link", "del", self.cable), ("ip", "netns", "del", self.name)):
            subprocess.run(words, check=False, capture_output=True)


def _do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=10)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    try:
        try:
            made.make()
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no network namespaces here")
        yield made
    finally:
        made.remove()


@pytest.mark.fault("partition")
@pytest.mark.root
@IS_ROOT
def test_a_partition_leaves_nothing_and_holds_only_its_node(
    tmp_path: Path, namespace: Namespace
) -> None:
    """The cable is cut in the midst of a file: the Node backs off, the other goes on; mended, it
    catches up, and nothing of ours is left, though the receiver was killed meanwhile.
    """
    instance = Instance(tmp_path)
    tree, module, other = instance.tree, tmp_path / "module", tmp_path / "other"
    module.mkdir()
    fill(tree, {"d/big": "small"})
    config = tmp_path / "rsyncd.conf"
    config.write_text(
        f"port = 8730\nuse chroot = no\n[site]\npath = {module}\nread only = no\n"
        "uid = 0\ngid = 0\n"
    )

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["ip", "netns", "exec", namespace.name,
             "rsync", "--daemon", "--no-detach", f"--config={config}"],
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    async def work(stack: ExitStack) -> None:
        daemon = start()
        stack.callback(_end, lambda: daemon)
        async with running(instance) as sync:
            await sync.followed(seconds=60)
            await _half_sent(sync, tree, module)
            namespace.cut()
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait(timeout=10)
            fill(tree, {"d/page": "1"})
            instance.changed("d/page")
            await sync.until((other / "d/page").exists)
            await sync.until(lambda: row_of(sync).state is NodeState.BACKING_OFF, seconds=60)
            assert _leftovers(module)
            fill(tree, {"d/big": "small again"})
            instance.changed("d/big")
            daemon = start()
            namespace.mend()
            await sync.followed(seconds=60)
            assert _leftovers(module) == []
            assert differences(tree, module) == []

    def _end(current: Callable[[], subprocess.Popen[bytes]]) -> None:
        process = current()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)

    node = NodeSettings(
        name="web1",
        tree="main",
        target=Target(kind=TargetKind.DAEMON, host=namespace.theirs, port=8730, path="site"),
        rsync_options=(*SLOW, "--timeout=3", "--contimeout=2"),
    )
    instance.nodes = [node, local_node(other, name="web2")]
    with ExitStack() as stack:
        run(lambda: work(stack))
