"""The rolling audit: what was done to a Node by hand is found and healed, by the rules."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from shardsync.journal.records import RoundKind
from shardsync.model import NodeState, Scope
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import KEY, fill, names_below, row_of
from tests.support.sync import Instance, Running, run, running

FILES = {f"d{number}/{part}/f": f"{number}" for number in range(6) for part in "ab"}


def _instance(tmp_path: Path, *, every: float = 1.0, checksum: bool = False) -> Instance:
    instance = Instance(tmp_path)
    fill(instance.tree, {**FILES, "top": "1"})
    instance.nodes = [
        dataclasses.replace(
            local_node(tmp_path / "node"), audit_every_seconds=every, audit_checksum=checksum
        )
    ]
    return instance


async def _audited(sync: Running, *, rounds: int = 1) -> None:
    """Wait until so many rounds that begin from now on are over."""
    for _ in range(rounds):
        now = sync.instance.clock.wall_us()
        await sync.until(lambda: (row_of(sync).audited_at or 0) >= now, seconds=40)  # noqa: B023 (awaited here)


@pytest.mark.fault("node-edited")
def test_what_was_done_by_hand_is_healed_on_an_owned_node(tmp_path: Path) -> None:
    """One file altered, one removed, one added, at any depth: no Change tells of them."""
    instance, node = _instance(tmp_path), tmp_path / "node"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert row_of(sync).owned
            fill(node, {"d1/a/f": "altered", "d2/added/deep/x": "1", "added": "1"})
            os.unlink(node / "d3/b/f")
            os.unlink(node / "top")
            await sync.until(lambda: differences(instance.tree, node) == [], seconds=40)
            await _audited(sync)
            assert row_of(sync).state is NodeState.FOLLOWING
            verified = row_of(sync).verified_at
            await _audited(sync)
            assert (row_of(sync).verified_at or 0) > (verified or 0) > 0

    run(work)


def test_what_was_added_to_another_node_is_listed_and_kept(tmp_path: Path) -> None:
    """Not owned: what is altered or missing is healed, what is beside the tree stays."""
    instance, node = _instance(tmp_path), tmp_path / "node"
    fill(node, {"own": "the node's"})

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            assert row_of(sync).owned is False
            fill(node, {"d1/a/f": "altered", "d2/added/deep/x": "1"})
            os.unlink(node / "d3/b/f")
            foreign = [b"d2/added", b"own"]
            await sync.until(lambda: sync.state.read.foreign_paths(KEY) == foreign, seconds=40)
            await _audited(sync)
            await sync.followed()
            extra = {"own", "d2/added", "d2/added/deep", "d2/added/deep/x"}
            assert set(names_below(node)) - set(names_below(instance.tree)) == extra
            assert (node / "d1/a/f").read_text() == "1"
            assert (node / "d3/b/f").read_text() == "3"

    run(work)


@pytest.mark.fault("same-size-same-time")
@pytest.mark.parametrize("checksum", [False, True])
def test_equal_size_and_time_are_told_apart_only_by_checksum(
    tmp_path: Path, *, checksum: bool
) -> None:
    """By default the audit goes by size, time, mode, owner and link target, as verify does."""
    instance, node = _instance(tmp_path, checksum=checksum), tmp_path / "node"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            times = (node / "d1/a/f").stat()
            (node / "d1/a/f").write_text("X")
            os.utime(node / "d1/a/f", ns=(times.st_atime_ns, times.st_mtime_ns))
            await _audited(sync, rounds=2)
            await sync.followed()
            assert (node / "d1/a/f").read_text() == ("1" if checksum else "X")

    run(work)


@pytest.mark.fault("hard-links")
def test_what_is_pending_is_no_difference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Changes that wait for their delay while a round goes by are told of by nobody: not of a
    file with several names, which was written through one that it then lost; and not where
    there are more of them than one look at a Node keeps.
    """
    instance, node = _instance(tmp_path), tmp_path / "node"
    instance.sync = dataclasses.replace(
        instance.sync, delay_seconds=3600.0, max_delay_seconds=7200.0
    )
    os.link(instance.tree / "d3/a/f", instance.tree / "d4/b/other")
    os.link(instance.tree / "d3/a/f", instance.tree / "d4/b/third")
    deployed = [f"d5/new{number}" for number in range(2_100)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed(seconds=30)
            (instance.tree / "d4/b/other").write_text("through one of them")
            instance.changed("d4/b/other")
            await sync.until(lambda: sync.state.read.has_links("main"))
            os.unlink(instance.tree / "d4/b/other")
            fill(instance.tree, {"d1/a/f": "new", "d9/x": "1", **dict.fromkeys(deployed, "")})
            os.unlink(instance.tree / "d2/a/f")
            instance.changed("d1/a/f", "d9", "d9/x", "d2/a/f", "d4/b/other", *deployed)
            await _audited(sync)
            assert (node / "d1/a/f").read_text() == "1"
            assert (node / "d2/a/f").exists()
            assert (node / "d3/a/f").read_text() == "3"
            assert not (node / "d5/new7").exists()
            assert sync.state.read.work(KEY) == []

    run(work)
    assert not [record for record in caplog.records if "audit.differs" in record.getMessage()]


def test_what_is_not_journaled_yet_is_no_difference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A Watcher that stands still, or a file that is being written: the audit waits for it."""
    instance, node = _instance(tmp_path), tmp_path / "node"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed(seconds=30)
            instance.journals[0].commit(progress={"watermark_us": instance.clock.wall_us()})
            fill(instance.tree, {"d1/a/f": "is written for long"})
            before = row_of(sync).audited_at
            await sync.until(lambda: sync.state.read.audit_piece(KEY) is not None, seconds=40)
            await asyncio.sleep(3)
            assert (node / "d1/a/f").read_text() == "1"
            instance.changed("d1/a/f")
            ahead = instance.clock.wall_us() + 3_600_000_000
            instance.journals[0].commit(progress={"watermark_us": ahead})
            await sync.followed()
            await sync.until(lambda: row_of(sync).audited_at != before, seconds=40)
            assert (node / "d1/a/f").read_text() == "is written for long"

    run(work)
    assert not [record for record in caplog.records if "audit.differs" in record.getMessage()]


def test_what_lay_below_a_file_of_now_is_no_difference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A path that differed, and is nowhere when it is judged: a Change is about to tell of it."""
    instance = _instance(tmp_path)

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed(seconds=30)
            instance.journals[0].commit(progress={"watermark_us": instance.clock.wall_us()})
            fill(instance.tree, {"d1/a/f": "differs"})
            auditor = next(iter(sync.service._served.posts.values())).auditor

            def has_found() -> bool:
                return auditor._compared is not None and not auditor._compared.found.is_empty

            await sync.until(has_found, seconds=40)
            before = row_of(sync).audited_at
            shutil.rmtree(instance.tree / "d1/a")
            (instance.tree / "d1/a").write_text("a file now")
            ahead = instance.clock.wall_us() + 3_600_000_000
            instance.journals[0].commit(progress={"watermark_us": ahead})
            await sync.until(lambda: not has_found(), seconds=40)
            instance.changed("d1/a", scope=Scope.TREE)
            await sync.until(lambda: row_of(sync).audited_at != before, seconds=40)

    run(work)
    assert not [record for record in caplog.records if "audit.differs" in record.getMessage()]


def test_a_round_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Its pieces are in state.db: what was compared is not compared again."""
    instance = _instance(tmp_path, every=30.0)
    left: list[int] = []

    def done(sync: Running) -> int:
        found = sync.state.read.round(KEY, RoundKind.AUDIT)
        return -1 if found is None else found.done

    async def first() -> None:
        async with running(instance) as sync:
            await sync.followed()
            # As if it had been verified long ago: the first round is due.
            sync.state.set_node(KEY, verified_at=1)
            await sync.until(lambda: done(sync) >= 1, seconds=40)
            left.append(done(sync))

    async def second() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: done(sync) >= 0)
            assert done(sync) >= left[0]

    run(first)
    run(second)


def test_no_audit_where_it_is_switched_off(tmp_path: Path) -> None:
    """`audit_every = "0s"`: nothing is compared, nothing healed."""
    instance, node = _instance(tmp_path, every=0.0), tmp_path / "node"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            fill(node, {"d1/a/f": "altered"})
            sync.state.set_node(KEY, verified_at=1)
            await asyncio.sleep(3)
            assert sync.state.read.round(KEY, RoundKind.AUDIT) is None
            assert (node / "d1/a/f").read_text() == "altered"

    run(work)
