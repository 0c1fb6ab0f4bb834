"""The Journals' files as the Coordinator sees them: made at plan time, removed when outlived.

A Journal that a Shard observes into is its Watcher's alone; here it is only
read. A retired one has no writer any more, so this prunes it, under its flock.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from shardsync.clock import Clock
from shardsync.errors import AlreadyRunning, StateUnusable
from shardsync.journal.locks import FileLock
from shardsync.journal.plan import Origin, PlannedShard
from shardsync.journal.progress import Progress
from shardsync.journal.reader import JournalReader
from shardsync.journal.state_reader import StateReader
from shardsync.journal.writer import JournalWriter
from shardsync.layout import StateDirectory
from shardsync.model import JournalId, ShardId

_PREFIX = "journal-"
_SUFFIX = ".db"


class Journals(Protocol):
    """What the Coordinator does with Journals."""

    def ids(self) -> frozenset[ShardId]:
        """Shards that have a Journal on disk into which somebody wrote."""
        ...

    def create(self, shard: PlannedShard) -> None:
        """Make the empty Journal of a Shard. Idempotent. Raises StateUnusable."""
        ...

    def progress(self, shard: ShardId) -> Progress | None:
        """How its Watcher is doing; None where that cannot be read."""
        ...

    def outlive(self, shard: PlannedShard, *, before_us: int, max_bytes: int) -> bool:
        """Prune a retired Journal; whether nobody needs it any more."""
        ...

    def remove(self, shard: ShardId) -> None:
        """Remove the Journal's files. Idempotent. Raises StateUnusable."""
        ...


class JournalFolder:
    """The Journals in a state directory."""

    def __init__(self, *, state: StateDirectory, clock: Clock) -> None:
        self._state = state
        self._clock = clock

    def ids(self) -> frozenset[ShardId]:
        names = (path.name for path in self._state.path.glob(f"{_PREFIX}*{_SUFFIX}"))
        shards = (ShardId(name[len(_PREFIX) : -len(_SUFFIX)]) for name in names)
        return frozenset(shard for shard in shards if not self._is_unused(shard))

    def create(self, shard: PlannedShard) -> None:
        """As promised by the Protocol.

        Crash safety: the writer makes it under another name and renames it. A
        Journal that no Plan came to name is found by its never having been
        written to, and made anew.
        """
        path = self._state.journal(shard.id)
        with self._lock(shard.id):
            if path.exists():
                if self._is_made(shard, path):
                    return
                if not self._is_unused(shard.id):
                    raise StateUnusable(f"journal of {shard.id}: in use under another id")
                self._remove_files(path)
            JournalWriter.create(
                path,
                shard=shard.id,
                tree=shard.tree,
                journal_id=shard.journal_id,
                clock=self._clock,
            ).close()

    def progress(self, shard: ShardId) -> Progress | None:
        reader = JournalReader(self._state.journal(shard))
        try:
            return reader.progress()
        except StateUnusable:
            return None
        finally:
            reader.close()

    def outlive(self, shard: PlannedShard, *, before_us: int, max_bytes: int) -> bool:
        """As promised by the Protocol.

        Nobody needs it when it holds no Change any more, its Watcher ended
        before `before_us`, and no Node's Cursor in it lies below what was
        pruned: such a Node must first learn that it is behind the retention,
        and one that knows another Journal or none, that it has lost this one.
        """
        path = self._state.journal(shard.id)
        if not path.exists():
            return True
        try:
            with self._lock(shard.id):
                writer = JournalWriter.open(
                    path, shard=shard.id, tree=shard.tree, clock=self._clock
                )
                try:
                    return self._is_outlived(shard, writer, before_us, max_bytes)
                finally:
                    writer.close()
        except AlreadyRunning:
            # Its Watcher still drains.
            return False

    def remove(self, shard: ShardId) -> None:
        with self._lock(shard):
            self._remove_files(self._state.journal(shard))

    def _lock(self, shard: ShardId) -> FileLock:
        return FileLock.acquire(self._state.lock(f"journal-{shard}"))

    def _is_unused(self, shard: ShardId) -> bool:
        """Whether no Watcher has ever written to this Journal: no Plan came to name it."""
        progress = self.progress(shard)
        return progress is not None and progress.last_position == 0 and progress.pid == 0

    def _is_made(self, shard: PlannedShard, path: Path) -> bool:
        reader = JournalReader(path)
        try:
            return reader.journal_id() == shard.journal_id
        finally:
            reader.close()

    def _is_outlived(
        self, shard: PlannedShard, writer: JournalWriter, before_us: int, max_bytes: int
    ) -> bool:
        while writer.prune(before_us=before_us, max_bytes=max_bytes):
            pass
        progress = writer.progress()
        return (
            # Positions do not tell: an Epoch begins above what was pruned, and may have no Change.
            writer.is_empty()
            and progress.heartbeat_us < before_us
            and all(at >= progress.pruned_to for at in self._cursors(shard, writer.journal_id))
        )

    def _cursors(self, shard: PlannedShard, journal_id: JournalId) -> Iterable[int]:
        """Position in this Journal of every Node that was met; -1: it has lost it.

        Raises StateUnusable where they cannot be read.
        """
        reader = StateReader(self._state.state_db)
        is_from_replan = shard.made_by is Origin.REPLAN and shard.journal_id == journal_id
        try:
            for key, row in reader.nodes().items():
                if key[0] != shard.tree or not row.contacted:
                    continue
                cursor = reader.cursors(key).get(shard.id)
                if cursor is None:
                    # It was away for as long as the Shard lived, and begins at its beginning.
                    yield 0 if is_from_replan else -1
                else:
                    yield cursor.position if cursor.journal_id == journal_id else -1
        finally:
            reader.close()

    def _remove_files(self, path: Path) -> None:
        # The database first: without it its side files mean nothing, but not the other way round.
        try:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise StateUnusable(f"journal {path}: {error}") from error
