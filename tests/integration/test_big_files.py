"""The second lane on real rsync, through a daemon whose Node is slow: what is big goes beside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.config.settings import SyncSettings
from shardsync.errors import StateUnusable
from shardsync.journal.records import WorkReason
from shardsync.journal.requests import RequestKind, RequestState
from shardsync.journal.state_reader import StateReader
from shardsync.model import Kind, Scope
from tests.support.compare import differences
from tests.support.nodes import RsyncDaemon, Sshd, local_node
from tests.support.shipping import answered, asked
from tests.support.sync import Instance, Running, run, running

KEY = ("main", "web2")
BIG = 3 * 1024**2
SLOW = "1000"
"""KiB a second: a big file takes some seconds."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RsyncDaemon]:
    (tmp_path / "module").mkdir()
    with RsyncDaemon(workspace=tmp_path, path=tmp_path / "module") as daemon:
        yield daemon


@pytest.fixture
def instance(tmp_path: Path, daemon: RsyncDaemon) -> Instance:
    """A Tree with one folder that the Node has; files of more than 1 MiB are big."""
    made = Instance(tmp_path)
    (made.tree / "d").mkdir()
    (made.tree / "d" / "page").write_text("1")
    made.nodes = [replace(daemon.node(), bandwidth=SLOW)]
    made.sync = SyncSettings(big_file_bytes=1024**2)
    return made


def _node(instance: Instance) -> Path:
    return instance.folder / "module"


def _temporary(instance: Instance) -> list[str]:
    """The names on the Node that are rsync's own."""
    return [name for name in os.listdir(_node(instance) / "d") if name.startswith(".")]


def _is_sending(instance: Instance) -> Callable[[], bool]:
    return lambda: bool(_temporary(instance))


def _make_big(instance: Instance, byte: bytes = b"b") -> None:
    (instance.tree / "d" / "big").write_bytes(byte * BIG)
    instance.changed("d", "d/big")


async def _converged(sync: Running, instance: Instance) -> None:
    await sync.followed(seconds=60)
    assert differences(instance.tree, _node(instance)) == []
    assert _temporary(instance) == []
    here, there = (folder / "d" for folder in (instance.tree, _node(instance)))
    assert here.stat().st_mtime_ns == there.stat().st_mtime_ns


def test_small_files_do_not_wait_for_a_big_one(instance: Instance) -> None:
    """They arrive while it is being sent; it is open work meanwhile, which Lag, flush and replay
    count; in the end all is there, and the folder has its own time.
    """

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _make_big(instance)
            await sync.until(_is_sending(instance))
            (instance.tree / "d" / "small").write_text("s")
            instance.changed("d", "d/small")
            await sync.until((_node(instance) / "d" / "small").exists)
            assert not (_node(instance) / "d" / "big").exists()
            (row,) = (row for row in sync.state.read.work(KEY) if row.reason is WorkReason.BIG)
            assert row.path == b"d/big"
            await _converged(sync, instance)

    run(work)


def test_a_big_file_that_goes_while_it_is_sent_is_not_on_the_node(instance: Instance) -> None:
    """Its deletion is shipped before its rsync ends, which then puts it there: it goes again."""

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _make_big(instance)
            await sync.until(_is_sending(instance))
            (instance.tree / "d" / "big").unlink()
            position = instance.changed("d", "d/big")
            await sync.until(lambda: sync.state.read.cursors(KEY)["main-00"].position >= position)
            await _converged(sync, instance)

    run(work)


def test_a_big_file_rewritten_while_it_is_sent_is_sent_again(instance: Instance) -> None:
    """In its place, with the size and time it had: the new bytes are on the Node in the end."""

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _make_big(instance)
            status = os.stat(instance.tree / "d" / "big")
            await sync.until(_is_sending(instance))
            (instance.tree / "d" / "big").write_bytes(b"n" * BIG)
            os.utime(instance.tree / "d" / "big", ns=(status.st_atime_ns, status.st_mtime_ns))
            instance.changed("d/big")
            await _converged(sync, instance)
            assert (_node(instance) / "d" / "big").read_bytes() == b"n" * BIG

    run(work)


