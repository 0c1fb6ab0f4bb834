"""What may be asked of a Node's transport, what a Batch achieves there, and how both fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shardsync.errors import NodesFailed, NodeUnreachable
from shardsync.model import Scope
from shardsync.ship.answers import Listing
from shardsync.ship.command import Purpose
from shardsync.ship.comparison import Comparison
from shardsync.ship.outcome import RunResult

DEADLINE_SECONDS = 6 * 3600.0
"""The longest that one run may take; one that makes no progress is ended much sooner."""


class Shipping(Protocol):
    """What a delivery asks of the transport to a Node: `ship.transport.NodeTransport`."""

    async def ship(
        self,
        paths: Sequence[bytes],
        *,
        purpose: Purpose,
        gone: Sequence[bytes] = (),
        deadline_seconds: float,
        max_delete: int | None = None,
        beside: bool = False,
    ) -> RunResult:
        """One run of rsync with this list; never raises for what the Node does."""
        ...

    def compare(
        self, paths: Sequence[bytes], *, purpose: Purpose, deadline_seconds: float
    ) -> Comparison:
        """A dry run's findings as they come."""
        ...

    async def count_deletions(
        self, paths: Sequence[bytes], *, gone: Sequence[bytes], deadline_seconds: float
    ) -> RunResult:
        """A dry run whose `deleted` is what the Node would lose, entries below included."""
        ...

    async def list_root(self) -> Listing:
        """The names at the top of the Node."""
        ...


class NodeTrouble(NodeUnreachable):
    """Nothing of a run may be counted on: the Node backs off, and the same is tried again."""

    def __init__(self, result: RunResult) -> None:
        super().__init__(result.message or "rsync named no deletions")
        self.trouble = result.trouble


class RootLost(NodesFailed):
    """The Tree's root is not what it was: nothing is sent until it is back, or accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Why a path is not on the Node, and how much of it must be looked at again."""

    reason: str
    scope: Scope = Scope.ENTRY


@dataclass(slots=True, kw_only=True)
class Delivered:
    """What one Batch achieved. `failed`: what must be tried again, each path on its own.

    `files`, `file_bytes`: all that the runs looked at here, as rsync counts it.
    `foreign`: what the Node has beside the Tree, kept as the Node is not owned; `unlisted`: how
    many entries more.
    `unresolved`: files with further names that are still being searched for.
    `set_aside`: big files and their sizes, for the second lane.
    """

    shipped: int = 0
    deleted: int = 0
    bytes_sent: int = 0
    files: int = 0
    file_bytes: int = 0
    failed: dict[bytes, Failed] = field(default_factory=dict)
    foreign: list[bytes] = field(default_factory=list)
    unlisted: int = 0
    unresolved: set[bytes] = field(default_factory=set)
    set_aside: dict[bytes, int] = field(default_factory=dict)
