"""A state directory made by hand: Plan, Journals, state.db and locks, as daemons leave them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from shardsync.journal.locks import FileLock
from shardsync.journal.plan import Origin, Plan, PlannedShard, PlanState, write_plan
from shardsync.journal.state_writer import StateWriter
from shardsync.journal.writer import JournalWriter
from shardsync.layout import StateDirectory
from shardsync.model import EpochReason, JournalId, Kind, Scope, ShardId
from tests.support.clock import FakeClock

START = 1_700_000_000_000_000
"""2023-11-14T22:13:20Z."""


@dataclass(slots=True, kw_only=True)
class HandMade:
    """One instance on disk; `held` keeps its locks and files until `close()`."""

    folder: Path
    clock: FakeClock
    journals: dict[str, JournalWriter] = field(default_factory=dict)
    planned: list[PlannedShard] = field(default_factory=list)
    held: ExitStack = field(default_factory=ExitStack)
    state_db: StateWriter | None = None

    @property
    def state(self) -> StateDirectory:
        return StateDirectory(path=self.folder / "state")

    @property
    def root(self) -> Path:
        return self.folder / "site"

    def make(self) -> None:
        """The folders, and a settings file that names them."""
        self.state.make()
        self.root.mkdir()
        (self.folder / "web1").mkdir()
        self.write_settings()

    def write_settings(self, nodes: tuple[str, ...] = ("web1",), *, more: str = "") -> Path:
        text = f'[tree]\nroot = "{self.root}"\n[state]\ndir = "{self.state.path}"\n{more}\n'
        for node in nodes:
            text += f'[[node]]\nname = "{node}"\ntarget = "{self.folder / node}"\n'
        file = self.folder / "shardsync.toml"
        file.write_text(text)
        return file

    def add_shard(
        self,
        shard: str = "main-00",
        *,
        made_by: Origin = Origin.FIRST,
        plan_state: PlanState = PlanState.ACTIVE,
    ) -> JournalWriter:
        """A Shard in the Plan with an open Epoch in an empty Journal."""
        journal = JournalWriter.create(
            self.state.journal(shard),
            shard=ShardId(shard),
            tree="main",
            journal_id=JournalId(f"id-{shard}"),
            clock=self.clock,
        )
        self.held.callback(journal.close)
        journal.begin_epoch(EpochReason.FIRST_START)
        self.journals[shard] = journal
        self.planned.append(
            PlannedShard(
                id=ShardId(shard),
                tree="main",
                slot=int(shard[-2:]),
                prefixes=(b"",),
                journal_id=journal.journal_id,
                made_by=made_by,
                state=plan_state,
            )
        )
        write_plan(self.state.plan, Plan(generation=1, shards=tuple(self.planned)))
        return journal

    def open_state(self) -> StateWriter:
        writer = StateWriter.open(self.state.state_db, clock=self.clock)
        self.held.callback(writer.close)
        self.state_db = writer
        return writer

    def hold(self, *names: str) -> None:
        """Be the processes of these locks: `sync`, `instance`, `journal-main-00`."""
        for name in names:
            self.held.enter_context(FileLock.acquire(self.state.lock(name)))

    def close(self) -> None:
        self.held.close()


def change(
    path: bytes, at: int = START, *, scope: Scope = Scope.ENTRY, kind: Kind = Kind.CONTENT
) -> tuple[bytes, int, int, int, bytes | None]:
    """A Journal row."""
    return (path, scope.value, kind.value, at, None)


def own_pid() -> int:
    return os.getpid()
