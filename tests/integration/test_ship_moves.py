"""A renamed directory costs its list, not its data, and never a wrong byte, on real Nodes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.clock import SystemClock
from shardsync.config.settings import DeleteLimit, SyncSettings
from shardsync.journal.records import Compare, Work, WorkReason
from shardsync.journal.requests import RequestKind
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import Kind, NodeState, Scope
from shardsync.ship.moves import Move
from shardsync.ship.moving import Moved, Mover, Sharing
from shardsync.ship.observer import Unobserved
from shardsync.ship.outcome import Outcome, RunResult, Trouble
from shardsync.ship.rsync import folder_moved_on
from tests.support.compare import differences
from tests.support.counted_rsync import rsync_after
from tests.support.nodes import RsyncDaemon, Sshd, local_node
from tests.support.old_rsync import old_rsync
from tests.support.shipping import (
    KEY,
    ask,
    killed_at_exit,
    newest,
    node_of_kind,
    row_of,
)
from tests.support.sync import Instance, Running, run, running

FILES = 250
"""Enough for a rename to be worth runs of its own."""


def _filled(folder: Path, *, files: int = FILES) -> None:
    for number in range(files):
        path = folder / f"d{number % 5}" / f"{number:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number:06}")


def _moved(
    instance: Instance, *moves: tuple[str, str | None], shard: int = 0, later_us: int = 0
) -> None:
    """Journal renames as a Watcher does: (path, old path or None for the half that left)."""
    now = instance.clock.wall_us() + later_us
    instance.journals[shard].commit(
        [
            (path.encode(), Scope.TREE, Kind.CONTENT, now, old.encode() if old else None)
            for path, old in moves
        ]
    )


def _inodes(folder: Path) -> dict[str, int]:
    return {
        os.path.relpath(os.path.join(parent, name), folder): os.lstat(
            os.path.join(parent, name)
        ).st_ino
        for parent, _, names in os.walk(folder)
        for name in names
    }


def _rename(instance: Instance, old: str, new: str) -> None:
    (instance.tree / new).parent.mkdir(parents=True, exist_ok=True)
    (instance.tree / old).rename(instance.tree / new)


def _synced(
    instance: Instance, work: Callable[[Running], None], *, files: int = FILES
) -> Mapping[str, int]:
    """`old` filled and shipped, `work` done and shipped; the Node's inodes of `old` before."""
    _filled(instance.tree / "old", files=files)
    node = Path(instance.nodes[0].target.path) if instance.nodes else instance.folder / "node"
    if not instance.nodes:
        instance.nodes = [local_node(node)]
    before: dict[str, int] = {}

    async def main() -> None:
        async with running(instance) as sync:
            await sync.followed()
            before.update(_inodes(node / "old"))
            work(sync)
            await sync.followed()

    run(main)
    return before


@pytest.mark.parametrize("kind", ["local", "daemon", "ssh"])
def test_a_rename_costs_no_data(kind: str, tmp_path: Path) -> None:
    """Into a directory that is new too, with an odd name: the Node's files are the same inodes."""
    instance = Instance(tmp_path)
    tree = instance.tree
    _filled(tree / "a b" / "old")
    (tree / "a b" / "old" / "link").symlink_to("d0/0000")

    async def work() -> None:
        with node_of_kind(kind, tmp_path) as (node, folder):
            instance.nodes = [node]
            async with running(instance) as sync:
                await sync.followed(seconds=40)
                before = _inodes(folder / "a b" / "old")
                (tree / "c" / "d'x").mkdir(parents=True)
                _rename(instance, "a b/old", "c/d'x/n\xe4w")
                instance.changed("c", "c/d'x")
                _moved(instance, ("a b/old", None), ("c/d'x/n\xe4w", "a b/old"))
                await sync.followed(seconds=40)
                after = _inodes(folder / "c" / "d'x" / "n\xe4w")
                assert differences(tree, folder) == []
                assert {name: after[name] for name in before} == before
                assert all(os.lstat(path).st_nlink == 1 for path in folder.rglob("0*"))
                assert sync.state.read.work_summary(KEY)[0] == 0

    run(work)


