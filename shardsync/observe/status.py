"""How everything is doing, as values; and what of it `status --json` tells.

Pure: read by `StatusReader`, shown by the CLI, exported by the Collector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shardsync.clock import rfc3339
from shardsync.errors import NodesFailed, NotRunning
from shardsync.escape import printable_text
from shardsync.journal.records import Round
from shardsync.model import EpochReason, NodeState, ShardState, TreeState

SCANNING_STATES = frozenset({ShardState.STARTING, ShardState.SCANNING})
_WELL_SHARDS = SCANNING_STATES | {ShardState.FOLLOWING}
# Paused is what an operator asked for, and he sees it in the table.
_WELL_NODES = frozenset({NodeState.BOOTSTRAPPING, NodeState.FOLLOWING, NodeState.PAUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """One observing Shard. Figures are None where its Journal cannot be read.

    Times in Unix microseconds. `scan_done`, `scan_total`: directories of the
    present or last scan, the total being an estimate, 0 where unknown.
    `scan_ratio`: 1.0 while no scan is open.
    """

    id: str
    tree: str
    program: str
    state: ShardState
    pid: int | None = None
    watches: int | None = None
    directories: int | None = None
    polled_directories: int | None = None
    position: int | None = None
    watermark_us: int | None = None
    epoch: int | None = None
    overflows: int | None = None
    journal_bytes: int | None = None
    last_error: str = ""
    changes_total: int = 0
    scan_done: int = 0
    scan_total: int = 0
    scan_ratio: float = 0.0
    epochs: tuple[tuple[int, EpochReason], ...] = ()

    @property
    def is_scanning(self) -> bool:
        """Whether its Watcher runs and has yet to come to know all directories."""
        return self.state in SCANNING_STATES

    @property
    def is_well(self) -> bool:
        """Whether nobody needs to look: no error, nothing polled, not stopped."""
        return self.state in _WELL_SHARDS and not self.last_error and not self.polled_directories


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """One path that failed on one Node, and waits by itself. `next_us`: when it is tried again."""

    path: bytes
    reason: str
    attempts: int
    next_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One Node. Figures are None where unknown. Times in Unix microseconds.

    `progress`: how much of a bootstrap or reconcile is done, 0 to 1. `window`: that of the
    settings which holds at this hour, in words. `compared`: the figures of a comparison that is
    open; `audit`: of the audit's round. `verified_us`: all of the Node was compared and repaired
    since then.
    """

    tree: str
    name: str
    state: NodeState
    target: str = ""
    owned: bool | None = None
    lag_seconds: float | None = None
    lag_changes: int | None = None
    retry_paths: int | None = None
    retries: tuple[Retry, ...] = ()
    last_success_us: int | None = None
    last_error: str = ""
    progress: float = 0.0
    foreign_paths: int = 0
    paused_until_us: int | None = None
    window: str = ""
    compared: Round | None = None
    audit: Round | None = None
    verified_us: int | None = None

    @property
    def is_well(self) -> bool:
        """Whether nobody needs to look."""
        return self.state in _WELL_NODES and not self.retry_paths


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeStatus:
    """One Tree. `root` is None where the settings cannot be read; `halted` says why."""

    name: str
    root: str | None
    state: TreeState
    halted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """All of one instance at one moment. `processes`: name -> pid, None while it is down.

    `problems`: what could not be read, in words for people.
    """

    trees: tuple[TreeStatus, ...] = ()
    shards: tuple[ShardStatus, ...] = ()
    nodes: tuple[NodeStatus, ...] = ()
    processes: Mapping[str, int | None] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def is_down(self) -> bool:
        """Whether no process of ours lives. Nobody knows where `processes` is empty."""
        return bool(self.processes) and all(pid is None for pid in self.processes.values())

    @property
    def exit_code(self) -> int:
        """0 well, 14 unwell, 16 down."""
        if self.is_down:
            return NotRunning.exit_code
        is_well = (
            not self.problems
            and all(tree.state is TreeState.OK for tree in self.trees)
            and all(shard.is_well for shard in self.shards)
            and all(node.is_well for node in self.nodes)
        )
        return 0 if is_well else NodesFailed.exit_code

    def of_tree(self, tree: str) -> Status:
        """The part of it that belongs to one Tree."""
        return Status(
            trees=tuple(part for part in self.trees if part.name == tree),
            shards=tuple(part for part in self.shards if part.tree == tree),
            nodes=tuple(part for part in self.nodes if part.tree == tree),
            processes=self.processes,
            problems=self.problems,
        )


def halted_by_shard(shards: Iterable[ShardStatus]) -> str:
    """Why a Shard of a Tree is halted, "" where none is, or none tells."""
    halted = (shard.last_error for shard in shards if shard.state is ShardState.HALTED)
    return next((error for error in halted if error), "")


def tree_state(halted: str, shards: tuple[ShardStatus, ...]) -> TreeState:
    """HALTED by a guard or by a Shard that says so; DEGRADED where a Shard is not well."""
    if halted or any(shard.state is ShardState.HALTED for shard in shards):
        return TreeState.HALTED
    if not shards or not all(shard.is_well for shard in shards):
        return TreeState.DEGRADED
    return TreeState.OK


def status_document(status: Status) -> dict[str, object]:
    """What `status --json` prints: exactly the keys of the contract."""
    return {
        "trees": [
            {"name": tree.name, "root": _text(tree.root), "state": tree.state.value}
            for tree in status.trees
        ],
        "shards": [_shard_document(shard) for shard in status.shards],
        "nodes": [_node_document(node) for node in status.nodes],
    }


def _shard_document(shard: ShardStatus) -> dict[str, object]:
    return {
        "id": shard.id,
        "tree": shard.tree,
        "program": shard.program,
        "state": shard.state.value,
        "pid": shard.pid or None,
        "watches": shard.watches,
        "directories": shard.directories,
        "polled_directories": shard.polled_directories,
        "position": shard.position,
        "watermark": rfc3339(shard.watermark_us),
        "epoch": shard.epoch,
        "overflows": shard.overflows,
        "journal_bytes": shard.journal_bytes,
        "last_error": _text(shard.last_error),
    }


def _node_document(node: NodeStatus) -> dict[str, object]:
    return {
        "tree": node.tree,
        "name": node.name,
        "state": node.state.value,
        "owned": node.owned,
        "lag_seconds": node.lag_seconds,
        "lag_changes": node.lag_changes,
        "retry_paths": node.retry_paths,
        "last_success": rfc3339(node.last_success_us),
        "last_error": _text(node.last_error),
        "verified_at": rfc3339(node.verified_us),
        "progress": _round_document(node.compared),
        "audit": _round_document(node.audit),
    }


def _round_document(found: Round | None) -> dict[str, object] | None:
    """How far a comparison is. `paths`, `bytes`: looked at; `sent_bytes`: put on the wire."""
    if found is None:
        return None
    eta = found.eta_seconds
    return {
        "began_at": rfc3339(found.began_at),
        "ratio": round(found.ratio, 4),
        "paths": found.paths,
        "bytes": found.bytes,
        "sent_bytes": found.sent_bytes,
        "differences": found.differences,
        "eta_seconds": None if eta is None else round(eta, 1),
    }


def _text(text: str | None) -> str | None:
    return printable_text(text) if text else None
