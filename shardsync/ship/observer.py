"""What shipping tells of itself while it happens, for figures that no file holds.

The sync process calls it; `observe` answers it with counters and histograms.
ship/ knows this Protocol alone, so that imports go one way.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Protocol

from shardsync.journal.records import NodeKey


class BatchOutcome(enum.StrEnum):
    """How one Batch ended: the label `outcome` of `shardsync_batches_total`."""

    SHIPPED = "shipped"
    """All of its paths are on the Node."""
    PARTIAL = "partial"
    """Some paths are on the Node; the others are open work."""
    FAILED = "failed"
    """Nothing counts as shipped; the Cursor stays."""
    HALTED = "halted"
    """A guard stopped it (lost root, max_delete): nothing was sent."""


class CallbackOutcome(enum.StrEnum):
    """How one run of a Callback ended."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"


class ShipObserver(Protocol):
    """Told of what happened, right after it did. Never raises, never blocks, keeps no paths."""

    def batch_finished(
        self,
        node: NodeKey,
        outcome: BatchOutcome,
        *,
        seconds: float,
        shipped_paths: int = 0,
        deleted_paths: int = 0,
        shipped_bytes: int = 0,
    ) -> None:
        """One Batch ended after `seconds`; the figures count what is on the Node by now."""
        ...

    def changes_shipped(self, node: NodeKey, latencies_seconds: Iterable[float]) -> None:
        """These Changes are on the Node now: from observed to shipped, one figure a Change."""
        ...

    def rsyncs_running(self, count: int, *, limit: int) -> None:
        """So many rsyncs run now, of `limit` that may (the warm ones that wait not counted)."""
        ...

    def callback_finished(self, tree: str, callback: str, outcome: CallbackOutcome) -> None:
        """One run of a Callback ended."""
        ...

    def callback_lag(self, tree: str, callback: str, seconds: float) -> None:
        """Age of the oldest Change that this Callback was not told of yet; 0 when none."""
        ...


class Unobserved:
    """Listens to nothing: for one-shot runs and tests."""

    def batch_finished(
        self,
        node: NodeKey,
        outcome: BatchOutcome,
        *,
        seconds: float,
        shipped_paths: int = 0,
        deleted_paths: int = 0,
        shipped_bytes: int = 0,
    ) -> None:
        pass

    def changes_shipped(self, node: NodeKey, latencies_seconds: Iterable[float]) -> None:
        pass

    def rsyncs_running(self, count: int, *, limit: int) -> None:
        pass

    def callback_finished(self, tree: str, callback: str, outcome: CallbackOutcome) -> None:
        pass

    def callback_lag(self, tree: str, callback: str, seconds: float) -> None:
        pass