@pytest.mark.parametrize("wrong", ["other bytes", "missing", "half there", "other time", "a file"])
def test_a_wrong_basis_costs_only_the_resend(wrong: str, tmp_path: Path) -> None:
    """What the Node has under the old name is not what it should be: the new one is all right."""
    instance = Instance(tmp_path)
    node = tmp_path / "node"

    def work(_: Running) -> None:
        old = node / "old"
        if wrong == "other bytes":
            for path in (old / "d0").iterdir():
                path.write_text("a longer text")
        elif wrong == "other time":
            for path in (old / "d0").iterdir():
                path.write_text("999999")
        elif wrong == "half there":
            shutil.rmtree(old / "d0")
        else:
            shutil.rmtree(old)
            if wrong == "a file":
                old.write_text("x")
        _rename(instance, "old", "new")
        _moved(instance, ("old", None), ("new", "old"))

    _synced(instance, work)
    assert differences(instance.tree, node) == []


def test_pending_changes_below_the_old_name_reach_the_new_one(tmp_path: Path) -> None:
    """Rewritten with the size and time it had, then renamed: told for the old name alone."""
    instance = Instance(tmp_path)

    def work(_: Running) -> None:
        path = instance.tree / "old" / "d1" / "0001"
        before = path.stat().st_mtime_ns
        path.write_text("CHANGE")
        os.utime(path, ns=(before, before))
        _rename(instance, "old", "new")
        now = instance.clock.wall_us()
        instance.journals[0].commit(
            [
                (b"old/d1/0001", Scope.ENTRY, Kind.CONTENT, now, None),
                (b"old", Scope.TREE, Kind.CONTENT, now, None),
                (b"new", Scope.TREE, Kind.CONTENT, now, b"old"),
            ]
        )

    before = _synced(instance, work)
    node = tmp_path / "node"
    assert (node / "new/d1/0001").read_text() == "CHANGE"
    assert differences(instance.tree, node) == []
    assert _inodes(node / "new")["d0/0000"] == before["d0/0000"]


def test_what_changed_after_the_rename_is_shipped_by_its_bytes(tmp_path: Path) -> None:
    """Rewritten under the new name with the size and time it had, in the same Batch."""
    instance = Instance(tmp_path)

    def work(_: Running) -> None:
        _rename(instance, "old", "new")
        path = instance.tree / "new" / "d1" / "0001"
        before = path.stat().st_mtime_ns
        path.write_text("CHANGE")
        os.utime(path, ns=(before, before))
        now = instance.clock.wall_us()
        instance.journals[0].commit(
            [
                (b"old", Scope.TREE, Kind.CONTENT, now, None),
                (b"new", Scope.TREE, Kind.CONTENT, now, b"old"),
                (b"new/d1/0001", Scope.ENTRY, Kind.CONTENT, now, None),
            ]
        )

    _synced(instance, work)
    assert (tmp_path / "node" / "new/d1/0001").read_text() == "CHANGE"


def test_a_basis_with_open_work_is_compared_by_its_bytes(tmp_path: Path) -> None:
    """A path that failed before the rename is stale on the Node, with the size and time it had."""
    instance = Instance(tmp_path)

    def work(sync: Running) -> None:
        path = instance.tree / "old" / "d1" / "0001"
        before = path.stat().st_mtime_ns
        path.write_text("CHANGE")
        os.utime(path, ns=(before, before))
        now = instance.clock.wall_us()
        sync.state.add_work(
            KEY,
            [
                Work(
                    path=b"old/d1/0001",
                    scope=Scope.ENTRY,
                    compare=Compare.CONTENT,
                    reason=WorkReason.RETRY,
                    since=now,
                    not_before=now + 3_000_000,
                )
            ],
        )
        _rename(instance, "old", "new")
        _moved(instance, ("old", None), ("new", "old"))

    before = _synced(instance, work)
    node = tmp_path / "node"
    assert (node / "new/d1/0001").read_text() == "CHANGE"
    assert _inodes(node / "new")["d0/0000"] == before["d0/0000"]