def test_a_big_file_that_becomes_small_while_it_is_sent_is_small(instance: Instance) -> None:
    """The Batch sends the small one first, the lane's rsync then puts the old one in its place."""

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _make_big(instance)
            await sync.until(_is_sending(instance))
            (instance.tree / "d" / "new").write_text("small")
            os.rename(instance.tree / "d" / "new", instance.tree / "d" / "big")
            instance.changed("d", "d/new", "d/big")
            await _converged(sync, instance)
            assert (_node(instance) / "d" / "big").read_text() == "small"

    run(work)


def test_a_listing_spares_what_is_being_written(instance: Instance) -> None:
    """The name that the lane's rsync writes to is not in the tree, and yet not foreign."""

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _make_big(instance)
            await sync.until(_is_sending(instance))
            (writing,) = _temporary(instance)
            instance.changed("d", scope=Scope.LISTING, kind=Kind.ATTRIBUTES)
            await asyncio.sleep(0.5)
            assert _temporary(instance) == [writing]
            await _converged(sync, instance)

    run(work)


def test_a_pause_ends_the_big_file_s_rsync_and_a_resume_sends_it(instance: Instance) -> None:
    """Nothing is sent to a paused Node, and no descriptor of its root is held."""

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _make_big(instance)
            await sync.until(_is_sending(instance))
            sync.state.set_node(KEY, paused=1)
            instance.changed("d/page")
            await sync.until(lambda: not _temporary(instance))
            assert not (_node(instance) / "d" / "big").exists()
            sync.state.set_node(KEY, paused=0)
            await _converged(sync, instance)

    run(work)


def test_a_node_that_goes_down_in_the_middle_backs_off_and_gets_it_later(
    instance: Instance, daemon: RsyncDaemon
) -> None:
    """The lane's trouble is the Node's; what its rsync left there is deleted once it is back."""

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _make_big(instance)
            await sync.until(_is_sending(instance))
            daemon.signal(signal.SIGKILL)
            daemon.stop()
            left = _temporary(instance)
            assert left
            await sync.until(lambda: sync.state.read.nodes()[KEY].attempts > 0)
            daemon.start()
            sync.state.set_retry_due(KEY)
            await _converged(sync, instance)
            assert not set(left) & set(_temporary(instance))

    run(work)


