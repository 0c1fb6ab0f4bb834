"""The one dashboard: what an operator asks, in the order of asking, as rows of panels.

Is anything wrong, how far is each Node, what is sent, what is watched, what
runs. Every panel says in its description what it shows and when to worry.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from tools.grafana.parts import (
    BLUE,
    DATASOURCE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Look,
    Panel,
    Query,
    bars,
    curves,
    number,
    states,
)

# What the variables choose: Shards know no Node.
_SHARD = 'tree=~"$tree"'
_NODE = 'tree=~"$tree",node=~"$node"'
_OF_NODE = "{{tree}}/{{node}}"
_OF_SHARD = "{{shard}}"

# Contract of `shardsync_node_state`; the order is that of the state timeline's numbers, from 1.
NODE_STATES = (
    ("following", GREEN),
    ("bootstrapping", BLUE),
    ("paused", GREY),
    ("backing_off", ORANGE),
    ("behind_retention", PURPLE),
    ("halted", RED),
    ("stopped", YELLOW),
)


def dashboard_json() -> str:
    """The dashboard as the text of grafana/dashboards/shardsync.json."""
    made = (
        dashboard.Dashboard("shardsync")
        .uid("shardsync")
        .description("Trees kept in step on many Nodes. Made by tools/dashboards.")
        .tags(["shardsync"])
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .variables([_datasource(), _variable("tree", ""), _variable("node", '{tree=~"$tree"}')])
    )
    identity = 0
    for title, panels in _rows():
        identity += 1
        made.with_row(dashboard.Row(title).id(identity))
        for panel in panels:
            identity += 1
            made.with_panel(panel.id(identity))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _rows() -> Sequence[tuple[str, Sequence[Panel]]]:
    return (
        ("At a glance", _glance()),
        ("Nodes", _nodes()),
        ("Batches", _batches()),
        ("Shards", _shards()),
        ("Processes", _processes()),
    )


def _datasource() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def _variable(name: str, chosen: str) -> dashboard.QueryVariable:
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query(f"label_values(shardsync_node_lag_seconds{chosen}, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(everything)
    )


def _quantile(share: float, metric: str, name: str) -> Query:
    rate = f"sum by (tree, node, le) (rate({metric}_bucket{{{_NODE}}}[$__rate_interval]))"
    return Query(expr=f"histogram_quantile({share}, {rate})", legend=f"{name} {_OF_NODE}")


def _rate(metric: str, chosen: str, by: str, legend: str) -> Query:
    expr = f"sum by ({by}) (rate({metric}{{{chosen}}}[$__rate_interval]))"
    return Query(expr=expr, legend=legend)


def _of_node(metric: str) -> Query:
    return Query(expr=f"{metric}{{{_NODE}}}", legend=_OF_NODE)


def _of_shard(metric: str, legend: str = _OF_SHARD) -> Query:
    return Query(expr=f"{metric}{{{_SHARD}}}", legend=legend)


def _glance() -> Sequence[Panel]:
    unwell = f'sum(shardsync_node_state{{{_NODE},state!~"following|bootstrapping|paused"}})'
    return (
        number(
            "Longest Lag",
            "Age of the oldest Change that some Node lacks.",
            Query(expr=f"max(shardsync_node_lag_seconds{{{_NODE}}})", legend=""),
            Look(unit="s", red_at=300),
        ),
        number(
            "Changes to send",
            "Changes and open paths that Nodes lack, all Nodes added up.",
            Query(expr=f"sum(shardsync_node_lag_changes{{{_NODE}}})", legend=""),
        ),
        number(
            "Nodes in trouble",
            "Nodes that back off, are halted, behind the retention, or stopped.",
            Query(expr=unwell, legend=""),
            Look(red_at=1),
        ),
        number(
            "Retry paths",
            "Paths that failed and are tried again, all Nodes added up.",
            Query(expr=f"sum(shardsync_retry_paths{{{_NODE}}})", legend=""),
            Look(red_at=1),
        ),
        number(
            "Processes down",
            "Of those that the Plan wants.",
            Query(expr="sum(1 - shardsync_up)", legend=""),
            Look(red_at=1),
        ),
        number(
            "Directories polled",
            "Directories without a watch: raise fs.inotify.max_user_watches.",
            Query(expr=f"sum(shardsync_polled_directories{{{_SHARD}}})", legend=""),
            Look(red_at=1),
        ),
    )


def _nodes() -> Sequence[Panel]:
    latency = "shardsync_sync_latency_seconds"
    coded = " or ".join(
        f'shardsync_node_state{{{_NODE},state="{state}"}} * {code}'
        for code, (state, _) in enumerate(NODE_STATES, start=1)
    )
    return (
        curves(
            "Sync latency",
            "From a Change observed to the Change on the Node: half and 99 of 100 are faster.",
            (_quantile(0.5, latency, "p50"), _quantile(0.99, latency, "p99")),
            Look(unit="s", minimum=None),
            is_logarithmic=True,
        ),
        curves(
            "Lag",
            "Age of the oldest Change not yet on the Node; 0 when none waits.",
            (_of_node("shardsync_node_lag_seconds"),),
            Look(unit="s"),
        ),
        curves(
            "Lag in Changes",
            "Changes and open paths not yet on the Node.",
            (_of_node("shardsync_node_lag_changes"),),
        ),
        curves(
            "Retry paths of each Node",
            "Paths that failed on the Node and are tried again with a back-off of their own.",
            (_of_node("shardsync_retry_paths"),),
        ),
        states(
            "Node states",
            "The state of each Node; `shardsync status` tells the last error.",
            Query(expr=f"sum by (tree, node) ({coded})", legend=_OF_NODE),
            NODE_STATES,
            width=12,
        ),
        bars(
            "Bootstrap and reconcile",
            "How much of a bootstrap or reconcile of the Node is done.",
            _of_node("shardsync_node_progress_ratio"),
        ),
    )


def _batches() -> Sequence[Panel]:
    duration = "shardsync_batch_duration_seconds"
    return (
        curves(
            "Batches by outcome",
            "shipped: all of it is on the Node; partial: some paths are retried; failed: the Node"
            " or the way to it; halted: a guard stopped it.",
            (_rate("shardsync_batches_total", _NODE, "outcome", "{{outcome}}"),),
            Look(unit="ops"),
        ),
        curves(
            "Batch duration",
            "How long a Batch took, failed ones included.",
            (_quantile(0.5, duration, "p50"), _quantile(0.99, duration, "p99")),
            Look(unit="s", minimum=None),
            is_logarithmic=True,
        ),
        curves(
            "Shipped bytes",
            "Bytes that rsync sent.",
            (_rate("shardsync_shipped_bytes_total", _NODE, "tree, node", _OF_NODE),),
            Look(unit="Bps"),
        ),
        curves(
            "Shipped paths",
            "Paths shipped; a path may be shipped twice.",
            (_rate("shardsync_shipped_paths_total", _NODE, "tree, node", _OF_NODE),),
            Look(unit="ops"),
        ),
        curves(
            "Deleted paths",
            "Paths deleted because they are gone from the Tree.",
            (_rate("shardsync_deleted_paths_total", _NODE, "tree, node", _OF_NODE),),
            Look(unit="ops"),
        ),
        curves(
            "rsyncs",
            "rsyncs that transfer now, beside how many may (`sync.max_rsyncs`).",
            (
                Query(expr="shardsync_rsyncs_running", legend="running {{instance}}"),
                Query(expr="shardsync_rsyncs_limit", legend="limit {{instance}}"),
            ),
        ),
    )


def _shards() -> Sequence[Panel]:
    known = f"(shardsync_watermark_timestamp_seconds{{{_SHARD}}} > 0)"
    overflows = f"increase(shardsync_overflows_total{{{_SHARD}}}[$__rate_interval])"
    epochs = f"increase(shardsync_epochs_total{{{_SHARD}}}[$__rate_interval])"
    return (
        curves(
            "Changes",
            "Changes journaled.",
            (_rate("shardsync_changes_total", _SHARD, "shard", _OF_SHARD),),
            Look(unit="ops"),
        ),
        curves(
            "Watermark age",
            "All that changed before the Watermark is journaled. It moves every 10 s; a scan"
            " holds it.",
            (Query(expr=f"time() - {known}", legend=_OF_SHARD),),
            Look(unit="s"),
        ),
        curves(
            "Watches and directories",
            "inotify watches held and directories observed; polled ones lack a watch.",
            (
                _of_shard("shardsync_watches", "watches {{shard}}"),
                _of_shard("shardsync_directories", "directories {{shard}}"),
                _of_shard("shardsync_polled_directories", "polled {{shard}}"),
            ),
        ),
        curves(
            "Journals",
            "Size on disk; `state.retention` and `state.journal_max` limit it.",
            (_of_shard("shardsync_journal_bytes"),),
            Look(unit="bytes"),
        ),
        curves(
            "Overflows",
            "The kernel's queue was full: the Shard is scanned again and nothing is lost.",
            (Query(expr=f"sum by (shard) ({overflows})", legend=_OF_SHARD),),
        ),
        curves(
            "Epochs begun",
            "Unbroken observation ended for this reason and began again.",
            (Query(expr=f"sum by (reason) ({epochs})", legend="{{reason}}"),),
        ),
        bars(
            "Scans",
            "How much of the present scan is done; 1 while none runs.",
            _of_shard("shardsync_scan_progress_ratio"),
            width=24,
        ),
    )


def _processes() -> Sequence[Panel]:
    return (
        states(
            "Processes",
            "Coordinator, sync process and Watchers. All gone: the sync process, which tells of"
            " them, is down too.",
            Query(expr="shardsync_up", legend="{{process}} {{instance}}"),
            (("down", RED), ("up", GREEN)),
            first=0,
            width=18,
        ),
        number(
            "Version",
            "Of the running sync process.",
            Query(expr="shardsync_build_info", legend="{{version}}"),
            Look(minimum=None),
            width=6,
            shows_legend=True,
        ),
    )