def test_a_copy_under_the_old_name_shares_no_file(tmp_path: Path) -> None:
    """`mv old new; cp -a new old`: a chmod of one afterwards is not seen in the other."""
    instance = Instance(tmp_path)

    def work(_: Running) -> None:
        _rename(instance, "old", "new")
        shutil.copytree(instance.tree / "new", instance.tree / "old", symlinks=True)
        _moved(instance, ("old", None), ("new", "old"))

    _synced(instance, work)
    node = tmp_path / "node"
    assert differences(instance.tree, node) == []
    assert not set(_inodes(node / "new").values()) & set(_inodes(node / "old").values())


@pytest.mark.parametrize("shape", ["chain", "inside", "swap", "away and back"])
def test_renames_of_renames(shape: str, tmp_path: Path) -> None:
    """Folded into one Batch: all is right, and what can be is taken from the first name."""
    instance = Instance(tmp_path)
    other = instance.tree / "other"

    def work(_: Running) -> None:
        if shape == "chain":
            _rename(instance, "old", "b")
            _rename(instance, "b", "new")
            _moved(instance, ("old", None), ("b", "old"), ("b", None), ("new", "b"))
        elif shape == "inside":
            _rename(instance, "old/d0", "old/e0")
            _rename(instance, "old", "new")
            _moved(instance, ("old/d0", None), ("old/e0", "old/d0"), ("old", None), ("new", "old"))
        elif shape == "swap":
            _filled(other)
            (other / "d0" / "0000").write_text("999999")
            _moved(instance, ("other", None))
        else:
            _rename(instance, "old", "b")
            _rename(instance, "b", "old")
            _moved(instance, ("old", None), ("b", "old"), ("b", None), ("old", "b"))

    before = _synced(instance, work)
    node = tmp_path / "node"
    if shape == "swap":
        _swap(instance)
    assert differences(instance.tree, node) == []
    if shape in {"chain", "away and back"}:
        folder = "new" if shape == "chain" else "old"
        assert _inodes(node / folder) == before


def _swap(instance: Instance) -> None:
    """renameat2(2) with RENAME_EXCHANGE, as a Watcher tells it."""

    async def main() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _rename(instance, "old", "t")
            _rename(instance, "other", "old")
            _rename(instance, "t", "other")
            _moved(instance, ("old", "other"), ("other", "old"))
            await sync.followed()

    run(main)


def test_a_release_renamed_into_the_place_of_another(tmp_path: Path) -> None:
    """Same names, sizes and times, other bytes, and files the new release does not have."""
    instance = Instance(tmp_path)
    live = instance.tree / "new"
    _filled(live)
    (live / "d0" / "gone").write_text("x")

    def work(_: Running) -> None:
        for path in (instance.tree / "old").rglob("0*"):
            path.write_text("AAAAAA")
            twin = live / path.relative_to(instance.tree / "old")
            os.utime(path, ns=(twin.stat().st_mtime_ns,) * 2)
        shutil.rmtree(live)
        _rename(instance, "old", "new")
        instance.changed("new")
        _moved(instance, ("old", None), ("new", "old"))

    _synced(instance, work)
    assert differences(instance.tree, tmp_path / "node") == []


class _Sent(Unobserved):
    """Adds up what the Batches put on the wire."""

    bytes = 0

    def batch_finished(self, *_: object, shipped_bytes: int = 0, **__: object) -> None:
        self.bytes += shipped_bytes


