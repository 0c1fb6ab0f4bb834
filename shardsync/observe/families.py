"""A Status and the sync process's own figures as families of metrics: the names of the contract.

Pure. Every series of a known Shard or Node is there from the start; no path
is ever a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from shardsync.model import EpochReason, NodeState, TreeState
from shardsync.observe.figures import Histogram, NodeFigures, SyncMetrics
from shardsync.observe.status import NodeStatus, ShardStatus, Status, TreeStatus
from shardsync.ship.observer import BatchOutcome, CallbackOutcome

_SHARD = ("tree", "shard")
_NODE = ("tree", "node")


def process_families(status: Status, version: str) -> Iterator[Metric]:
    """What runs, and of which version."""
    build = GaugeMetricFamily(
        "shardsync_build_info", "The running version, always 1.", labels=("version",)
    )
    build.add_metric((version,), 1)
    yield build
    up = GaugeMetricFamily(
        "shardsync_up", "1 while the process runs, else 0.", labels=("process",)
    )
    for name, pid in status.processes.items():
        up.add_metric((name,), 0 if pid is None else 1)
    yield up


def tree_families(trees: Iterable[TreeStatus]) -> Iterator[Metric]:
    """Whether each Tree is well."""
    states = GaugeMetricFamily(
        "shardsync_tree_state",
        "1 for the state that the Tree is in, else 0.",
        labels=("tree", "state"),
    )
    for tree in trees:
        for state in TreeState:
            states.add_metric((tree.name, state.value), float(tree.state is state))
    yield states


def shard_families(
    shards: Iterable[ShardStatus], epochs: Counter[tuple[str, EpochReason]]
) -> Iterator[Metric]:
    """What the Watchers committed. `epochs`: (Shard, reason) -> how many began."""
    shards = tuple(shards)
    for counter, help_text, count in _SHARD_COUNTERS:
        family = CounterMetricFamily(counter, help_text, labels=_SHARD)
        for shard in shards:
            family.add_metric((shard.tree, shard.id), count(shard) or 0)
        yield family
    for gauge, help_text, value in _SHARD_GAUGES:
        level = GaugeMetricFamily(gauge, help_text, labels=_SHARD)
        for shard in shards:
            level.add_metric((shard.tree, shard.id), value(shard) or 0)
        yield level
    begun = CounterMetricFamily(
        "shardsync_epochs",
        "Epochs begun, by why the one before ended.",
        labels=(*_SHARD, "reason"),
    )
    for shard in shards:
        for reason in EpochReason:
            begun.add_metric((shard.tree, shard.id, reason.value), epochs[shard.id, reason])
    yield begun


def node_families(nodes: Iterable[NodeStatus]) -> Iterator[Metric]:
    """How far each Node is."""
    nodes = tuple(nodes)
    for name, help_text, value in _NODE_GAUGES:
        family = GaugeMetricFamily(name, help_text, labels=_NODE)
        for node in nodes:
            family.add_metric((node.tree, node.name), value(node) or 0)
        yield family
    states = GaugeMetricFamily(
        "shardsync_node_state",
        "1 for the state that the Node is in, else 0.",
        labels=(*_NODE, "state"),
    )
    for node in nodes:
        for state in NodeState:
            is_present = float(node.state is state)
            states.add_metric((node.tree, node.name, state.value), is_present)
    yield states


def shipping_families(nodes: Iterable[NodeStatus], metrics: SyncMetrics) -> Iterator[Metric]:
    """What the sync process counted since it started."""
    with metrics.lock:
        counted = [
            ((node.tree, node.name), metrics.node((node.tree, node.name))) for node in nodes
        ]
        families = [
            *_batches(counted),
            _histogram(
                "shardsync_sync_latency_seconds",
                "From a Change observed to the Change on the Node.",
                ((labels, figures.latency) for labels, figures in counted),
            ),
            _histogram(
                "shardsync_batch_duration_seconds",
                "How long a Batch took, failed ones included.",
                ((labels, figures.duration) for labels, figures in counted),
            ),
        ]
        running, limit = metrics.rsyncs
    yield from families
    yield GaugeMetricFamily(
        "shardsync_rsyncs_running", "How many rsyncs transfer now.", value=running
    )
    yield GaugeMetricFamily("shardsync_rsyncs_limit", "How many rsyncs may run.", value=limit)


def callback_families(callbacks: Iterable[str], metrics: SyncMetrics) -> Iterator[Metric]:
    """How the Callbacks fare."""
    lags, runs = metrics.callback_lags(), metrics.callback_runs()
    lag = GaugeMetricFamily(
        "shardsync_callback_lag_seconds",
        "Age of the oldest Change that the Callback was not told of.",
        labels=("callback",),
    )
    finished = CounterMetricFamily(
        "shardsync_callback_runs", "Runs of the Callback.", labels=("callback", "outcome")
    )
    for name in dict.fromkeys((*callbacks, *lags)):
        lag.add_metric((name,), lags.get(name, 0.0))
        for outcome in CallbackOutcome:
            finished.add_metric((name, outcome.value), runs[name, outcome])
    yield lag
    yield finished


def _batches(counted: list[tuple[tuple[str, str], NodeFigures]]) -> Iterator[Metric]:
    batches = CounterMetricFamily(
        "shardsync_batches", "Batches ended, by outcome.", labels=(*_NODE, "outcome")
    )
    for labels, figures in counted:
        for outcome in BatchOutcome:
            batches.add_metric((*labels, outcome.value), figures.batches[outcome])
    yield batches
    for name, help_text, value in _SHIPPED_COUNTERS:
        family = CounterMetricFamily(name, help_text, labels=_NODE)
        for labels, figures in counted:
            family.add_metric(labels, value(figures))
        yield family


def _histogram(
    name: str, help_text: str, histograms: Iterable[tuple[tuple[str, str], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=_NODE)
    for labels, histogram in histograms:
        buckets, total = histogram.buckets()
        family.add_metric(labels, buckets, total)
    return family


_ShardFigure = Callable[[ShardStatus], float | None]
_NodeFigure = Callable[[NodeStatus], float | None]

# The exposition adds `_total` to counters.
_SHARD_COUNTERS: tuple[tuple[str, str, _ShardFigure], ...] = (
    ("shardsync_changes", "Changes journaled.", lambda shard: shard.changes_total),
    ("shardsync_overflows", "Overflows of the kernel's queue.", lambda shard: shard.overflows),
)
_SHARD_GAUGES: tuple[tuple[str, str, _ShardFigure], ...] = (
    ("shardsync_watches", "inotify watches held.", lambda shard: shard.watches),
    ("shardsync_directories", "Directories observed.", lambda shard: shard.directories),
    (
        "shardsync_polled_directories",
        "Directories polled because watches ran out.",
        lambda shard: shard.polled_directories,
    ),
    ("shardsync_journal_bytes", "The Journal on disk.", lambda shard: shard.journal_bytes),
    ("shardsync_journal_position", "The newest Position.", lambda shard: shard.position),
    (
        "shardsync_watermark_timestamp_seconds",
        "All that changed before this Unix time is journaled; 0 where unknown.",
        lambda shard: (shard.watermark_us or 0) / 1_000_000,
    ),
    (
        "shardsync_scan_progress_ratio",
        "How much of the present scan is done; 1 while none runs.",
        lambda shard: shard.scan_ratio,
    ),
)
_NODE_GAUGES: tuple[tuple[str, str, _NodeFigure], ...] = (
    (
        "shardsync_node_progress_ratio",
        "How much of a bootstrap or reconcile is done.",
        lambda node: node.progress,
    ),
    (
        "shardsync_node_lag_seconds",
        "Age of the oldest Change not yet on the Node; 0 when none.",
        lambda node: node.lag_seconds,
    ),
    (
        "shardsync_node_lag_changes",
        "Changes and open paths not yet on the Node.",
        lambda node: node.lag_changes,
    ),
    (
        "shardsync_node_last_success_timestamp_seconds",
        "Unix time of the last Batch that reached the Node; 0 where none did.",
        lambda node: (node.last_success_us or 0) / 1_000_000,
    ),
    (
        "shardsync_node_verified_timestamp_seconds",
        "All of the Node was compared, and repaired, since this Unix time; 0 where never.",
        lambda node: (node.verified_us or 0) / 1_000_000,
    ),
    (
        "shardsync_node_audit_progress_ratio",
        "How much of the audit's round is done; 1 between rounds.",
        lambda node: 1.0 if node.audit is None else node.audit.ratio,
    ),
    (
        "shardsync_retry_paths",
        "Paths that failed and are tried again.",
        lambda node: node.retry_paths,
    ),
)
_SHIPPED_COUNTERS: tuple[tuple[str, str, Callable[[NodeFigures], float]], ...] = (
    ("shardsync_shipped_paths", "Paths shipped.", lambda figures: figures.shipped_paths),
    ("shardsync_deleted_paths", "Paths deleted.", lambda figures: figures.deleted_paths),
    ("shardsync_shipped_bytes", "Bytes sent by rsync.", lambda figures: figures.shipped_bytes),
)
