"""A Node that is malicious or broken costs itself: time and memory are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardsync.clock import SystemClock
from shardsync.config.settings import NodeSettings, Target, TargetKind
from shardsync.ship.comparison import Difference
from shardsync.ship.messages import MessageReader, out_line
from shardsync.ship.outcome import Outcome, RunResult, Trouble
from shardsync.ship.transport import NodeTransport
from tests.support.nodes import local_node
from tests.support.transports import SECONDS, FolderSource, transport

DEADLINE = 1.0
_MEMORY_BYTES = 100 * 1024**2


def endless_greeting(client: socket.socket) -> None:
    """As fast as it goes."""
    client.sendall(b"@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4\n")
    while True:
        client.sendall(b"welcome to nothing\n" * 1000)


def one_line_without_end(client: socket.socket) -> None:
    """A greeting that has no line end."""
    while True:
        client.sendall(b"x" * 65_536)


def garbage(client: socket.socket) -> None:
    """What is no protocol at all, once the greeting is over."""
    client.sendall(b"@RSYNCD: 32.0 md5\n@RSYNCD: OK\n")
    for _ in range(200):
        client.sendall(os.urandom(65_536))


def drip(client: socket.socket) -> None:
    """A byte now and then, so that no timeout for silence strikes."""
    while True:
        client.sendall(b"@")
        threading.Event().wait(0.2)


def silence(client: socket.socket) -> None:
    """Takes what comes and says nothing."""
    while client.recv(65_536):
        pass


def hang_up(client: socket.socket) -> None:
    """Ends it at once."""


@contextlib.contextmanager
def daemon(behave: Callable[[socket.socket], None]) -> Iterator[NodeSettings]:
    """A Node `rsync://127.0.0.1:PORT/site` whose every connection is treated so."""
    listening = socket.create_server(("127.0.0.1", 0))
    clients: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                clients.append(client)
                threading.Thread(target=treat, args=(client,), daemon=True).start()

    def treat(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            behave(client)

    threading.Thread(target=serve, daemon=True).start()
    port = listening.getsockname()[1]
    try:
        yield NodeSettings(
            name="web1",
            tree="main",
            target=Target(kind=TargetKind.DAEMON, host="127.0.0.1", port=port, path="site"),
        )
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of one file."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a").write_text("a")
    return folder


def shipped(route: NodeTransport) -> RunResult:
    """What comes of sending the file."""

    async def run() -> RunResult:
        result = await route.ship([b"a"], deadline_seconds=DEADLINE)
        await route.close()
        return result

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("behave", "troubles"),
    [
        (endless_greeting, {Trouble.DEADLINE}),
        (one_line_without_end, {Trouble.AUTHENTICATION, Trouble.PROTOCOL}),
        (garbage, {Trouble.PROTOCOL, Trouble.INVOCATION, Trouble.DEADLINE}),
        (drip, {Trouble.DEADLINE}),
        (silence, {Trouble.DEADLINE}),
        (hang_up, {Trouble.PROTOCOL, Trouble.UNREACHABLE, Trouble.AUTHENTICATION}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_daemon_gone_mad_is_left_at_the_deadline(
    tree: Path, behave: Callable[[socket.socket], None], troubles: set[Trouble]
) -> None:
    """Whatever it says, or does not: the run ends, nothing counts as sent, little is kept."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with daemon(behave) as node:
        result = shipped(transport(node, tree))
    assert (result.outcome, result.trouble in troubles) == (Outcome.NOTHING, True), result
    assert len(result.message) < 2_000
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < _MEMORY_BYTES


@pytest.mark.parametrize(
    "chatter",
    ["yes some trouble", "tr '\\\\0' x </dev/zero", "cat /dev/urandom"],
    ids=["lines", "one line", "noise"],
)
def test_a_remote_side_that_talks_without_end_is_cut_off(
    tree: Path, tmp_path: Path, chatter: str
) -> None:
    """What ssh, or what runs there, says on standard error is kept in part, and then ended."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f"#!/bin/sh\nexec 3>&1\nexec {chatter} >&2\n")
    ssh.chmod(0o755)
    node = NodeSettings(
        name="web1",
        tree="main",
        target=Target(kind=TargetKind.SSH, host="web1", path="/srv"),
        warm=False,
    )
    route = NodeTransport(
        node=node,
        source=FolderSource(tree),
        clock=SystemClock(),
        environment={**os.environ, "PATH": f"{ssh.parent}:{os.environ['PATH']}"},
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = shipped(route)
    assert (result.outcome, result.trouble) == (Outcome.NOTHING, Trouble.DEADLINE)
    assert sum(map(len, (*result.unattributed, *result.notes, result.message))) < 60_000
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < _MEMORY_BYTES


@pytest.mark.parametrize(
    "name", [b"../../etc/passwd", b"/etc/passwd", b"a/../../b", b"a//b", b"./a/./b", b".."]
)
def test_a_path_that_a_node_names_never_leaves_the_tree(name: bytes) -> None:
    """What it says it deletes, or failed at, is no path of ours if it climbs."""
    assert out_line(b"@del.|*deleting  |0|0|" + name) is None
    reader = MessageReader(source_fd=9, target=local_node(Path("/srv/web1")).target)
    reader.read(b"cannot delete non-empty directory: " + name)
    reader.read(b'rsync: [receiver] mkstemp "/srv/web1/' + name + b'" failed: No space left')
    reader.read(b'file has vanished: "/proc/self/fd/9/' + name + b'"')
    said = reader.messages
    assert not any(b".." in path.split(b"/") for path in (*said.failed, *said.vanished))
    assert not any(path.startswith(b"/") for path in (*said.failed, *said.temporary))


def test_a_node_that_names_what_climbs_is_compared_all_the_same(
    tree: Path, tmp_path: Path
) -> None:
    """Such a name is left out; what else differs is found, and nothing breaks off."""
    program = tmp_path / "rsync"
    program.write_text(
        "#!/bin/sh\ncat >/dev/null\n"
        "echo '@del.|*deleting  |0|0|../../etc/passwd'\n"
        "echo '@del.|*deleting  |0|0|foreign'\n"
    )
    program.chmod(0o755)

    async def run() -> list[Difference]:
        route = transport(local_node(tmp_path), tree, program=str(program))
        async with route.compare([b""], deadline_seconds=SECONDS) as comparison:
            return [difference async for difference in comparison]

    assert [difference.path for difference in asyncio.run(run())] == [b"foreign"]
