"""flush, replay, reconcile, pause and resume through the spool, against real rsync."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.clock import SystemClock
from shardsync.config.settings import SyncSettings
from shardsync.journal.requests import Request, RequestKind, RequestState, send
from shardsync.model import NodeState, ShardState
from tests.support.compare import differences
from tests.support.immutable import immutable
from tests.support.nodes import RsyncDaemon, local_node
from tests.support.shipping import (
    KEY,
    answered,
    ask,
    asked,
    fill,
    killed_at_exit,
    names_below,
    newest,
    row_of,
)
from tests.support.sync import Instance, Running, run, running


def _soon(seconds: float) -> int:
    return SystemClock().wall_us() + int(seconds * 1_000_000)


def test_a_flush_overrides_delay_and_ends_with_all_on_the_nodes(tmp_path: Path) -> None:
    """Nothing is shipped before its delay; a flush ships it at once, to one Node or to all."""
    instance = Instance(tmp_path)
    tree, one, two = instance.tree, tmp_path / "one", tmp_path / "two"
    fill(tree, {"a": "1"})
    instance.nodes = [local_node(one), local_node(two, name="web2")]
    instance.sync = SyncSettings(delay_seconds=3600.0)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(tree, {"a": "22"})
            instance.changed("a")
            answer = await ask(
                sync, RequestKind.FLUSH, nodes=("web1",), positions=newest(instance)
            )
            assert (answer.exit_code, answer.message) == (0, "")
            assert (one / "a").read_text() == "22"
            assert (two / "a").read_text() == "1"
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            assert (two / "a").read_text() == "22"
            fill(tree, {"a": "333"})
            instance.changed("a")
            await sync.until(lambda: sync.state.read.open_requests() == [])
            assert (one / "a").read_text() == "22"

    run(work)


def test_a_flush_waits_for_a_bootstrap_that_begins_after_it(tmp_path: Path) -> None:
    """The Cursors of a first contact begin behind the flush; what they passed over is work."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {f"d{number:02}/f": "1" for number in range(60)})
    instance.nodes = [local_node(node)]
    instance.journals[0].commit(progress={"state": ShardState.SCANNING.value})

    async def work() -> None:
        async with running(instance) as sync:
            flush = await asked(sync, RequestKind.FLUSH, positions=newest(instance))
            await sync.until(lambda: sync.state.read.open_requests() != [])
            instance.journals[0].commit(progress={"state": ShardState.FOLLOWING.value})
            assert (await answered(sync, flush)).exit_code == 0
            assert differences(tree, node) == []

    run(work)


