"""The vocabulary as values: Scope, Kind, Change, Position and the states of Trees, Shards, Nodes.

Nothing here does I/O or knows the time. Paths are bytes, relative to the
Tree's root, without a leading or trailing slash; the root itself is `b""`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import NewType

ShardId = NewType("ShardId", str)
"""`<tree>-NN`, unique on the machine."""

JournalId = NewType("JournalId", str)
"""Random hexadecimal name of one Journal file's life; a Cursor is worth nothing without it."""

_POSITION = re.compile(r"(?P<shard>[A-Za-z0-9._-]+-\d{2,}):(?P<number>\d+)")


class Scope(enum.IntEnum):
    """How far around its path a Change bids the Syncer look."""

    ENTRY = 1
    """This path alone."""
    TREE = 2
    """This path and all below it."""
    LISTING = 3
    """The names directly in this directory (something in it may be gone)."""


class Kind(enum.IntEnum):
    """How the path must be compared with what a Node holds."""

    CONTENT = 1
    ATTRIBUTES = 2
    """Only IN_ATTRIB was seen: mode, owner or times, not bytes."""


class TreeState(enum.StrEnum):
    """State of a Tree in `status --json`."""

    OK = "ok"
    DEGRADED = "degraded"
    HALTED = "halted"


class ShardState(enum.StrEnum):
    """State of a Shard in `status --json`."""

    STARTING = "starting"
    SCANNING = "scanning"
    FOLLOWING = "following"
    POLLING = "polling"
    STOPPED = "stopped"
    HALTED = "halted"


class NodeState(enum.StrEnum):
    """State of a Node in `status --json` and `shardsync_node_state`."""

    BOOTSTRAPPING = "bootstrapping"
    FOLLOWING = "following"
    BACKING_OFF = "backing_off"
    PAUSED = "paused"
    BEHIND_RETENTION = "behind_retention"
    HALTED = "halted"
    STOPPED = "stopped"


class EpochReason(enum.StrEnum):
    """Why one unbroken observation of a Shard ended and the next began."""

    FIRST_START = "first_start"
    RESTART = "restart"
    CRASH = "crash"
    OVERFLOW = "overflow"
    REPLAN = "replan"
    ROOT_LOST = "root_lost"
    CLOCK_JUMP = "clock_jump"
    JOURNAL_LOST = "journal_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Where to look, never what to do: the Syncer ships what `path` holds when it looks.

    `position`: place in the Shard's Journal, only growing, not consecutive.
    `observed_at`: wall clock, Unix microseconds.
    `moved_from`: a hint for a cheaper transfer, never trusted; None where unknown.
    """

    position: int
    path: bytes
    scope: Scope
    kind: Kind
    observed_at: int
    moved_from: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Position:
    """One place in one Shard's Journal; prints as `SHARD:N`."""

    shard: ShardId
    number: int

    def __str__(self) -> str:
        return f"{self.shard}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """The Position that `text` prints, or None where it has another form."""
        found = _POSITION.fullmatch(text)
        if found is None:
            return None
        return cls(shard=ShardId(found["shard"]), number=int(found["number"]))