@pytest.mark.parametrize("told", ["at once", "later"])
def test_a_release_swapped_in_costs_its_list(told: str, tmp_path: Path) -> None:
    """`mv live prev; mv next live`: what is kept aside is made of what is live before that is
    changed, whatever comes first in the alphabet; and the second is waited for.
    """
    instance = Instance(tmp_path)
    instance.observer = sent = _Sent()
    tree = instance.tree
    for number in range(FILES):
        path = tree / "live" / f"{number:04}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(4096))
    (tree / "next").mkdir()
    for number in range(FILES):
        (tree / "next" / f"{number:04}").write_bytes(os.urandom(4096))

    def second() -> None:
        _moved(instance, ("next", None), ("live", "next"))

    def work(_: Running) -> None:
        sent.bytes = 0
        _rename(instance, "live", "prev")
        _rename(instance, "next", "live")
        _moved(instance, ("live", None), ("prev", "live"))
        if told == "later":
            asyncio.get_running_loop().call_later(0.03, second)
        else:
            second()

    _synced(instance, work)
    assert differences(tree, tmp_path / "node") == []
    assert sent.bytes < 100_000


@pytest.mark.fault("renamed-across-shards")
def test_halves_in_two_shards_meet(tmp_path: Path) -> None:
    """One Shard saw it leave, the other, later, saw something come: no data is sent."""
    instance = Instance(tmp_path, shards=2)

    def work(_: Running) -> None:
        _rename(instance, "old", "prefix-1/new")
        _moved(instance, ("old", None))
        instance.changed("prefix-1")
        later = lambda: _moved(instance, ("prefix-1/new", None), shard=1)  # noqa: E731 (in time)
        asyncio.get_running_loop().call_later(0.05, later)

    before = _synced(instance, work)
    node = tmp_path / "node"
    assert differences(instance.tree, node) == []
    assert _inodes(node / "prefix-1" / "new") == before


def test_a_rename_within_a_shard_after_one_into_it_costs_no_data(tmp_path: Path) -> None:
    """`mv stage prefix-1/stage; mv prefix-1/stage prefix-1/live`: what came without a hint went on
    with one. Compared by its bytes, as nobody can be sure.
    """
    instance = Instance(tmp_path, shards=2)

    def work(_: Running) -> None:
        path = instance.tree / "old" / "d1" / "0001"
        before = path.stat().st_mtime_ns
        path.write_text("CHANGE")
        os.utime(path, ns=(before, before))
        instance.changed("old/d1/0001")
        _rename(instance, "old", "prefix-1/old")
        _rename(instance, "prefix-1/old", "prefix-1/live")
        instance.changed("prefix-1")
        _moved(instance, ("prefix-1/old", None), ("prefix-1/live", "prefix-1/old"), shard=1)
        _moved(instance, ("old", None))

    before = _synced(instance, work)
    node = tmp_path / "node"
    assert differences(instance.tree, node) == []
    after = _inodes(node / "prefix-1" / "live")
    assert [name for name in before if after[name] != before[name]] == ["d1/0001"]
    assert (node / "prefix-1/live/d1/0001").read_text() == "CHANGE"


def test_a_directory_that_went_through_three_shards_costs_no_data(tmp_path: Path) -> None:
    """`mv old prefix-1/b; mv prefix-1/b prefix-2/b`: each has seen a half of each rename."""
    instance = Instance(tmp_path, shards=3)

    def work(_: Running) -> None:
        _rename(instance, "old", "prefix-1/b")
        _rename(instance, "prefix-1/b", "prefix-2/b")
        instance.changed("prefix-1", "prefix-2")
        _moved(instance, ("prefix-2/b", None), shard=2)
        _moved(instance, ("prefix-1/b", None), shard=1)
        _moved(instance, ("old", None))

    before = _synced(instance, work)
    node = tmp_path / "node"
    assert differences(instance.tree, node) == []
    assert _inodes(node / "prefix-2" / "b") == before


