"""Replays as operators see them: what is measured, how long one waits, what a dry run lists."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from shardsync.cli.main import run as run_command
from shardsync.config.settings import SyncSettings
from shardsync.journal.requests import RequestKind
from shardsync.model import Kind, Scope
from shardsync.observe.figures import SyncMetrics
from tests.support.clock import FakeClock, ShiftedClock
from tests.support.instance import START, HandMade, change
from tests.support.nodes import local_node
from tests.support.shipping import KEY, answered, ask, asked, fill, row_of
from tests.support.sync import Instance, run, running

_HOUR_US = 3600 * 1_000_000


def _measured(metrics: SyncMetrics) -> tuple[int, float]:
    """(Changes in the latency histogram, the sum of their seconds)."""
    buckets, total = metrics.node(KEY).latency.buckets()
    return int(buckets[-1][1]), total


def test_what_is_sent_again_is_no_latency(tmp_path: Path) -> None:
    """An hour-old Change that is replayed is on the Node since; new ones count as ever."""
    instance, metrics, clock = Instance(tmp_path), SyncMetrics(), ShiftedClock()
    instance.observer, instance.clock = metrics, clock
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"a": "1", "b": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            instance.changed("a", "b")
            await sync.followed()
            assert _measured(metrics)[0] == 2
            clock.ahead_us = _HOUR_US
            (node / "a").unlink()
            answer = await ask(sync, RequestKind.REPLAY, positions={"main-00": 0})
            assert (answer.exit_code, answer.total) == (0, 2)
            assert (node / "a").exists()
            assert _measured(metrics)[0] == 2
            instance.changed("a")
            await sync.followed()
            count, seconds = _measured(metrics)
            assert count == 3
            assert seconds < 3600

    run(work)


@pytest.mark.parametrize("kind", [RequestKind.REPLAY, RequestKind.RECONCILE])
def test_nobody_waits_for_ever_for_a_node_that_is_away(tmp_path: Path, kind: RequestKind) -> None:
    """After a minute of nothing but back-off it ends with 14 and the Node's words.

    What it opened goes on when the Node is back.
    """
    instance, clock = Instance(tmp_path), ShiftedClock()
    instance.clock = clock
    fill(instance.tree, {"a": "1"})
    target = tmp_path / "there/node"
    target.parent.mkdir()
    instance.nodes = [local_node(target)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            instance.changed("a")
            await sync.followed()
            (target / "a").unlink()
            os.rename(target.parent, tmp_path / "away")
            request = await asked(sync, kind, positions={"main-00": 0})
            await sync.until(lambda: row_of(sync).attempts > 1)
            assert sync.state.read.open_requests() != []
            clock.ahead_us += 61_000_000
            answer = await answered(sync, request)
            assert answer.exit_code == 14
            assert answer.message.startswith("not done: web1 (")
            assert answer.message.endswith("it goes on by itself")
            os.rename(tmp_path / "away", target.parent)
            clock.ahead_us += 120_000_000
            await sync.until((target / "a").exists)

    run(work)


def test_a_replay_ends_at_its_timeout_and_goes_on(tmp_path: Path) -> None:
    """`--timeout` is how long one waits, not how long it lasts."""
    instance, clock = Instance(tmp_path), ShiftedClock()
    instance.clock = clock
    fill(instance.tree, {"a": "1"})
    instance.sync = SyncSettings(delay_seconds=600.0)
    instance.nodes = [local_node(tmp_path / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until((tmp_path / "node/a").exists)
            fill(instance.tree, {"a": "22"})
            instance.changed("a")
            answer = await ask(
                sync, RequestKind.REPLAY, positions={"main-00": 0}, deadline_us=clock.wall_us()
            )
            assert answer.exit_code == 14
            assert answer.message.startswith("timed out: web1 (")
            clock.ahead_us = 700_000_000
            await sync.until(lambda: (tmp_path / "node/a").read_text() == "22")

    run(work)


def _listed(capsys: pytest.CaptureFixture[str], *words: str, sent_to: str) -> list[str]:
    assert run_command(["replay", "--since", f"main-00:{START}", "--dry-run", *words]) == 0
    told = capsys.readouterr()
    assert told.err.endswith(f" would be sent to {sent_to}\n")
    return told.out.splitlines()


def test_a_dry_run_lists_what_the_nodes_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither what a Node excludes nor what lies outside its subtree; below a path also what a
    Change above it says of it. Named are those that take any of it.
    """
    made = HandMade(folder=tmp_path, clock=FakeClock(wall_us=START))
    monkeypatch.chdir(tmp_path)
    made.make()
    made.write_settings(())
    with (tmp_path / "shardsync.toml").open("a") as file:
        file.write(f'[[node]]\nname = "web1"\ntarget = "{tmp_path}/web1"\nexclude = ["*.tmp"]\n')
        file.write(f'[[node]]\nname = "web2"\ntarget = "{tmp_path}/web2"\nsubtree = "news"\n')
    made.add_shard().commit(
        [
            change(b"a.tmp"),
            change(b"news", scope=Scope.TREE),
            change(b"news/b.tmp"),
            change(b"shop/c"),
            change(b"shop", kind=Kind.ATTRIBUTES),
        ]
    )
    made.open_state()
    assert _listed(capsys, sent_to="web1, web2") == ["news", "news/b.tmp", "shop", "shop/c"]
    assert _listed(capsys, "--node", "web1", sent_to="web1") == ["news", "shop", "shop/c"]
    assert _listed(capsys, "--node", "web2", sent_to="web2") == ["news", "news/b.tmp"]
    assert _listed(capsys, "--path", "news/2026/x", sent_to="web1, web2") == ["news/2026/x"]
    assert _listed(capsys, "--path", "shop", sent_to="web1") == ["shop", "shop/c"]
    assert _listed(capsys, "--path", "none", sent_to="web1, web2") == []
    made.close()


def test_a_replay_of_a_path_sends_what_its_dry_run_lists(tmp_path: Path) -> None:
    """By Position and path, to the one Node that is named; the other is left as it is."""
    instance = Instance(tmp_path)
    tree = instance.tree
    fill(tree, {"news/a": "1", "news/b": "1", "shop/c": "1"})
    one, two = local_node(tmp_path / "one"), local_node(tmp_path / "two", name="web2")
    instance.nodes = [one, dataclasses.replace(two, exclude=("b",))]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            instance.changed("news/a")
            first = instance.journals[0].last_position
            instance.changed("news/b", "shop/c")
            await sync.followed()
            for node in (tmp_path / "one", tmp_path / "two"):
                for path in ("news/a", "shop/c"):
                    (node / path).write_text("X")
            (tmp_path / "one/news/b").write_text("X")
            answer = await ask(
                sync,
                RequestKind.REPLAY,
                positions={"main-00": first},
                path=b"news",
                nodes=("web1",),
            )
            assert (answer.exit_code, answer.total) == (0, 1)
            found = [(tmp_path / "one" / p).read_text() for p in ("news/a", "news/b", "shop/c")]
            assert found == ["X", "1", "X"]
            answer = await ask(sync, RequestKind.REPLAY, positions={"main-00": 0})
            assert answer.exit_code == 0
            assert (tmp_path / "one/shop/c").read_text() == "1"
            assert (tmp_path / "two/shop/c").read_text() == "1"
            assert not (tmp_path / "two/news/b").exists()

    run(work)
