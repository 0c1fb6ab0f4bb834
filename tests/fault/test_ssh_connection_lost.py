"""The ssh connection that a Node's runs share is lost, in several ways, while Batches flow."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from shardsync.journal.requests import RequestKind
from shardsync.model import NodeState
from tests.support.compare import differences
from tests.support.nodes import Sshd, local_node
from tests.support.shipping import ask, fill, newest, row_of
from tests.support.sync import Instance, Running, run, running

_OTHER = ("main", "web2")


class _Master:
    """The process that holds the connection, found by what it was started with."""

    def __init__(self, sshd: Sshd) -> None:
        self._port = str(sshd.port).encode()
        self.pid = 0
        self.socket = Path()

    def is_there(self) -> bool:
        """Find the one that runs now, with its socket."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"-oControlMaster=yes" in words and self._port in words:
                path = next(word for word in words if word.startswith(b"-oControlPath="))
                self.pid = int(folder.name)
                self.socket = Path(os.fsdecode(path.removeprefix(b"-oControlPath=")))
                return self.socket.exists()
        return False

    def is_another(self, pid: int) -> bool:
        """Whether one runs that is not `pid`."""
        return self.is_there() and self.pid != pid


def _killed(master: _Master) -> None:
    os.kill(master.pid, signal.SIGKILL)


def _stopped(master: _Master) -> None:
    os.kill(master.pid, signal.SIGSTOP)


def _unlinked(master: _Master) -> None:
    master.socket.unlink()


@pytest.mark.fault("ssh-connection-lost")
def test_a_lost_connection_is_made_anew_while_batches_flow(tmp_path: Path) -> None:
    """Killed, its socket removed, stopped: each time all arrives, a new one takes over (after the
    third there is a pause), and the
    Node never counts as down; the other Node has each change while that one waits.
    """
    instance = Instance(tmp_path)
    tree, folder, other = instance.tree, tmp_path / "node", tmp_path / "other"
    fill(tree, {"d/f": "0"})

    def arrived(text: str) -> bool:
        return (other / "d/f").read_text() == text

    async def churn(sync: Running, ended: asyncio.Event) -> None:
        turn = 0
        while not ended.is_set():
            turn += 1
            fill(tree, {"d/f": f"{turn}", f"d/new-{turn % 50}": f"{turn}"})
            instance.changed("d/f", f"d/new-{turn % 50}")
            await sync.until(partial(arrived, f"{turn}"), seconds=2.0)
            await asyncio.sleep(0.05)

    async def lose(sync: Running, master: _Master, how: Callable[[_Master], None]) -> None:
        await sync.until(master.is_there)
        lost = master.pid
        how(master)
        if how is not _stopped:
            await sync.until(lambda: master.is_another(lost))
        answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
        assert (answer.exit_code, answer.message) == (0, "")

    async def work(master: _Master) -> None:
        async with running(instance) as sync:
            await sync.followed()
            ended = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(churn(sync, ended))
                for how in (_unlinked, _killed, _stopped):
                    await lose(sync, master, how)
                    assert row_of(sync).attempts == 0
                    assert row_of(sync, _OTHER).state is NodeState.FOLLOWING
                ended.set()
            await sync.followed()
            assert differences(tree, folder) == []
            assert differences(tree, other) == []

    with Sshd(workspace=tmp_path) as sshd:
        instance.nodes = [sshd.node(folder, name="web1"), local_node(other, name="web2")]
        run(lambda: work(_Master(sshd)))