def _writers(instance: Instance) -> list[int]:
    """The processes that have rsync's temporary file open."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            if any(link.startswith(f"{_node(instance)}/d/.big.") for link in links):
                found.append(int(pid))
    return found


@pytest.mark.fault("node-killed")
def test_what_a_killed_receiver_leaves_is_deleted(instance: Instance) -> None:
    """Whether the path alone is tried again (rsync exits 12) or the Node backs off (10)."""
    instance.nodes = [replace(local_node(_node(instance), name=KEY[1]), bandwidth=SLOW)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _make_big(instance)
            await sync.until(_is_sending(instance))
            (left,) = _temporary(instance)
            for pid in _writers(instance):
                os.kill(pid, signal.SIGKILL)
            await sync.until(lambda: sync.state.read.work_summary(KEY)[1] == 1)
            assert left in _temporary(instance)
            sync.state.set_retry_due(KEY)
            await _converged(sync, instance)

    run(work)


def test_a_folder_in_the_way_of_a_big_file_goes_by_a_batch(instance: Instance) -> None:
    """The lane deletes nothing; the Batch that takes over counts what it deletes."""

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (_node(instance) / "d" / "big").mkdir()
            (_node(instance) / "d" / "big" / "foreign").write_text("1")
            _make_big(instance)
            await sync.until(lambda: WorkReason.RETRY in sync.state.read.work_reasons(KEY))
            sync.state.set_retry_due(KEY)
            await _converged(sync, instance)

    run(work)


def test_a_replayed_big_file_goes_beside_too(instance: Instance) -> None:
    """And the replay is answered once it is there, not when the small ones are."""

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            since = instance.journals[0].last_position
            _make_big(instance)
            await _converged(sync, instance)
            (_node(instance) / "d" / "big").write_bytes(b"")
            replay = await asked(sync, RequestKind.REPLAY, path=b"d", positions={"main-00": since})
            await sync.until(_is_sending(instance))
            answer = sync.state.read.answer(replay)
            assert answer is not None
            assert answer.state is RequestState.RUNNING
            assert sync.state.read.work_reasons(KEY) == {WorkReason.BIG: 1}
            answer = await answered(sync, replay)
            assert answer.exit_code == 0
            await _converged(sync, instance)

    run(work)


def test_a_node_that_takes_one_rsync_at_a_time_gets_big_files_all_the_same(
    tmp_path: Path, instance: Instance
) -> None:
    """Behind rrsync, which refuses a second run: they take turns."""
    if not shutil.which("rrsync"):
        pytest.skip("no rrsync here")
    node = tmp_path / "behind"
    node.mkdir()
    with Sshd(workspace=tmp_path, forced_command=f"rrsync -wo {node}") as sshd:
        instance.nodes = [sshd.node(Path("/"), name=KEY[1])]

        async def work() -> None:
            async with running(instance) as sync:
                await sync.followed(seconds=60)
                _make_big(instance)
                await sync.followed(seconds=60)
                assert differences(instance.tree, node) == []

        run(work)


def _process(instance: Instance, daemon: RsyncDaemon) -> subprocess.Popen[bytes]:
    """The sync process on its own, as supervisord starts it."""
    settings = instance.folder / "shardsync.toml"
    settings.write_text(
        f'[tree]\nroot = "{instance.tree}"\n[state]\ndir = "{instance.state_dir.path}"\n'
        f'[sync]\nbig_file_bytes = "1MiB"\n[metrics]\nlisten = ""\n'
        f'[[node]]\nname = "{KEY[1]}"\ntarget = "{daemon.url}"\nbandwidth = "1MiB"\n'
    )
    module = [sys.executable, "-m", "shardsync.cli.sync_process"]
    return subprocess.Popen(
        [*module, "--state", str(instance.state_dir.path), "--settings", str(settings)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _until(what: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    for _ in range(6000):
        if what():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be so")


def test_killed_in_the_middle_of_a_big_file(instance: Instance, daemon: RsyncDaemon) -> None:
    """With kill -9, as is the Node's rsync: the next one sends the file, deletes what the first
    left over, and gives the folder its time.
    """
    instance.write_plan()
    position = instance.journals[0].last_position
    with contextlib.closing(StateReader(instance.state_dir.state_db)) as state:

        def has_come_to(position: int) -> bool:
            with contextlib.suppress(StateUnusable):
                cursor = state.cursors(KEY).get("main-00")
                return cursor is not None and cursor.position >= position
            return False

        process = _process(instance, daemon)
        try:
            _until(lambda: has_come_to(position) and not state.work(KEY))
            _make_big(instance)
            _until(_is_sending(instance))
            _until(lambda: has_come_to(instance.journals[0].last_position))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        daemon.signal(signal.SIGKILL)
        daemon.stop()
        assert _temporary(instance)
        daemon.start()
        process = _process(instance, daemon)
        try:
            _until(lambda: not state.work(KEY))
        finally:
            process.terminate()
            process.wait(30)
    assert _temporary(instance) == []
    assert differences(instance.tree, _node(instance)) == []


def test_a_big_file_that_was_held_until_it_came_to_rest_is_sent(tmp_path: Path) -> None:
    """With `delay`: it is older than any Change that is read when it goes to the second lane."""
    instance = Instance(tmp_path)
    instance.nodes = [local_node(tmp_path / "node")]
    instance.sync = SyncSettings(big_file_bytes=1000, delay_seconds=0.4, max_delay_seconds=60.0)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (instance.tree / "big").write_bytes(b"1" * 2000)
            instance.changed("big")
            await asyncio.sleep(0.3)
            instance.changed("big")
            await sync.until(lambda: bool(sync.state.read.settling(("main", "web1"))))
            await sync.followed()
            assert differences(instance.tree, tmp_path / "node") == []

    run(work)
