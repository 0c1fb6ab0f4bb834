"""Somebody reads a Journal and never ends: it grows meanwhile, and is small again afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardsync.journal.database import connect_reader
from shardsync.journal.reader import JournalReader
from shardsync.journal.state_reader import StateReader
from tests.support.nodes import local_node
from tests.support.shipping import fill
from tests.support.sync import Instance, run, running

LONG_PATHS = [(b"%d" % number * 600, 1, 1, 1, None) for number in range(10_000, 26_000)]
WAL_BYTES = 33_000_000


@pytest.mark.fault("reader-stuck")
def test_the_write_ahead_log_is_small_again(tmp_path: Path) -> None:
    """A transaction that is open for long keeps SQLite from using the log anew."""
    journal = Instance(tmp_path).journals[0]
    log = journal.path.with_name(journal.path.name + "-wal")
    reader = connect_reader(journal.path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM progress").fetchall()
    journal.commit(LONG_PATHS)
    journal.commit()
    assert log.stat().st_size > WAL_BYTES
    reader.execute("COMMIT")
    for _ in range(3):
        journal.commit(LONG_PATHS[:1])
    assert log.stat().st_size < WAL_BYTES
    reader.close()


@pytest.mark.fault("reader-stuck")
def test_our_own_readers_hold_nothing_open(tmp_path: Path) -> None:
    """With a sync process at work and readers that stay connected the logs can be used anew."""
    instance = Instance(tmp_path)
    fill(instance.tree, {"a": "1"})
    instance.nodes = [local_node(tmp_path / "node")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            instance.changed("a")
            await sync.followed()
            journal, state = instance.journals[0], sync.state
            reader, status = JournalReader(journal.path), StateReader(state.path)
            assert reader.read(after=0, limit=1)
            assert reader.progress()
            assert reader.epochs()
            assert status.nodes()
            for connection in (journal._connection, state._database.connection):
                checkpointed = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                assert checkpointed == (0, 0, 0)  # not busy, and nothing is left in the log
            reader.close()
            status.close()

    run(work)
