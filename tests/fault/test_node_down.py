"""A Node that is down while the tree churns: it converges when it is back, the others never
notice.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path

import pytest

from shardsync.journal.records import NodeRow
from shardsync.model import NodeState
from tests.support.compare import differences
from tests.support.nodes import RsyncDaemon, local_node
from tests.support.shipping import fill, killed_at_exit, row_of
from tests.support.sync import Instance, Running, run, running

_SEED = 7
_DOWN_SECONDS = 12.0
_ROUND_SECONDS = 0.1
_LONGEST_SECONDS = 60.0


def _change(dice: random.Random, instance: Instance, turn: int) -> None:
    """Some changes, journaled: adds, rewrites, deletions."""
    names = [f"d{dice.randrange(20)}/f{dice.randrange(20)}" for _ in range(10)]
    for name in names:
        if dice.random() < 0.3:
            (instance.tree / name).unlink(missing_ok=True)
        else:
            fill(instance.tree, {name: f"{turn}"})
    instance.changed(*names, *{name.partition("/")[0] for name in names})


async def _latency(sync: Running, turn: int, other: Path) -> float:
    """How long one file takes to the Node that is well."""
    fill(sync.instance.tree, {"probe": f"{turn}"})
    began = time.monotonic()
    sync.instance.changed("probe")
    await sync.until(
        lambda: (other / "probe").exists() and (other / "probe").read_text() == f"{turn}"
    )
    return time.monotonic() - began


@pytest.mark.fault("node-down")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["stopped", "refusing"])
def test_a_node_down_during_churn_holds_only_itself(tmp_path: Path, how: str) -> None:
    """Down for a while, or hung: the other Node is as quick as before, in the median; back, the
    Node has everything within its longest back-off.
    """
    instance = Instance(tmp_path)
    tree, module, other = instance.tree, tmp_path / "module", tmp_path / "other"
    module.mkdir()
    fill(tree, {f"d{d}/f{f}": "0" for d in range(20) for f in range(20)})
    dice = random.Random(_SEED)

    async def churn(sync: Running, seconds: float) -> list[float]:
        taken = []
        end = time.monotonic() + seconds
        turn = dice.randrange(10**9)
        while time.monotonic() < end:
            turn += 1
            _change(dice, instance, turn)
            taken.append(await _latency(sync, turn, other))
            await asyncio.sleep(_ROUND_SECONDS)
        return sorted(taken)

    async def work(daemon: RsyncDaemon) -> None:
        async with running(instance) as sync:
            await sync.followed()
            before = await churn(sync, 4.0)
            if how == "stopped":
                daemon.signal(signal.SIGSTOP)
            else:
                daemon.stop()
            during = await churn(sync, _DOWN_SECONDS)
            assert row_of(sync, ("main", "web2")).state is NodeState.FOLLOWING
            if how == "stopped":
                daemon.signal(signal.SIGCONT)
            else:
                assert row_of(sync).state is NodeState.BACKING_OFF
                daemon.start()
            await sync.followed(seconds=1.25 * _LONGEST_SECONDS + 15)
            assert differences(tree, module) == []
            assert differences(tree, other) == []
            # A ratio, with room for a machine that does other things: a Node that waits for the
            # one that is down would take seconds.
            assert _median(during) < 10 * _median(before) + 50

    with RsyncDaemon(workspace=tmp_path, path=module) as daemon:
        instance.nodes = [daemon.node(name="web1"), local_node(other, name="web2")]
        run(lambda: work(daemon))


@pytest.mark.fault("node-down", "sync-killed")
def test_a_killed_sync_process_keeps_its_distance_from_a_node_that_is_down(
    tmp_path: Path,
) -> None:
    """How often it failed, and when it is due again, outlive kill -9; a stop that somebody asked
    for lets it be tried at once, and not as if it had never failed.
    """
    instance = Instance(tmp_path)
    tree, module = instance.tree, tmp_path / "module"
    module.mkdir()
    fill(tree, {"a": "1"})

    async def goes_down(daemon: RsyncDaemon) -> NodeRow:
        async with killed_at_exit(instance) as sync:
            await sync.followed()
            daemon.stop()
            fill(tree, {"a": "2"})
            instance.changed("a")
            await sync.until(lambda: row_of(sync).attempts == 2)
            return row_of(sync)

    async def is_started_again(row: NodeRow) -> None:
        assert row.not_before > instance.clock.wall_us() + 500_000
        async with running(instance) as sync:
            await asyncio.sleep(0.4)
            now = row_of(sync)
            assert (now.attempts, now.not_before) == (2, row.not_before)
            await sync.until(lambda: row_of(sync).attempts == 3)
            stopped = sync
        assert (row_of(stopped).attempts, row_of(stopped).not_before) == (3, 0)

    async def is_up(daemon: RsyncDaemon) -> None:
        daemon.start()
        async with running(instance) as sync:
            await sync.followed()
        assert differences(tree, module) == []

    with RsyncDaemon(workspace=tmp_path, path=module) as daemon:
        instance.nodes = [daemon.node(name="web1")]
        row: list[NodeRow] = []

        async def first() -> None:
            row.append(await goes_down(daemon))

        run(first)
        run(lambda: is_started_again(row[0]))
        run(lambda: is_up(daemon))


def _median(taken: list[float]) -> float:
    """Milliseconds."""
    return 1000 * taken[len(taken) // 2]
