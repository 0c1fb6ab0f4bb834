"""Reads how everything is doing from the state directory alone: Plan, Journals, state.db, flocks.

Read-only, and of use while the daemons are down or the settings cannot be
read: a part that fails leaves gaps, never an exception.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

from shardsync.clock import Clock
from shardsync.config.settings import Settings
from shardsync.config.windows import in_force
from shardsync.control.memory import MEMORY_FILE, read_memory
from shardsync.errors import StateUnusable
from shardsync.journal.plan import Plan, PlannedShard, read_plan
from shardsync.journal.progress import Progress
from shardsync.journal.reader import JournalReader
from shardsync.journal.records import NodeKey, NodeRow, RoundKind
from shardsync.journal.state_reader import StateReader
from shardsync.layout import StateDirectory
from shardsync.model import NodeState, ShardState
from shardsync.observe.lag import Lag, LagMeter
from shardsync.observe.liveness import Liveness
from shardsync.observe.status import (
    SCANNING_STATES,
    NodeStatus,
    Retry,
    ShardStatus,
    Status,
    TreeStatus,
    halted_by_shard,
    tree_state,
)
from shardsync.units import human_duration

_SILENT_SECONDS = 60.0
"""Six heartbeats of a Watcher."""
_LEAST_FREE_BYTES = 64 * 1024
_ALMOST = 0.99
_RETRIES_TOLD = 3
"""The most that an open scan is said to have done: its total is an estimate."""


class StatusReader:
    """Reads a Status as often as asked, over connections that it keeps. Not for two threads."""

    def __init__(
        self,
        *,
        state: StateDirectory,
        settings: Settings | None,
        clock: Clock,
        liveness: Liveness,
    ) -> None:
        self._state = state
        self._settings = settings
        self._clock = clock
        self._liveness = liveness
        self._journals: dict[str, JournalReader] = {}
        self._database = StateReader(state.state_db)

    def read(self) -> Status:
        """How everything is doing now. Never raises for what is missing or damaged."""
        problems: list[str] = []
        if not self._may_look(problems):
            return Status(problems=tuple(problems))
        self._look_for_space(problems)
        plan = self._plan(problems)
        self._forget_all_but(plan)
        shards = tuple(self._shard(shard) for shard in plan.observing())
        sync_pid = self._liveness.sync()
        if sync_pid is not None:
            self._look_for_metrics(problems)
        processes: dict[str, int | None] = {
            "coordinator": self._liveness.coordinator(),
            "sync": sync_pid,
        }
        processes.update((shard.program.partition(":")[2], shard.pid) for shard in shards)
        return Status(
            trees=self._trees(shards, problems),
            shards=shards,
            nodes=self._nodes(plan, problems, is_synced=sync_pid is not None),
            processes=processes,
            problems=tuple(dict.fromkeys(problems)),
        )

    def close(self) -> None:
        """Let go of all files. Idempotent."""
        for reader in self._journals.values():
            reader.close()
        self._journals.clear()
        self._database.close()

    def _may_look(self, problems: list[str]) -> bool:
        """Whether the locks can be looked at: another user's would all seem free."""
        try:
            os.listdir(self._state.path)
        except FileNotFoundError:
            return True
        except OSError as error:
            problems.append(
                f"state directory {self._state.path}: {error.strerror}:"
                " run this as the user that the daemons run as"
            )
            return False
        return True

    def _look_for_space(self, problems: list[str]) -> None:
        """A Watcher whose disk is full cannot even write into its Journal that it is."""
        with contextlib.suppress(OSError):
            disk = os.statvfs(self._state.path)
            # No blocks at all: a file system that does not count them.
            if disk.f_blocks and disk.f_bavail * disk.f_frsize < _LEAST_FREE_BYTES:
                problems.append(
                    f"state directory {self._state.path}: its disk is full: changes wait to be"
                    " journaled, and nothing is sent; make room"
                )

    def _look_for_metrics(self, problems: list[str]) -> None:
        """A port in use stops no Node, and would be noticed by nobody but a blind Prometheus."""
        with contextlib.suppress(StateUnusable):
            if self._state.state_db.exists() and (error := self._database.metrics_error()):
                problems.append(error)

    def _plan(self, problems: list[str]) -> Plan:
        try:
            return read_plan(self._state.plan) or Plan()
        except StateUnusable as error:
            problems.append(str(error))
            return Plan()

    def _forget_all_but(self, plan: Plan) -> None:
        for gone in self._journals.keys() - {shard.id for shard in plan.shards}:
            self._journals.pop(gone).close()

    def _journal(self, shard: str) -> JournalReader:
        if shard not in self._journals:
            self._journals[shard] = JournalReader(self._state.journal(shard))
        return self._journals[shard]

    def _shard(self, shard: PlannedShard) -> ShardStatus:
        pid = self._liveness.watcher(shard.id)
        found = ShardStatus(
            id=shard.id,
            tree=shard.tree,
            program=f"shardsync:watcher-{shard.slot:02d}",
            state=ShardState.STOPPED if pid is None else ShardState.STARTING,
            pid=pid,
        )
        reader = self._journal(shard.id)
        try:
            progress = reader.progress()
            epochs = reader.epochs()
        except StateUnusable as error:
            return replace(found, last_error=str(error))
        state = _state(progress, pid)
        total = progress.scan_total or shard.directories
        return replace(
            found,
            state=state,
            # The kernel has dropped those of a Watcher that is gone.
            watches=0 if pid is None else progress.watches,
            directories=progress.directories,
            polled_directories=progress.polled_directories,
            position=progress.last_position,
            watermark_us=progress.watermark_us,
            epoch=epochs[-1].number if epochs else None,
            overflows=progress.overflows,
            journal_bytes=reader.file_bytes(),
            last_error=self._silence(progress, pid) or progress.last_error,
            changes_total=progress.changes_total,
            scan_done=progress.scan_done,
            scan_total=total,
            scan_ratio=_scan_ratio(state, progress.scan_done, total),
            epochs=tuple((epoch.number, epoch.reason) for epoch in epochs),
        )

    def _silence(self, progress: Progress, pid: int | None) -> str:
        """What to say of a Watcher that lives and does nothing: stopped by a signal, or stuck.

        A new process that has not written yet still shows the figures of the old one.
        """
        if not pid or progress.pid != pid or not progress.heartbeat_us:
            return ""
        seconds = (self._clock.wall_us() - progress.heartbeat_us) / 1_000_000
        return f"no heartbeat for {human_duration(seconds)}" if seconds > _SILENT_SECONDS else ""

    def _trees(
        self, shards: tuple[ShardStatus, ...], problems: list[str]
    ) -> tuple[TreeStatus, ...]:
        roots: dict[str, str | None] = dict.fromkeys(shard.tree for shard in shards)
        roots.update(observed_roots(self._state))
        if self._settings is not None:
            roots = {tree.name: str(tree.root) for tree in self._settings.trees}
        found = []
        for name, root in roots.items():
            own = tuple(shard for shard in shards if shard.tree == name)
            # The sync process looks at no root while all Nodes are paused; the Watchers do.
            halted = self._halted(name, problems) or halted_by_shard(own)
            found.append(
                TreeStatus(name=name, root=root, state=tree_state(halted, own), halted=halted)
            )
        return tuple(found)

    def _halted(self, tree: str, problems: list[str]) -> str:
        if not self._state.state_db.exists():
            return ""
        try:
            return self._database.tree_halted(tree)
        except StateUnusable as error:
            problems.append(str(error))
            return ""

    def _nodes(
        self, plan: Plan, problems: list[str], *, is_synced: bool
    ) -> tuple[NodeStatus, ...]:
        rows: dict[NodeKey, NodeRow] = {}
        if self._state.state_db.exists():
            try:
                rows = self._database.nodes()
            except StateUnusable as error:
                problems.append(str(error))
        targets = dict.fromkeys(rows, "")
        if self._settings is not None:
            targets = {node.key: str(node.target) for node in self._settings.nodes}
        windows = self._windows()
        meter = LagMeter(journal=self._journal)
        found = []
        for key, target in targets.items():
            node = self._node(key, rows.get(key), plan, meter)
            state = node.state if is_synced else NodeState.STOPPED
            found.append(replace(node, state=state, target=target, window=windows.get(key, "")))
        return tuple(found)

    def _windows(self) -> dict[NodeKey, str]:
        """The window of each Node that is in one now, in words."""
        now = self._clock.wall_us()
        found = {
            node.key: in_force(node.windows, now)
            for node in (self._settings.nodes if self._settings is not None else ())
        }
        return {key: str(held[0]) for key, held in found.items() if held is not None}

    def _node(self, key: NodeKey, row: NodeRow | None, plan: Plan, meter: LagMeter) -> NodeStatus:
        if row is None:
            return NodeStatus(tree=key[0], name=key[1], state=NodeState.BOOTSTRAPPING)
        found = NodeStatus(
            tree=row.tree,
            name=row.name,
            state=row.state,
            owned=row.owned,
            last_success_us=row.last_success,
            last_error=row.halted or row.last_error,
            progress=row.progress,
            foreign_paths=row.foreign_paths,
            paused_until_us=row.paused_until,
            verified_us=row.verified_at,
        )
        with contextlib.suppress(StateUnusable):
            # The Shard's own line, or `problems`, says what cannot be read.
            work_rows, retries, since = self._database.work_summary(key)
            found = replace(
                found,
                retry_paths=retries,
                retries=self._retries(key, retries),
                compared=self._database.round(key, RoundKind.COMPARE),
                audit=self._database.round(key, RoundKind.AUDIT),
            )
            lag = Lag(changes=work_rows, oldest_us=since).plus(
                meter.of_node(plan.of_tree(row.tree), self._database.cursors(key))
            )
            seconds = round(lag.seconds(self._clock.wall_us()), 6)
            found = replace(found, lag_seconds=seconds, lag_changes=lag.changes)
        return found

    def _retries(self, key: NodeKey, count: int) -> tuple[Retry, ...]:
        if not count:
            return ()
        return tuple(
            Retry(
                path=work.path,
                reason=work.last_error,
                attempts=work.attempts,
                next_us=work.not_before,
            )
            for work in self._database.failures(key, limit=_RETRIES_TOLD)
        )


def observed_roots(state: StateDirectory) -> dict[str, str]:
    """Tree -> root, as the Coordinator last observed them: for when the settings cannot tell."""
    return dict(read_memory(state.path / MEMORY_FILE).roots)


def _state(progress: Progress, pid: int | None) -> ShardState:
    """The Shard's; what an earlier Watcher left in the Journal is not the new one's."""
    if pid is None:
        return ShardState.STOPPED
    is_stale = progress.state is ShardState.STOPPED or progress.pid not in {0, pid}
    return ShardState.STARTING if is_stale else progress.state


def _scan_ratio(state: ShardState, done: int, total: int) -> float:
    if state not in SCANNING_STATES:
        return 1.0
    return min(_ALMOST, done / total) if total else 0.0