def test_a_write_told_before_the_rename_waits_for_it(tmp_path: Path) -> None:
    """The Shard that owns what lies below is quicker, and tells a write under the old name: the
    old name is not deleted before the other Shard tells where it went.
    """
    instance = Instance(tmp_path, shards=2)

    def work(_: Running) -> None:
        _rename(instance, "old", "new")
        (instance.tree / "new/d0/0000").write_text("rewritten")
        instance.changed("old/d0/0000", shard=1)
        later = lambda: _moved(instance, ("old", None), ("new", "old"))  # noqa: E731 (in time)
        asyncio.get_running_loop().call_later(0.05, later)

    before = _synced(instance, work)
    node = tmp_path / "node"
    assert differences(instance.tree, node) == []
    after = _inodes(node / "new")
    assert [name for name in before if after[name] != before[name]] == ["d0/0000"]


def test_excludes_mean_the_new_place(tmp_path: Path) -> None:
    """What was excluded at the old place is sent, what is at the new one is not touched."""
    instance = Instance(tmp_path)
    node = tmp_path / "node"
    instance.nodes = [replace(local_node(node), exclude=("/old/d0/", "/new/d1/", "*.tmp"))]

    def work(_: Running) -> None:
        (instance.tree / "old" / "d2" / "x.tmp").write_text("x")
        _rename(instance, "old", "new")
        _moved(instance, ("old", None), ("new", "old"))

    _synced(instance, work)
    assert sorted(path.name for path in (node / "new").iterdir()) == ["d0", "d2", "d3", "d4"]
    assert not (node / "new" / "d2" / "x.tmp").exists()
    assert not (node / "old").exists()


def test_an_old_name_that_is_not_deleted_in_the_batch_is_copied(tmp_path: Path) -> None:
    """A catch-up tells where a directory came from and not that it left: it stays for now."""
    instance = Instance(tmp_path)
    node = tmp_path / "node"

    def work(_: Running) -> None:
        _rename(instance, "old", "new")
        _moved(instance, ("new", "old"))

    before = _synced(instance, work)
    assert _inodes(node / "old") == before
    assert not set(_inodes(node / "new").values()) & set(before.values())


def test_a_daemon_that_refuses_is_sent_the_data(tmp_path: Path) -> None:
    """`refuse options = link-dest`: the directory is sent as any other, and nothing stays open."""
    instance = Instance(tmp_path)
    _filled(instance.tree / "old")
    folder = tmp_path / "node"
    folder.mkdir()

    async def work() -> None:
        lines = ["refuse options = link-dest"]
        with RsyncDaemon(workspace=tmp_path, path=folder, module_lines=lines) as daemon:
            instance.nodes = [daemon.node(name="web1")]
            async with running(instance) as sync:
                await sync.followed()
                _rename(instance, "old", "new")
                _moved(instance, ("old", None), ("new", "old"))
                await sync.followed()
                assert differences(instance.tree, folder) == []

    run(work)


@pytest.mark.parametrize("receiver", ["old", "rrsync"])
def test_receivers_that_take_less(receiver: str, tmp_path: Path) -> None:
    """Debian 12's own rsync, whose deletions go by filters, links; behind rrsync data is sent."""
    instance = Instance(tmp_path)
    _filled(instance.tree / "old")
    folder = tmp_path / "node"
    folder.mkdir()

    async def work() -> None:
        with contextlib.ExitStack() as stack:
            if receiver == "old":
                daemon = RsyncDaemon(workspace=tmp_path, path=folder, binary=old_rsync())
                node = stack.enter_context(daemon).node(name="web1")
            else:
                command = f"rrsync -wo {folder}"
                sshd = stack.enter_context(Sshd(workspace=tmp_path, forced_command=command))
                node = sshd.node(Path("/"), name="web1")
            instance.nodes = [node]
            async with running(instance) as sync:
                await sync.followed(seconds=60)
                before = _inodes(folder / "old")
                _rename(instance, "old", "new")
                _moved(instance, ("old", None), ("new", "old"))
                await sync.followed(seconds=60)
                assert differences(instance.tree, folder) == []
                assert (_inodes(folder / "new") == before) is (receiver == "old")

    run(work)