def test_a_flush_times_out_with_names_and_reasons(tmp_path: Path) -> None:
    """A Node that backs off is waited for until the deadline; then its name and error are told."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    instance.nodes = [
        local_node(tmp_path / "one"),
        local_node(tmp_path / "no" / "parent", name="web2"),
    ]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: row_of(sync, ("main", "web2")).attempts > 0)
            answer = await ask(
                sync, RequestKind.FLUSH, positions=newest(instance), deadline_us=_soon(0.5)
            )
            assert answer.exit_code == 14
            assert answer.message.startswith("timed out: web2 (")
            assert "web1" not in answer.message
            assert "No such file" in answer.message

    run(work)


def test_a_flush_ends_at_once_where_only_paused_nodes_are_left(tmp_path: Path) -> None:
    """14 at once; after resume the same flush ends well. A pause with an end ends by itself."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"a": "1"})
    instance.nodes = [local_node(node), local_node(tmp_path / "two", name="web2")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert (await ask(sync, RequestKind.PAUSE, nodes=("web1",))).exit_code == 0
            await sync.until(lambda: row_of(sync).state is NodeState.PAUSED)
            fill(tree, {"a": "22"})
            instance.changed("a")
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert (answer.exit_code, answer.message) == (14, "not done: web1 (paused)")
            assert (node / "a").read_text() == "1"
            for kind in (RequestKind.REPLAY, RequestKind.RECONCILE):
                answer = await ask(sync, kind, nodes=("web1",))
                assert (answer.exit_code, answer.message) == (14, "halted or paused: web1")
            assert (await ask(sync, RequestKind.RESUME, nodes=("web1",))).exit_code == 0
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            assert (node / "a").read_text() == "22"
            await ask(sync, RequestKind.PAUSE, nodes=("web1",), until_us=_soon(0.3))
            fill(tree, {"a": "333"})
            instance.changed("a")
            await sync.followed()
            assert not row_of(sync).paused

    run(work)


def test_all_nodes_paused_lets_go_of_the_root(tmp_path: Path) -> None:
    """With every Node of the Tree paused no descriptor of the root is held any more."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    instance.nodes = [local_node(tmp_path / "one")]

    def holds_root() -> bool:
        mine = Path("/proc/self/fd")
        children = subprocess.run(
            ["pgrep", "-P", str(os.getpid())], capture_output=True, timeout=10, check=False
        ).stdout.split()
        folders = [mine, *(Path(f"/proc/{int(child)}/fd") for child in children)]
        for folder in folders:
            try:
                links = [os.readlink(entry) for entry in folder.iterdir() if entry.is_symlink()]
            except OSError:
                continue
            if str(instance.tree) in links:
                return True
        return False

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert holds_root()
            await ask(sync, RequestKind.PAUSE)
            await sync.until(lambda: not holds_root())
            fill(instance.tree, {"a": "22"})
            instance.changed("a")
            await ask(sync, RequestKind.RESUME)
            await sync.followed()
            assert differences(instance.tree, tmp_path / "one") == []

    run(work)


def test_an_unknown_node_and_garbage_are_answered_and_harmless(tmp_path: Path) -> None:
    """A wrong name is a usage error; what is no request is dropped and the rest goes on."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    instance.nodes = [local_node(tmp_path / "one")]
    spool = instance.state_dir.requests

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (spool / "a.json").write_bytes(b"\xff\x00 no json")
            (spool / "b.json").write_text('{"id": "b", "kind": "dance"}')
            (spool / "c.json").write_text('{"id": "c", "kind": "flush", "what": 1}')
            (spool / "d.json").mkdir()
            (spool / "e.txt").write_text("not for us")
            answer = await ask(sync, RequestKind.FLUSH, nodes=("web9",))
            assert (answer.exit_code, answer.message) == (2, "no node is named web9")
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            assert sorted(os.listdir(spool)) == ["d.json", "e.txt"]

    run(work)


def _counted(sync: Running) -> int:
    return row_of(sync).last_success or 0


def test_a_replay_sends_only_what_changed_since(tmp_path: Path) -> None:
    """A Node restored from an older copy becomes identical again, deletions included, and what
    did not change since is not sent.
    """
    instance = Instance(tmp_path, shards=2)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"old": "1", "a": "1", "b/c": "1", "gone": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            since = newest(instance)
            await asyncio.to_thread(shutil.copytree, node, tmp_path / "copy")
            fill(tree, {"a": "22", "b/c": "22", "new": "1"})
            os.unlink(tree / "gone")
            instance.changed("a", "new", "gone")
            instance.changed("b/c", shard=1)
            await sync.followed()
            # In place: another folder there would be looked at as another Node.
            (node / "new").unlink()
            shutil.copytree(tmp_path / "copy", node, dirs_exist_ok=True)
            (node / "old").write_text("not of this replay")
            answer = await ask(sync, RequestKind.REPLAY, positions=since)
            assert (answer.exit_code, answer.total) == (0, 4)
            assert (node / "old").read_text() == "not of this replay"
            (node / "old").unlink()
            shutil.copy2(tree / "old", node / "old")
            assert differences(tree, node) == []

    run(work)


def test_a_replay_by_time_starts_where_the_node_was(tmp_path: Path) -> None:
    """The Cursors' history decides, not when a Change was observed: what was observed before T
    and shipped after it is sent again.
    """
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"a": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await sync.until(lambda: bool(sync.state.read.cursors_at(KEY, _soon(0))))
            await ask(sync, RequestKind.PAUSE)
            fill(tree, {"a": "22"})
            instance.changed("a")
            moment = _soon(0)
            after = newest(instance)
            await ask(sync, RequestKind.RESUME)
            await sync.followed()
            (node / "a").write_text("an older copy")
            answer = await ask(sync, RequestKind.REPLAY, history_us=moment, positions=after)
            assert answer.exit_code == 0
            assert (node / "a").read_text() == "22"

    run(work)


def test_a_replay_of_a_shard_that_has_no_history_begins_at_its_start(tmp_path: Path) -> None:
    """Neither history nor Position: too much is sent rather than nothing."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"a": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(tree, {"a": "22"})
            instance.changed("a")
            await sync.followed()
            (node / "a").write_text("spoilt")
            answer = await ask(sync, RequestKind.REPLAY, history_us=1)
            assert answer.exit_code == 0
            assert (node / "a").read_text() == "22"

    run(work)


def test_a_replay_of_a_path_sends_that_path_alone(tmp_path: Path) -> None:
    """Below it only; of a subtree Node too, where paths have other names."""
    instance = Instance(tmp_path)
    tree, node, part = instance.tree, tmp_path / "node", tmp_path / "part"
    fill(tree, {"d/x": "1", "e/y": "1"})
    instance.nodes = [
        local_node(node),
        dataclasses.replace(local_node(part, name="web2"), subtree="d"),
    ]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            since = newest(instance)
            fill(tree, {"d/x": "22", "e/y": "22"})
            instance.changed("d/x", "e/y")
            await sync.followed()
            for path in (node / "d/x", node / "e/y", part / "x"):
                path.write_text("spoilt")
            answer = await ask(sync, RequestKind.REPLAY, positions=since, path=b"d")
            assert answer.exit_code == 0
            assert (node / "d/x").read_text() == "22"
            assert (part / "x").read_text() == "22"
            assert (node / "e/y").read_text() == "spoilt"

    run(work)


def test_a_replay_from_before_the_journal_is_refused(tmp_path: Path) -> None:
    """15, with the Node and the Shard, and nothing is moved."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    instance.nodes = [local_node(tmp_path / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            since = newest(instance)
            instance.changed("a")
            instance.changed("a")
            await sync.followed()
            instance.journals[0].prune(before_us=_soon(10), max_bytes=2**30)
            before = sync.state.read.cursors(KEY)
            answer = await ask(sync, RequestKind.REPLAY, positions=since)
            assert answer.exit_code == 15
            assert "node web1, shard main-00" in answer.message
            assert sync.state.read.cursors(KEY) == before

    run(work)


def test_a_replay_asked_during_a_batch_is_not_undone_by_it(tmp_path: Path) -> None:
    """The Batch under way ends and does not move the Cursor over what is to be sent again."""
    instance = Instance(tmp_path)
    tree, module = instance.tree, tmp_path / "module"
    module.mkdir()
    fill(tree, {"a": "1", "slow": "x" * 600_000})

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            since = newest(instance)
            fill(tree, {"a": "22"})
            instance.changed("a")
            await sync.followed()
            (module / "a").write_text("spoilt")
            fill(tree, {"slow": "y" * 600_000})
            position = instance.changed("slow")
            await sync.until(lambda: any(".slow." in name for name in os.listdir(module)))
            answer = await ask(sync, RequestKind.REPLAY, positions=since)
            assert sync.state.read.cursors(KEY)["main-00"].position >= position
            assert answer.exit_code == 0
            assert (module / "a").read_text() == "22"

    with RsyncDaemon(workspace=tmp_path, path=module) as daemon:
        instance.nodes = [dataclasses.replace(daemon.node(name="web1"), bandwidth="500")]
        run(work)


def test_a_resumed_node_is_not_called_paused_during_its_first_batch(tmp_path: Path) -> None:
    """What had waited may take hours: it follows as soon as it is sent to."""
    instance = Instance(tmp_path)
    tree, module = instance.tree, tmp_path / "module"
    module.mkdir()
    fill(tree, {"slow": "x"})

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await ask(sync, RequestKind.PAUSE, nodes=("web1",))
            await sync.until(lambda: row_of(sync).state is NodeState.PAUSED)
            fill(tree, {"slow": "y" * 900_000})
            instance.changed("slow")
            await ask(sync, RequestKind.RESUME, nodes=("web1",))
            await sync.until(lambda: any(".slow." in name for name in os.listdir(module)))
            assert row_of(sync).state is NodeState.FOLLOWING
            assert (module / "slow").read_text() == "x"
            await sync.followed()
            assert differences(tree, module) == []

    with RsyncDaemon(workspace=tmp_path, path=module) as daemon:
        instance.nodes = [dataclasses.replace(daemon.node(name="web1"), bandwidth="500")]
        run(work)


def test_a_reconcile_repairs_all_or_one_path(tmp_path: Path) -> None:
    """What differs by size or time, is missing or too much comes right; `path`: only below it."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"d/x": "1", "d/y": "1", "e/z": "1", "top": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(node, {"d/x": "spoilt", "d/more": "1", "e/z": "spoilt", "more": "1"})
            (node / "d/y").unlink()
            answer = await ask(sync, RequestKind.RECONCILE, path=b"d")
            assert (answer.exit_code, answer.message) == (0, "")
            assert names_below(node) == ["d", "d/x", "d/y", "e", "e/z", "more", "top"]
            assert (node / "e/z").read_text() == "spoilt"
            answer = await ask(sync, RequestKind.RECONCILE)
            assert answer.exit_code == 0
            assert differences(tree, node) == []

    run(work)


def test_a_reconcile_by_checksum_repairs_equal_sizes_and_times(tmp_path: Path) -> None:
    """What `verify --checksum` finds, also below one path and for one file; else it stays."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    files = ("d/x", "d/s/y", "e/z", "top")
    fill(tree, dict.fromkeys(files, "right"))
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            for path in files:
                times = (node / path).stat()
                fill(node, {path: "wrong"})
                os.utime(node / path, ns=(times.st_atime_ns, times.st_mtime_ns))
            wrong = [(b"", 4), (b"d/x", 3), (b"d", 2), (b"", 0)]
            for index, (below, left) in enumerate(wrong):
                answer = await ask(sync, RequestKind.RECONCILE, path=below, checksum=index > 0)
                assert (answer.exit_code, answer.message) == (0, "")
                held = [(node / path).read_text() for path in files]
                assert held.count("wrong") == left
            assert differences(tree, node) == []

    run(work)


def test_what_a_reconcile_by_checksum_could_not_send_is_tried_again_by_checksum(
    tmp_path: Path,
) -> None:
    """Size and time are equal, so that a lesser look would take it for done."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"d/x": "right"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            times = (node / "d/x").stat()
            fill(node, {"d/x": "wrong"})
            os.utime(node / "d/x", ns=(times.st_atime_ns, times.st_mtime_ns))
            with immutable(node / "d/x"):
                request = await asked(sync, RequestKind.RECONCILE, checksum=True)
                await sync.until(lambda: bool(sync.state.read.failures(KEY)))
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert (answer.exit_code, answer.message) == (0, "")
            assert (await answered(sync, request)).exit_code == 0
            assert differences(tree, node) == []

    run(work)


def test_a_reconcile_that_another_joins_is_not_answered_before_it_is_done(tmp_path: Path) -> None:
    """What both ask for is done once, and each is told when it is."""
    instance = Instance(tmp_path)
    tree, folder = instance.tree, tmp_path / "folder"
    fill(tree, {"d/x": "1"})
    folder.mkdir()
    instance.nodes = [local_node(folder / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            folder.rename(tmp_path / "away")
            first = await asked(sync, RequestKind.RECONCILE)
            await sync.until(lambda: sync.state.read.has_work_of(KEY, first))
            second = await asked(sync, RequestKind.RECONCILE)
            await sync.until(lambda: "waiting for" in _message(sync, second))
            assert "waiting for" in _message(sync, first)
            (tmp_path / "away").rename(folder)
            (folder / "node/d/x").unlink()
            await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            for request in (first, second):
                assert (await answered(sync, request)).exit_code == 0
            assert differences(tree, folder / "node") == []

    run(work)


def _message(sync: Running, request_id: str) -> str:
    answer = sync.state.read.answer(request_id)
    return "" if answer is None else answer.message


def test_a_reconcile_while_the_root_is_lost_is_refused_in_words(tmp_path: Path) -> None:
    """The sync process lives on, and says what is wrong."""
    instance = Instance(tmp_path)
    tree = instance.tree
    fill(tree, {"a": "1"})
    instance.nodes = [local_node(tmp_path / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            os.rename(tree, tmp_path / "away")
            await sync.until(lambda: bool(sync.state.read.tree_halted("main")))
            why = f"tree main: root {tree} is missing, or no directory"
            answer = await ask(sync, RequestKind.RECONCILE)
            assert (answer.exit_code, answer.message) == (14, why)
            answer = await ask(sync, RequestKind.RESUME, nodes=("web1",), adopt=True)
            assert (answer.exit_code, answer.message) == (14, why)
            # No look at it while all Nodes are paused but whether it is back.
            await ask(sync, RequestKind.PAUSE)
            os.rename(tmp_path / "away", tree)
            await sync.until(lambda: not sync.state.read.tree_halted("main"))
            await ask(sync, RequestKind.RESUME)
            fill(tree, {"a": "22"})
            instance.changed("a")
            await sync.followed()
            assert (tmp_path / "node/a").read_text() == "22"

    run(work)


@pytest.mark.fault("flush-cut-off")
def test_a_flush_outlives_a_restart(tmp_path: Path) -> None:
    """Open when the process is killed, answered by the next one, delay overridden again."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "deep" / "node"
    fill(tree, {"a": "1"})
    instance.nodes = [local_node(node)]
    instance.sync = SyncSettings(delay_seconds=3600.0)
    ids: list[str] = []

    async def first() -> None:
        async with killed_at_exit(instance) as sync:
            await sync.until(lambda: row_of(sync).attempts > 0)
            request = await asked(sync, RequestKind.FLUSH, positions=newest(instance))
            await sync.until(lambda: bool(sync.state.read.open_requests()))
            ids.append(request)

    async def second() -> None:
        async with running(instance) as sync:
            instance.changed("a")
            answer = await answered(sync, ids[0])
            assert (answer.state, answer.exit_code) == (RequestState.DONE, 0)
            assert names_below(node) == ["a"]

    run(first)
    (tmp_path / "deep").mkdir()
    run(second)


def test_a_request_that_a_crash_left_in_the_spool_is_begun_once(tmp_path: Path) -> None:
    """Recorded and not yet taken away: the next process knows it twice, and answers it once."""
    instance = Instance(tmp_path)
    instance.nodes = [local_node(tmp_path / "no" / "node")]
    left = Request(id="left", kind=RequestKind.FLUSH)

    async def first() -> None:
        async with killed_at_exit(instance) as sync:
            send(instance.state_dir.requests, left)
            await sync.until(lambda: bool(sync.state.read.open_requests()))

    async def second() -> None:
        async with killed_at_exit(instance) as sync:
            await sync.until(lambda: not any(instance.state_dir.requests.iterdir()))
            assert sync.service._operator.tick() == 1

    run(first)
    send(instance.state_dir.requests, left)
    run(second)


def test_open_requests_that_nobody_can_answer_do_not_stop_a_start(tmp_path: Path) -> None:
    """Of a Node that is gone from the settings, or of another version: answered or left alone."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    instance.nodes = [local_node(tmp_path / "one"), local_node(tmp_path / "no/two", name="web2")]

    async def first() -> None:
        async with killed_at_exit(instance) as sync:
            await sync.until(lambda: row_of(sync).contacted)
            send(
                instance.state_dir.requests,
                Request(id="gone", kind=RequestKind.FLUSH, nodes=("web2",)),
            )
            await sync.until(lambda: sync.state.read.answer("gone") is not None)

    async def second() -> None:
        async with running(instance) as sync:
            await sync.followed()
            answer = await answered(sync, "gone")
            assert (answer.exit_code, answer.message) == (2, "no node is named web2")

    run(first)
    with sqlite3.connect(instance.state_dir.state_db) as database:
        database.execute(
            "INSERT INTO requests (id, kind, body, state, created_at, updated_at)"
            " VALUES ('odd', 'flush', '{\"id\": 1}', 'running', 1, 1)"
        )
    database.close()
    instance.nodes = instance.nodes[:1]
    run(second)


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[None]:
    """A small file system of its own at `place`."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True, timeout=30)


@pytest.mark.root
def test_no_replay_waits_for_a_path_that_always_fails(tmp_path: Path) -> None:
    """A replay or reconcile ends with 14, naming the path; the others are on the Node."""
    instance = Instance(tmp_path)
    (instance.tree / "d").mkdir()
    (instance.tree / "d" / "good").write_text("1")
    instance.nodes = [local_node(tmp_path / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            # A mount point cannot be replaced by a file, not even by root.
            with mounted(tmp_path / "node" / "bad"):
                (instance.tree / "bad").write_text("2")
                (instance.tree / "d" / "good").write_text("2")
                start = newest(instance)
                instance.changed("bad", "d/good")
                answer = await ask(sync, RequestKind.REPLAY, positions=start)
                assert answer.exit_code == 14
                assert "bad on web1" in answer.message
                answer = await ask(sync, RequestKind.RECONCILE)
                assert answer.exit_code == 14
                assert (tmp_path / "node" / "d" / "good").read_text() == "2"

    run(work)
