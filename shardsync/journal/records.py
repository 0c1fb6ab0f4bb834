"""What state.db remembers, as values: Cursors, open work, Nodes, answers."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from shardsync.journal.requests import RequestState
from shardsync.model import NodeState, Scope

NodeKey = tuple[str, str]
"""(tree, name)."""


class Compare(enum.StrEnum):
    """How rsync decides whether a path must be sent."""

    CONTENT = "content"
    """Always sent (`-I`)."""
    ATTRIBUTES = "attributes"
    """Data only where size or time differ, to the nanosecond."""
    CHECKSUM = "checksum"
    """Data where checksums differ: equal size and time may be new bytes."""
    ANEW = "anew"
    """All of it written anew, below directories too: a file that shares its bytes with another
    name on the Node is its own afterwards."""


class WorkReason(enum.StrEnum):
    """Why a path is still open although the Cursor has moved past it."""

    RETRY = "retry"
    BOOTSTRAP = "bootstrap"
    RECONCILE = "reconcile"
    LINKS = "links"
    """The file has names that are still being searched for."""
    BIG = "big"
    """A big file, sent beside the Batches."""
    AFTER_BIG = "after_big"
    """What was sent beside the Batches is looked at once more: its directory's time is spoilt."""
    SETTLING = "settling"
    """It changed again before it came to rest; sent at `not_before` if it never does."""
    MOVE = "move"
    """An old name whose files a new name shares, until it is deleted on the Node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where a Node stands in one Shard's Journal: everything up to `position` is on it, or in
    its work table.
    """

    journal_id: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One path that outlives its Batch. `since`: observed_at of the oldest Change it stands for.

    `id` is 0 before it is stored. `request`: id of the request that made it, or "".
    """

    path: bytes
    scope: Scope
    compare: Compare
    reason: WorkReason
    since: int
    id: int = 0
    request: str = ""
    attempts: int = 0
    not_before: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """What is remembered of a Node. Field for field the table `nodes`.

    `owned` None: not known yet (no first contact). Times: Unix microseconds.
    `pause_setting`: what the settings said of `paused` when last looked at. `window_pause`:
    when the pause ends that a window began, 0 where none is on; it is begun once.
    `halted`: why nothing is sent any more, "" where it is not halted. `allow_delete`: what
    was pending then may be deleted whatever `max_delete` says; 0 for nothing.
    """

    tree: str
    name: str
    state: NodeState = NodeState.BOOTSTRAPPING
    owned: bool | None = None
    contacted: bool = False
    last_success: int | None = None
    last_error: str = ""
    attempts: int = 0
    not_before: int = 0
    paused: bool = False
    paused_until: int | None = None
    pause_setting: bool = False
    window_pause: int = 0
    halted: str = ""
    allow_delete: int = 0
    fingerprint: str = ""
    capabilities: str = ""
    progress: float = 0.0
    foreign_paths: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedFile:
    """A file with several names. `links`: how many the kernel says it has, st_nlink."""

    device: int
    inode: int
    links: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a request stands. `done` of `total`: its progress in paths or Nodes."""

    state: RequestState
    exit_code: int
    message: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """What one Batch changes in state.db."""

    cursors: Mapping[str, Cursor] = field(default_factory=dict)
    work_added: Sequence[Work] = ()
    work_done: Sequence[int] = ()
    deleted_entries: int = 0
    finished_at: int = 0


NODE_COLUMNS = tuple(item.name for item in fields(NodeRow))
WORK_COLUMNS = tuple(item.name for item in fields(Work))


def node_row(row: Sequence[Any]) -> NodeRow:
    """A row of `nodes`, in the order of NODE_COLUMNS."""
    values = dict(zip(NODE_COLUMNS, row, strict=True))
    values["state"] = NodeState(values["state"])
    values["owned"] = None if values["owned"] is None else bool(values["owned"])
    for name in ("contacted", "paused", "pause_setting"):
        values[name] = bool(values[name])
    return NodeRow(**values)


def work_row(row: Sequence[Any]) -> Work:
    """A row of `work`, in the order of WORK_COLUMNS."""
    values = dict(zip(WORK_COLUMNS, row, strict=True))
    values["scope"] = Scope(values["scope"])
    values["compare"] = Compare(values["compare"])
    values["reason"] = WorkReason(values["reason"])
    return Work(**values)