class _Ends:
    """A transport whose runs for renamed directories end as told: a hand-written Moving."""

    def __init__(self, result: RunResult) -> None:
        self.result = result

    def can_move(self, path: bytes) -> bool:
        return path == b"new"

    async def ship(self, paths: Sequence[bytes], **_: object) -> RunResult:
        return RunResult(exit_code=0, outcome=Outcome.SHIPPED, listed=len(paths))

    async def ship_moved(self, path: bytes, **_: object) -> RunResult:
        assert path == b"new"
        return self.result


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateWriter]:
    writer = StateWriter.open(tmp_path / "state.db", clock=SystemClock())
    yield writer
    writer.close()


def _mover(state: StateWriter, ends: _Ends) -> Mover:
    return Mover(
        transport=ends,
        sharing=Sharing(key=KEY, state=state, clock=SystemClock()),
        slots=contextlib.nullcontext(),
        filters_below=lambda _path: (),
        first_below=lambda _path: (),
        is_divided=lambda _path: False,
        may_link=True,
        log=Log("test"),
    )


def _ship(mover: Mover) -> tuple[list[Moved], RunResult | None]:
    move = Move(path=b"new", origins=(b"old",), is_gone=True, is_told=True)
    return asyncio.run(mover.ship([move], check_root=lambda: None, deadline_seconds=1.0))


def test_a_directory_that_was_renamed_on_is_looked_for_but_not_for_ever(
    state: StateWriter,
) -> None:
    """Three times in a row all of the Batch fails, so that the next name is made of the old one;
    then they go on without, for what else is in them, until one is shipped again. Nothing
    counts as shared.
    """
    moved_on = folder_moved_on(b"new")
    ends = _Ends(moved_on)
    mover = _mover(state, ends)
    for _ in range(2):
        assert [_ship(mover) for _ in range(3)] == [([], moved_on)] * 3
        assert [_ship(mover) for _ in range(5)] == [([], None)] * 5
        assert state.read.work(KEY) == []
        ends.result = RunResult(exit_code=0, outcome=Outcome.SHIPPED)
        assert len(_ship(mover)[0]) == 1
        mover.sharing.end([b"old"])
        ends.result = moved_on


def test_what_may_be_shared_after_a_run_that_failed_is_sent_anew(state: StateWriter) -> None:
    """The old name whose files the new one may have by now, and no other; and no sooner shared
    than told.
    """
    failed = RunResult(exit_code=23, outcome=Outcome.NOTHING, trouble=Trouble.UNATTRIBUTED)
    mover = _mover(state, _Ends(failed))
    assert _ship(mover) == ([], None)
    (row,) = state.read.work(KEY)
    assert (row.path, row.compare) == (b"old", Compare.ANEW)
    # It stays where one that has been there before meets a run that is not even started.
    assert _ship(_mover(state, _Ends(folder_moved_on(b"new"))))[1] is not None
    mover.sharing.leave([b"old", b"other"])
    due = state.read.work_due(KEY, now_us=SystemClock().wall_us(), limit=9)
    assert [row.path for row in due] == [b"old"]


def test_the_next_rename_is_waited_for(tmp_path: Path) -> None:
    """Gone again already when the first is read: a Watcher tells of the second a moment later."""
    instance = Instance(tmp_path)

    def work(_: Running) -> None:
        _rename(instance, "old", "b")
        _rename(instance, "b", "new")
        _moved(instance, ("old", None), ("b", "old"))
        later = lambda: _moved(instance, ("b", None), ("new", "b"))  # noqa: E731 (in time)
        asyncio.get_running_loop().call_later(0.03, later)

    before = _synced(instance, work)
    assert differences(instance.tree, tmp_path / "node") == []
    assert _inodes(tmp_path / "node" / "new") == before


def test_the_next_rename_within_the_delay_is_waited_for(tmp_path: Path) -> None:
    """It is journaled, and too young to be read when the first is old enough."""
    instance = Instance(tmp_path)
    instance.sync = SyncSettings(delay_seconds=0.4, max_delay_seconds=10.0)

    def work(_: Running) -> None:
        _rename(instance, "old", "b")
        _rename(instance, "b", "new")
        _moved(instance, ("old", None), ("b", "old"))
        _moved(instance, ("b", None), ("new", "b"), later_us=200_000)

    before = _synced(instance, work)
    assert differences(instance.tree, tmp_path / "node") == []
    assert _inodes(tmp_path / "node" / "new") == before


