"""Figures that only the sync process knows, counted in its memory: it tells, /metrics asks.

Written by the event loop, read by the exporter's threads, hence the lock.
They start at 0 with the process, as Prometheus expects of counters.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from shardsync.journal.records import NodeKey
from shardsync.ship.observer import BatchOutcome, CallbackOutcome

LATENCY_BOUNDS_SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)  # fmt: skip
DURATION_BOUNDS_SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)  # fmt: skip


class Histogram:
    """Counts by upper bound; the caller holds the lock."""

    def __init__(self, *, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, values: Iterable[float]) -> None:
        """Count each value. 0.2 us a value: a Batch of 10,000 Changes takes 2 ms."""
        counts, bounds = self._counts, self._bounds
        total = 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self._sum += total

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """([(upper bound, how many up to it)], sum), as the exposition wants them."""
        running = 0
        found: list[tuple[str, float]] = []
        for bound, count in zip((*self._bounds, None), self._counts, strict=True):
            running += count
            found.append(("+Inf" if bound is None else str(bound), float(running)))
        return found, self._sum


@dataclass(slots=True, kw_only=True)
class NodeFigures:
    """What is counted of one Node since the sync process started."""

    batches: Counter[BatchOutcome] = field(default_factory=Counter)
    shipped_paths: int = 0
    deleted_paths: int = 0
    shipped_bytes: int = 0
    latency: Histogram = field(default_factory=lambda: Histogram(bounds=LATENCY_BOUNDS_SECONDS))
    duration: Histogram = field(default_factory=lambda: Histogram(bounds=DURATION_BOUNDS_SECONDS))


class SyncMetrics:
    """The ShipObserver of the running sync process. Any thread may call anything."""

    def __init__(self, *, rsyncs_limit: int = 0) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[NodeKey, NodeFigures] = {}
        self._callback_runs: Counter[tuple[str, CallbackOutcome]] = Counter()
        self._callback_lags: dict[str, dict[str, float]] = {}
        self._rsyncs = (0, rsyncs_limit)

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
        with self._lock:
            figures = self._node(node)
            figures.batches[outcome] += 1
            figures.shipped_paths += shipped_paths
            figures.deleted_paths += deleted_paths
            figures.shipped_bytes += shipped_bytes
            figures.duration.observe((seconds,))

    def changes_shipped(self, node: NodeKey, latencies_seconds: Iterable[float]) -> None:
        with self._lock:
            self._node(node).latency.observe(latencies_seconds)

    def rsyncs_running(self, count: int, *, limit: int) -> None:
        with self._lock:
            self._rsyncs = (count, limit)

    def callback_finished(self, tree: str, callback: str, outcome: CallbackOutcome) -> None:
        with self._lock:
            self._callback_runs[callback, outcome] += 1
            self._callback_lags.setdefault(callback, {}).setdefault(tree, 0.0)

    def callback_lag(self, tree: str, callback: str, seconds: float) -> None:
        with self._lock:
            self._callback_lags.setdefault(callback, {})[tree] = seconds

    @property
    def rsyncs(self) -> tuple[int, int]:
        """(running now, how many may)."""
        return self._rsyncs

    def node(self, key: NodeKey) -> NodeFigures:
        """A Node's figures, all 0 where nothing happened yet. Hold `lock` while reading them."""
        return self._node(key)

    @property
    def lock(self) -> threading.Lock:
        """Held while figures change: hold it to read several that belong together."""
        return self._lock

    def callback_lags(self) -> dict[str, float]:
        """Callback -> its Lag in seconds, the longest where Trees share the name."""
        with self._lock:
            return {name: max(lags.values()) for name, lags in self._callback_lags.items()}

    def callback_runs(self) -> Counter[tuple[str, CallbackOutcome]]:
        """(Callback, outcome) -> how often."""
        with self._lock:
            return self._callback_runs.copy()

    def _node(self, key: NodeKey) -> NodeFigures:
        return self._nodes.setdefault(key, NodeFigures())
