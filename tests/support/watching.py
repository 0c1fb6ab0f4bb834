"""A Watcher in this process on a temporary tree: change the tree, tick until quiet, read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardsync.clock import Clock, SystemClock
from shardsync.journal.database import connect_reader
from shardsync.journal.plan import Plan, PlannedShard
from shardsync.journal.progress import Progress
from shardsync.journal.reader import JournalReader
from shardsync.journal.writer import JournalWriter
from shardsync.layout import StateDirectory
from shardsync.log import Log
from shardsync.model import Change, JournalId, Scope, ShardId
from shardsync.watch.assemble import open_watcher
from shardsync.watch.gathered import Filter, NoFilter
from shardsync.watch.watcher import Retention, Tick, Watcher


def planned(
    number: int = 0, prefixes: tuple[bytes, ...] = (b"",), **fields: object
) -> PlannedShard:
    """A Shard of the tree `main`."""
    return PlannedShard(
        id=ShardId(f"main-{number:02d}"),
        tree="main",
        slot=number,
        prefixes=prefixes,
        journal_id=JournalId(""),
        **fields,  # type: ignore[arg-type]
    )


@dataclass
class Watching:
    """One Shard's Watcher on `root`, with its state beside it."""

    folder: Path
    shard: PlannedShard = field(default_factory=planned)
    others: tuple[PlannedShard, ...] = ()
    excluded: Filter = field(default_factory=NoFilter)
    max_open_seconds: float = 10.0
    clock: Clock = field(default_factory=SystemClock)
    wake_fd: int | None = None
    watcher: Watcher | None = None
    _after: int = 0

    @property
    def root(self) -> Path:
        return self.folder / "tree"

    @property
    def state(self) -> StateDirectory:
        return StateDirectory(self.folder / "state")

    def start(self) -> Watching:
        """Start and catch up; an empty tree where there is none."""
        self.root.mkdir(exist_ok=True)
        self.begin()
        self.quiet()
        return self

    def begin(self) -> Watcher:
        """Start without ticking."""
        self.state.make()
        self.watcher = open_watcher(
            shard=self.shard,
            plan=Plan(generation=1, shards=(self.shard, *self.others)),
            root=os.fsencode(self.root),
            state=self.state,
            open_journal=self._open_journal,
            excluded=self.excluded,
            max_open_seconds=self.max_open_seconds,
            retention=Retention(seconds=3600.0, max_bytes=1 << 30),
            clock=self.clock,
            log=Log("watch", shard=self.shard.id),
            wake_fd=self.wake_fd,
        )
        self.watcher.start()
        return self.watcher

    def tick(self, timeout: float = 0.02) -> Tick:
        assert self.watcher is not None
        return self.watcher.tick(timeout)

    def quiet(self, ticks: int = 2000) -> None:
        """Tick until two ticks in a row have nothing to do."""
        idle = 0
        for _ in range(ticks):
            idle = idle + 1 if self.tick().idle else 0
            if idle == 2:
                return
        raise AssertionError("the Watcher does not come to rest")

    def stop(self) -> bool:
        """A clean stop."""
        assert self.watcher is not None
        watcher, self.watcher = self.watcher, None
        return watcher.stop()

    def drop(self) -> None:
        """As if killed: nothing is committed, nothing is said."""
        assert self.watcher is not None
        watcher, self.watcher = self.watcher, None
        watcher._inotify.close()
        watcher._mounts.close()
        watcher._scanner.agenda.abandon()
        watcher._ledger.journal._connection.close()

    def close(self) -> None:
        """For the end of a test. Idempotent."""
        if self.watcher is not None:
            self.drop()

    def changes(self) -> list[Change]:
        """The Changes journaled since the last call."""
        reader = JournalReader(self.state.journal(self.shard.id))
        try:
            found = reader.read(after=self._after, limit=1_000_000)
        finally:
            reader.close()
        if found:
            self._after = found[-1].position
        return found

    def seen(self) -> set[tuple[str, bytes]]:
        """(scope, path) of the Changes journaled since the last call, after coming to rest."""
        self.quiet()
        return {(Scope(change.scope).name.lower(), change.path) for change in self.changes()}

    def paths(self) -> set[bytes]:
        """The paths of the Changes journaled since the last call, after coming to rest."""
        return {path for _, path in self.seen()}

    def touch(self, name: str) -> None:
        """Make a cookie."""
        (self.state.cookies / name).touch()

    def cookies(self) -> dict[str, int]:
        """Acknowledged flush cookies: name -> Position."""
        return dict(self._query("SELECT name, position FROM cookies"))

    def remembered(self) -> set[bytes]:
        """The names of the directories that the Journal remembers, the root's b""."""
        return {row[0] for row in self._query("SELECT name FROM dirs")}

    def epochs(self) -> list[str]:
        """The reasons of all Epochs, oldest first."""
        return [row[0] for row in self._query("SELECT reason FROM epochs ORDER BY number")]

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        connection = connect_reader(self.state.journal(self.shard.id))
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def progress(self) -> Progress:
        reader = JournalReader(self.state.journal(self.shard.id))
        try:
            return reader.progress()
        finally:
            reader.close()

    def _open_journal(self) -> JournalWriter:
        return JournalWriter.open(
            self.state.journal(self.shard.id),
            shard=self.shard.id,
            tree=self.shard.tree,
            clock=self.clock,
        )
