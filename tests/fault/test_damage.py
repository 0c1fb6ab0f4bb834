"""Pages of a database are overwritten while it is in use: found, set aside, made anew."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.journal.requests import RequestKind
from shardsync.model import EpochReason, ShardState
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import ask, fill, newest
from tests.support.sync import Instance, begun, run, running
from tests.support.watching import Watching

ROWS = [(b"%d" % number * 40, 1, 1, 1, None) for number in range(5000)]


def damage(connection: sqlite3.Connection, path: Path) -> None:
    """All pages of the file but the first, as they are after a checkpoint."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


def set_aside(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.corrupt-*"))


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    made = Watching(tmp_path).start()
    assert made.watcher is not None
    made.watcher._ledger.journal.commit(ROWS)
    yield made
    made.close()


@pytest.mark.fault("journal-corrupt")
@pytest.mark.parametrize("by", ["its own commit", "a reader's doubt"])
def test_a_journal_that_is_damaged_in_use_is_replaced(watching: Watching, by: str) -> None:
    """By another with another id, whatever part of it the Watcher itself would ever read."""
    assert watching.watcher is not None
    journal = watching.watcher._ledger.journal
    damage(journal._connection, journal.path)
    if by == "a reader's doubt":
        watching.state.doubt(watching.shard.id).touch()
        watching.tick()
    else:
        journal._connection.execute("PRAGMA cache_size = 0")
        (watching.root / "told-twice").touch()
        for _ in range(5):
            watching.tick()
    watching.watcher._last_heartbeat = -1000.0
    watching._after = 0
    watching.quiet()
    assert watching.epochs() == [EpochReason.JOURNAL_LOST]
    assert set_aside(journal.path)
    (watching.root / "new").touch()
    assert b"new" in watching.paths()


@pytest.mark.fault("journal-corrupt")
def test_what_the_sync_process_finds_damaged_is_mended(tmp_path: Path) -> None:
    """A Journal's Watcher is asked to look at it. state.db is the process's own: it ends, and
    the next one sets it aside and compares the Nodes.
    """
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"a": "1", "b": "1"})
    instance.nodes = [local_node(node)]
    doubt = instance.state_dir.doubt("main-00")

    async def work() -> None:
        sync, task = begun(instance)
        await sync.followed()
        journal = instance.journals[0]
        journal.commit(ROWS)
        damage(journal._connection, journal.path)
        await sync.until(doubt.exists)
        damage(sync.state._database.connection, sync.state.path)
        sync.state._database.connection.execute("PRAGMA cache_size = 0")
        async with asyncio.timeout(20):
            await asyncio.wait({task})

    async def again() -> None:
        async with running(instance) as sync:
            assert set_aside(sync.state.path)
            await sync.followed()
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            assert differences(tree, node) == []

    run(work)
    instance.journals[0].set_aside()
    instance.journal_anew(state=ShardState.FOLLOWING)
    run(again)
