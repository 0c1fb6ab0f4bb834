"""What state.db remembers, as values: Cursors, open work, Nodes, answers."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from shardsync.journal.requests import RequestState
from shardsync.model import NodeState, Scope
from shardsync.units import human_bytes, human_duration

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
    EMPTY = "empty"
    """The Node has nothing there: all is sent, and nothing is compared before or after."""


class WorkReason(enum.StrEnum):
    """Why a path is still open although the Cursor has moved past it."""

    RETRY = "retry"
    BOOTSTRAP = "bootstrap"
    RECONCILE = "reconcile"
    AUDIT = "audit"
    """An audit found that the Node differs there."""
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


COMPARING = frozenset({WorkReason.BOOTSTRAP, WorkReason.RECONCILE})
"""What belongs to a comparison of a whole Node, or of all below a path."""


class RoundKind(enum.StrEnum):
    """Why a Node is compared piece by piece."""

    COMPARE = "compare"
    """Bootstrap or reconcile; its pieces are open work."""
    AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """How far a comparison is. Stored with the pieces' record, so that a kill loses neither.

    `is_whole`: all of the Node. `paths`, `bytes`: looked at in the Tree so far. `sent_bytes`:
    put on the wire. `busy_us`: time spent on it, breaks and outages not counted.
    """

    began_at: int
    is_whole: bool
    pieces: int
    done: int = 0
    paths: int = 0
    bytes: int = 0
    sent_bytes: int = 0
    differences: int = 0
    busy_us: int = 0

    @property
    def ratio(self) -> float:
        """Share of the pieces that is done."""
        return min(1.0, self.done / self.pieces) if self.pieces else 1.0

    @property
    def eta_seconds(self) -> float | None:
        """What is left at the pace so far; None before the first piece is done."""
        if not self.done:
            return None
        return self.busy_us / 1e6 * max(0, self.pieces - self.done) / self.done

    @property
    def words(self) -> str:
        """`12,000 paths, 1.4 GiB looked at, 20.0 MiB sent, 3m05s left`, as far as it is known."""
        words = f"{self.paths:,} paths, {human_bytes(self.bytes)} looked at"
        words += f", {human_bytes(self.sent_bytes)} sent"
        if self.eta_seconds is not None:
            words += f", {human_duration(self.eta_seconds)} left"
        return words


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

    `first`, `beyond`: of a TREE, only those directories directly in `path` with names from
    `first` on and before `beyond`; both b"" for all of it.
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
    first: bytes = b""
    beyond: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """What is remembered of a Node. Field for field the table `nodes`.

    `owned` None: not known yet (no first contact). Times: Unix microseconds.
    `pause_setting`: what the settings said of `paused` when last looked at. `window_pause`:
    when the pause ends that a window began, 0 where none is on; it is begun once.
    `halted`: why nothing is sent any more, "" where it is not halted. `allow_delete`: what
    was pending then may be deleted whatever `max_delete` says; 0 for nothing. `verified_at`:
    all of the Node was compared, and repaired, since then; None before that was ever done.
    `audited_at`: when the last audit that came to its end began.
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
    verified_at: int | None = None
    audited_at: int | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether nothing is sent to it until an operator, or a time that one set, says so."""
        return self.paused or bool(self.halted)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPiece:
    """A part of an audit that is still to be compared. Fields as in Work."""

    path: bytes
    scope: Scope
    first: bytes = b""
    beyond: bytes = b""
    id: int = 0


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
class Gain:
    """What was done of a round. Fields as in `Round`."""

    done: int = 0
    paths: int = 0
    bytes: int = 0
    sent_bytes: int = 0
    differences: int = 0
    busy_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """What one Batch changes in state.db. `gain`: where it belongs to a bootstrap or reconcile."""

    cursors: Mapping[str, Cursor] = field(default_factory=dict)
    work_added: Sequence[Work] = ()
    work_done: Sequence[int] = ()
    deleted_entries: int = 0
    finished_at: int = 0
    gain: Gain | None = None


NODE_COLUMNS = tuple(item.name for item in fields(NodeRow))
WORK_COLUMNS = tuple(item.name for item in fields(Work))
ROUND_COLUMNS = tuple(item.name for item in fields(Round))


def node_row(row: Sequence[Any]) -> NodeRow:
    """A row of `nodes`, in the order of NODE_COLUMNS."""
    values = dict(zip(NODE_COLUMNS, row, strict=True))
    values["state"] = NodeState(values["state"])
    values["owned"] = None if values["owned"] is None else bool(values["owned"])
    for name in ("contacted", "paused", "pause_setting"):
        values[name] = bool(values[name])
    return NodeRow(**values)


def round_row(row: Sequence[Any]) -> Round:
    """A row of `rounds`, in the order of ROUND_COLUMNS."""
    values = dict(zip(ROUND_COLUMNS, row, strict=True))
    values["is_whole"] = bool(values["is_whole"])
    return Round(**values)


def work_row(row: Sequence[Any]) -> Work:
    """A row of `work`, in the order of WORK_COLUMNS."""
    values = dict(zip(WORK_COLUMNS, row, strict=True))
    values["scope"] = Scope(values["scope"])
    values["compare"] = Compare(values["compare"])
    values["reason"] = WorkReason(values["reason"])
    return Work(**values)