@pytest.mark.fault("renamed-on")
@pytest.mark.parametrize("kind", ["local", "daemon"])
def test_a_rename_while_the_first_is_shipped_costs_no_data(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old name is kept until the next Change tells what has become of it."""
    instance = Instance(tmp_path)
    tree = instance.tree
    _filled(tree / "old")
    rsync_after(
        tmp_path / "bin", f"[ ! -d {tree}/b ] || mv {tree}/b {tree}/new", monkeypatch=monkeypatch
    )

    async def work() -> None:
        with node_of_kind(kind, tmp_path) as (node, folder):
            instance.nodes = [node]
            async with running(instance) as sync:
                await sync.followed()
                before = _inodes(folder / "old")
                _rename(instance, "old", "b")
                _moved(instance, ("old", None), ("b", "old"))
                await sync.until((tree / "new").is_dir)
                _moved(instance, ("b", None), ("new", "b"))
                await sync.followed()
                assert differences(tree, folder) == []
                assert _inodes(folder / "new") == before
                assert row_of(sync).state is NodeState.FOLLOWING

    run(work)


def test_a_node_that_deletes_nothing_keeps_the_old_name(tmp_path: Path) -> None:
    """It copies: the two names share no file."""
    instance = Instance(tmp_path)
    node = tmp_path / "node"
    instance.nodes = [replace(local_node(node), delete=False)]

    def work(_: Running) -> None:
        _rename(instance, "old", "new")
        _moved(instance, ("old", None), ("new", "old"))

    before = _synced(instance, work)
    assert _inodes(node / "old") == before
    assert not set(_inodes(node / "new").values()) & set(before.values())
    assert (node / "new/d0/0000").read_text() == "000000"


@pytest.mark.parametrize("emptied", [False, True])
def test_max_delete_counts_what_a_rename_loses(*, emptied: bool, tmp_path: Path) -> None:
    """A rename deletes nothing; what is not under the new name any more counts."""
    instance = Instance(tmp_path)
    instance.sync = SyncSettings(max_delete=DeleteLimit(entries=10, share=None))
    _filled(instance.tree / "old", files=600)
    node = tmp_path / "node"
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            _rename(instance, "old", "new")
            if emptied:
                for name in ("d0", "d1", "d2"):
                    shutil.rmtree(instance.tree / "new" / name)
            _moved(instance, ("old", None), ("new", "old"))
            if emptied:
                await sync.until(lambda: bool(row_of(sync).halted))
                assert len(_inodes(node / "old")) > 300
            else:
                await sync.followed()
                assert differences(instance.tree, node) == []
                assert sync.state.read.deleted_since(KEY, 0) == 0

    run(work)


def test_killed_between_link_and_deletion_nothing_stays_shared(tmp_path: Path) -> None:
    """The old name came back while the sync process was down: its files are its own."""
    instance = Instance(tmp_path)
    _filled(instance.tree / "old", files=4000)
    node = tmp_path / "node"
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with killed_at_exit(instance) as sync:
            await sync.followed()
            _rename(instance, "old", "new")
            _moved(instance, ("old", None), ("new", "old"))
            await sync.until(lambda: len(_inodes(node / "new")) > 10)
            assert WorkReason.MOVE in sync.state.read.work_reasons(KEY)
        shared = set(_inodes(node / "new").values()) & set(_inodes(node / "old").values())
        assert shared, "it was too late to kill it"
        shutil.copytree(instance.tree / "new", instance.tree / "old", symlinks=True)
        _moved(instance, ("old", None))
        async with running(instance) as sync:
            await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            await sync.followed()
        assert differences(instance.tree, node) == []
        assert not set(_inodes(node / "new").values()) & set(_inodes(node / "old").values())

    run(work)
