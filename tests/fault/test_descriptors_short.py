"""No descriptors are left, for the n-th that is asked for: n from 0 until all goes well."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from shardsync.journal.requests import RequestKind
from tests.support.compare import differences
from tests.support.descriptors import descriptors_left, open_descriptors
from tests.support.nodes import local_node
from tests.support.shipping import KEY, ask, fill, newest, row_of
from tests.support.sync import Instance, Running, run, running
from tests.support.watching import Watching


def tick(watching: Watching) -> None:
    for _ in range(20):
        watching.tick(0)


def flushed(watching: Watching, name: str) -> set[tuple[str, bytes]]:
    """What was journaled since, once a flush is acknowledged."""
    watching.touch(name)
    seen = watching.seen()
    assert name in watching.cookies()
    return seen


def is_told(seen: set[tuple[str, bytes]], path: str) -> bool:
    """Whether a Change bids to look at it: its own, or a `tree` above it."""
    parts = path.split("/")
    above = {("tree", os.fsencode("/".join(parts[:number]))) for number in range(len(parts) + 1)}
    return bool(seen & (above | {("entry", os.fsencode(path))}))


@pytest.mark.fault("descriptors-short")
def test_a_watcher_misses_nothing_and_leaks_nothing(tmp_path: Path) -> None:
    """New directories of several levels, renames and an overflow's scan, with few to be had."""
    watching = Watching(tmp_path).start()
    (watching.root / "first").touch()
    flushed(watching, "flush-first")
    usual = open_descriptors()
    try:
        for left in range(12):
            deep = watching.root / f"d{left}/e/f/g"
            deep.mkdir(parents=True)
            (deep / "early").touch()
            with descriptors_left(left):
                tick(watching)
                os.rename(watching.root / f"d{left}/e", watching.root / f"d{left}/moved")
                tick(watching)
            deep = watching.root / f"d{left}/moved/f/g"
            (deep / "late").touch()
            seen = flushed(watching, f"flush-{left}-a")
            assert is_told(seen, os.path.relpath(deep / "early", watching.root))
            assert is_told(seen, os.path.relpath(deep / "late", watching.root))
            (deep / "later").touch()
            seen = flushed(watching, f"flush-{left}-b")
            assert ("entry", os.fsencode(f"d{left}/moved/f/g/later")) in seen
            assert open_descriptors() == usual
    finally:
        watching.close()


async def arrived(sync: Running) -> None:
    """Flush until it ends well. Where the root cannot be looked at, it says so at once."""
    answer = await ask(sync, RequestKind.FLUSH, positions=newest(sync.instance))
    if answer.exit_code:
        assert "open files" in answer.message
        await arrived(sync)


@pytest.mark.fault("descriptors-short")
def test_a_sync_process_backs_off_and_leaks_nothing(tmp_path: Path) -> None:
    """Whatever rsync, its pipes or a database lack one for: it goes on once there are some."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"d/page": "0"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            transport = next(iter(sync.service._served.posts.values())).transport
            usual = 0
            for left in range(20):
                if left == 1:
                    # Each waiting rsync holds some: it is there at both counts.
                    await sync.until(lambda: transport.warm_seconds is not None)
                    usual = open_descriptors()
                fill(tree, {"d/page": f"{left} {'x' * left}", f"d/new{left}": "1"})
                with descriptors_left(left):
                    instance.changed("d/page", f"d/new{left}")
                    await asyncio.sleep(0.1)
                await arrived(sync)
                assert differences(tree, node) == []
            # What was just ending at the first count may be gone; a leak means more.
            await sync.until(
                lambda: transport.warm_seconds is not None and open_descriptors() <= usual
            )
            assert row_of(sync).last_error == ""
            assert sync.state.read.work_summary(KEY)[0] == 0

    run(work)
