"""A sync process in the test's own process, fed by a Journal that the test writes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from shardsync.clock import SystemClock
from shardsync.config.settings import NodeSettings, Settings, SyncSettings, TreeSettings
from shardsync.journal.plan import Plan, PlannedShard, write_plan
from shardsync.journal.state_writer import StateWriter
from shardsync.journal.writer import JournalWriter, Row
from shardsync.layout import StateDirectory
from shardsync.log import Log
from shardsync.model import EpochReason, JournalId, Kind, Scope, ShardId, ShardState
from shardsync.ship.observer import ShipObserver, Unobserved
from shardsync.ship.service import SyncService

SETTLE_SECONDS = 15.0


_AN_HOUR_US = 3_600_000_000


class Instance:
    """One Tree `main` in `folder/tree`, its state in `folder/state`, Shards by hand."""

    def __init__(self, folder: Path, *, shards: int = 1) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.tree.mkdir(exist_ok=True)
        self.state_dir = StateDirectory(folder / "state")
        self.state_dir.make()
        self.clock = SystemClock()
        self.journals = [self._journal(number) for number in range(shards)]
        self.nodes: list[NodeSettings] = []
        self.sync = SyncSettings()
        self.exclude: tuple[str, ...] = ()
        self.marker = ""
        self.more_trees: tuple[TreeSettings, ...] = ()
        self.plan: Plan | None = None
        self.observer: ShipObserver = Unobserved()

    def write_plan(self, plan: Plan | None = None) -> None:
        shards = tuple(
            PlannedShard(
                id=ShardId(f"main-{number:02d}"),
                tree="main",
                slot=number,
                prefixes=(b"",) if number == 0 else (b"prefix-%d" % number,),
                journal_id=journal.journal_id,
            )
            for number, journal in enumerate(self.journals)
        )
        write_plan(self.state_dir.plan, plan or self.plan or Plan(generation=1, shards=shards))

    def settings(self) -> Settings:
        return Settings(
            source=self.folder / "shardsync.toml",
            state_dir=self.state_dir.path,
            trees=(
                TreeSettings(
                    name="main", root=self.tree, exclude=self.exclude, marker=self.marker
                ),
                *self.more_trees,
            ),
            nodes=tuple(self.nodes),
            sync=self.sync,
            metrics_listen=None,
        )

    def changed(
        self,
        *paths: str | bytes,
        scope: Scope = Scope.ENTRY,
        kind: Kind = Kind.CONTENT,
        shard: int = 0,
    ) -> int:
        """Journal Changes of these paths; the last Position."""
        now = self.clock.wall_us()
        rows: Sequence[Row] = [(os.fsencode(path), scope, kind, now, None) for path in paths]
        return self.journals[shard].commit(rows)

    def journal_anew(self, *, state: ShardState) -> JournalWriter:
        """The first Shard's Journal is lost, and its Watcher makes another, in that state."""
        self.journals[0].close()
        path = self.state_dir.journal("main-00")
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        writer = JournalWriter.open(path, shard=ShardId("main-00"), tree="main", clock=self.clock)
        writer.begin_epoch(EpochReason.JOURNAL_LOST)
        writer.commit(progress={"state": state.value})
        self.journals[0] = writer
        return writer

    def _journal(self, number: int) -> JournalWriter:
        path = self.state_dir.journal(f"main-{number:02d}")
        writer = (
            JournalWriter.open(
                path, shard=ShardId(f"main-{number:02d}"), tree="main", clock=self.clock
            )
            if path.exists()
            else JournalWriter.create(
                path,
                shard=ShardId(f"main-{number:02d}"),
                tree="main",
                journal_id=JournalId(f"{number:032x}"),
                clock=self.clock,
            )
        )
        writer.begin_epoch(EpochReason.FIRST_START)
        # Tests journal what they change themselves: no change is still to be told.
        told_us = self.clock.wall_us() + _AN_HOUR_US
        writer.commit(progress={"state": ShardState.FOLLOWING.value, "watermark_us": told_us})
        return writer


class Running:
    """A running sync process and what can be read of it."""

    def __init__(self, instance: Instance, service: SyncService, state: StateWriter) -> None:
        self.instance = instance
        self.service = service
        self.state = state

    async def until(self, what: Callable[[], bool], *, seconds: float = SETTLE_SECONDS) -> None:
        """Wait for something to become true."""
        async with asyncio.timeout(seconds):
            while not what():  # noqa: ASYNC110 (what is awaited is in files)
                await asyncio.sleep(0.01)

    async def followed(self, *, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until every Node has everything that is journaled, with nothing open."""
        await self.until(self._is_followed, seconds=seconds)

    def _is_followed(self) -> bool:
        goal = {
            f"main-{number:02d}": journal.last_position
            for number, journal in enumerate(self.instance.journals)
        }
        rows = self.state.read.nodes()
        for node in self.instance.nodes:
            if node.key not in rows or not rows[node.key].contacted:
                return False
            cursors = self.state.read.cursors(node.key)
            reached = {shard: cursor.position for shard, cursor in cursors.items()}
            if any(reached.get(shard, -1) < position for shard, position in goal.items()):
                return False
            if self.state.read.work_summary(node.key)[0]:
                return False
        return True


def begun(
    instance: Instance, state: StateWriter | None = None
) -> tuple[Running, asyncio.Task[None]]:
    """The sync process of an instance, started; whoever asked for it ends its task."""
    instance.write_plan()
    if state is None:
        state = StateWriter.open(instance.state_dir.state_db, clock=instance.clock)
    service = SyncService(
        settings=instance.settings(),
        state=state,
        observer=instance.observer,
        environment=dict(os.environ),
        clock=instance.clock,
        log=Log("test"),
    )
    return Running(instance, service, state), asyncio.create_task(service.serve())


@contextlib.asynccontextmanager
async def running(instance: Instance) -> AsyncIterator[Running]:
    """The sync process of an instance, from start to clean stop."""
    sync, task = begun(instance)
    try:
        yield sync
    finally:
        sync.service.stop()
        await asyncio.wait_for(task, 30)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run an async test."""

    async def main() -> None:
        await work()

    asyncio.run(main())


def follow_once(instance: Instance) -> None:
    """Have a sync process bring every Node up to date, and end cleanly."""

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()

    run(work)
