"""Many Nodes and few slots: one that hangs, with a real daemon stopped, delays no other."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.config.settings import SyncSettings
from tests.support.nodes import RsyncDaemon, local_node
from tests.support.sync import Instance, Running, run, running


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RsyncDaemon]:
    """A daemon whose files lie in `tmp_path / "far"`."""
    (tmp_path / "far").mkdir()
    with RsyncDaemon(workspace=tmp_path, path=tmp_path / "far") as daemon:
        yield daemon


@pytest.mark.fault("node-stalls")
@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("warm", [True, False])
def test_a_stopped_daemon_delays_no_other_node(
    tmp_path: Path, daemon: RsyncDaemon, limit: int, *, warm: bool
) -> None:
    """Its run lends its slot to the others, who get change after change; then it catches up."""
    instance = Instance(tmp_path)
    names = ("near1", "near2", "near3")
    instance.nodes = [
        replace(daemon.node(name="far"), warm=warm),
        *(local_node(tmp_path / name, name=name) for name in names),
    ]
    instance.sync = SyncSettings(max_rsyncs=limit)

    def has(name: str, text: str) -> bool:
        path = tmp_path / name / "a"
        return path.exists() and path.read_text() == text

    async def change(sync: Running, text: str) -> None:
        (instance.tree / "a").write_text(text)
        instance.changed("a")
        await sync.until(lambda: all(has(name, text) for name in names))

    async def work() -> None:
        async with running(instance) as sync:
            await change(sync, "first")
            await sync.followed()
            daemon.signal(signal.SIGSTOP)
            try:
                for number in range(15):
                    await change(sync, f"text {number}")
                    assert not has("far", f"text {number}")
            finally:
                daemon.signal(signal.SIGCONT)
            await sync.until(lambda: has("far", "text 14"))
            await sync.followed()

    run(work)
