"""The sync process on real SQLite and real rsync: what is journaled comes to be on the Nodes."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from shardsync.journal import requests
from shardsync.journal.locks import FileLock
from shardsync.journal.plan import Plan
from shardsync.journal.requests import Request, RequestKind, RequestState
from shardsync.model import EpochReason, Kind, Scope
from tests.support.compare import differences
from tests.support.nodes import RsyncDaemon, local_node
from tests.support.sync import Instance, begun, follow_once, run, running


def test_an_empty_node_is_filled_and_then_followed(tmp_path: Path) -> None:
    """Bootstrap, then adds, rewrites, chmods, renames, deletions and type changes."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    for number in range(5):
        (tree / f"d{number}").mkdir()
        (tree / f"d{number}" / "page").write_text(str(number))
    (tree / "top").write_text("top")
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert differences(tree, node) == []
            assert sync.state.read.nodes()[("main", "web1")].owned
            (tree / "d0" / "page").write_text("X")
            (tree / "d1" / "page").chmod(0o600)
            os.rename(tree / "d2", tree / "moved")
            shutil.rmtree(tree / "d3")
            shutil.rmtree(tree / "d4")
            (tree / "d4").write_text("a file now")
            (tree / "link").symlink_to("nowhere")
            os.unlink(tree / "top")
            (tree / "top").mkdir()
            instance.changed("d0/page", "d3/page", "d3", "d4/page", "d4", "link", "top")
            instance.changed("d1/page", kind=Kind.ATTRIBUTES)
            instance.changed("d2", "moved", scope=Scope.TREE)
            await sync.followed()
            assert differences(tree, node) == []

    run(work)


def test_a_daemon_node_is_led_on_after_a_restart(tmp_path: Path) -> None:
    """Cursors outlive the process: nothing is sent again, nothing is missed."""
    instance = Instance(tmp_path, shards=2)
    (tmp_path / "module").mkdir()
    (instance.tree / "a").write_text("1")

    async def second() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert (tmp_path / "module" / "a").read_text() == "1"
            assert (tmp_path / "module" / "b").read_text() == "2"

    with RsyncDaemon(workspace=tmp_path, path=tmp_path / "module") as daemon:
        instance.nodes = [daemon.node()]
        follow_once(instance)
        (instance.tree / "b").write_text("2")
        (tmp_path / "module" / "a").write_text("1")
        instance.changed("b", shard=1)
        run(second)


def test_a_plan_that_is_written_while_the_process_starts_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first `up` the Coordinator makes it meanwhile, and the next one may be days off."""
    instance = Instance(tmp_path)
    (instance.tree / "a").write_text("1")
    instance.nodes = [local_node(tmp_path / "node")]
    instance.plan = Plan()

    async def work() -> None:
        sync, task = begun(instance)
        instance.plan = None

        def adapted(_: object) -> None:
            """It has looked for a Plan, and has all else ready."""
            monkeypatch.undo()
            instance.write_plan()

        monkeypatch.setattr(sync.service._adapting, "_note_settings", adapted)
        try:
            await sync.followed()
            assert (tmp_path / "node" / "a").read_text() == "1"
        finally:
            sync.service.stop()
            await asyncio.wait_for(task, 30)

    run(work)


def test_the_cursor_comes_to_a_new_epoch_in_which_nothing_changed(tmp_path: Path) -> None:
    """A flush after a restart waits for the Epoch's Position, which no Change ever takes."""
    instance = Instance(tmp_path)
    (instance.tree / "a").write_text("1")
    instance.nodes = [local_node(tmp_path / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            first = instance.journals[0].begin_epoch(EpochReason.RESTART)
            await sync.until(
                lambda: sync.state.read.cursors(("main", "web1"))["main-00"].position == first - 1
            )

    run(work)


def test_a_steady_stream_does_not_starve_what_is_open(tmp_path: Path) -> None:
    """Retries and comparisons take turns with Changes that never cease."""
    instance = Instance(tmp_path)
    (instance.tree / "a").mkdir()
    (instance.tree / "a" / "page").write_text("1")
    instance.nodes = [local_node(tmp_path / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (tmp_path / "node" / "a" / "page").unlink()
            requests.send(instance.state_dir.requests, Request(id="r", kind=RequestKind.RECONCILE))

            def is_done() -> bool:
                instance.changed("a")
                answer = sync.state.read.answer("r")
                return answer is not None and answer.state is RequestState.DONE

            await sync.until(is_done)
            assert (tmp_path / "node" / "a" / "page").exists()

    run(work)


def test_a_journal_that_is_missing_at_the_start_keeps_back_only_its_own(tmp_path: Path) -> None:
    """Its Watcher, at work, is about to make it anew; the other Shard's Changes go on."""
    instance = Instance(tmp_path, shards=2)
    instance.nodes = [local_node(tmp_path / "node")]

    async def second() -> None:
        async with running(instance) as sync:
            (instance.tree / "a").write_text("1")
            instance.changed("a")
            await sync.until((tmp_path / "node" / "a").exists)

    follow_once(instance)
    instance.state_dir.journal("main-01").unlink()
    with FileLock.acquire(instance.state_dir.lock("journal-main-01")):
        run(second)
