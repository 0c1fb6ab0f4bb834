"""/metrics: the names of the contract, values of known work, and no scrape that fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from shardsync.clock import SystemClock
from shardsync.config.settings import (
    CallbackSettings,
    NodeSettings,
    Settings,
    Target,
    TargetKind,
    TreeSettings,
)
from shardsync.errors import StateUnusable
from shardsync.journal.records import BatchRecord, Compare, Cursor, Work, WorkReason
from shardsync.log import Log
from shardsync.model import EpochReason, NodeState, Scope, ShardState
from shardsync.observe.exporter import Exporter, build_registry
from shardsync.observe.figures import SyncMetrics
from shardsync.observe.liveness import Liveness
from shardsync.observe.reader import StatusReader
from shardsync.ship.observer import BatchOutcome, CallbackOutcome
from tests.support.clock import FakeClock
from tests.support.instance import START, HandMade, change
from tests.support.instances import eventually
from tests.support.sources import REPOSITORY

WEB1 = ("main", "web1")
NODE = (("node", "web1"), ("tree", "main"))
SHARD = (("shard", "main-00"), ("tree", "main"))

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

CONTRACT = {
    "shardsync_build_info": {"version"},
    "shardsync_up": {"process"},
    "shardsync_changes_total": {"tree", "shard"},
    "shardsync_watches": {"tree", "shard"},
    "shardsync_directories": {"tree", "shard"},
    "shardsync_overflows_total": {"tree", "shard"},
    "shardsync_epochs_total": {"tree", "shard", "reason"},
    "shardsync_journal_bytes": {"tree", "shard"},
    "shardsync_journal_position": {"tree", "shard"},
    "shardsync_watermark_timestamp_seconds": {"tree", "shard"},
    "shardsync_scan_progress_ratio": {"tree", "shard"},
    "shardsync_node_progress_ratio": {"tree", "node"},
    "shardsync_node_lag_seconds": {"tree", "node"},
    "shardsync_node_lag_changes": {"tree", "node"},
    "shardsync_node_state": {"tree", "node", "state"},
    "shardsync_sync_latency_seconds_bucket": {"tree", "node", "le"},
    "shardsync_sync_latency_seconds_sum": {"tree", "node"},
    "shardsync_sync_latency_seconds_count": {"tree", "node"},
    "shardsync_batches_total": {"tree", "node", "outcome"},
    "shardsync_batch_duration_seconds_bucket": {"tree", "node", "le"},
    "shardsync_batch_duration_seconds_sum": {"tree", "node"},
    "shardsync_batch_duration_seconds_count": {"tree", "node"},
    "shardsync_shipped_paths_total": {"tree", "node"},
    "shardsync_deleted_paths_total": {"tree", "node"},
    "shardsync_shipped_bytes_total": {"tree", "node"},
    "shardsync_retry_paths": {"tree", "node"},
    "shardsync_rsyncs_running": set(),
    "shardsync_rsyncs_limit": set(),
    "shardsync_callback_lag_seconds": {"callback"},
    "shardsync_callback_runs_total": {"callback", "outcome"},
}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HandMade]:
    instance = HandMade(folder=tmp_path, clock=FakeClock())
    instance.make()
    yield instance
    instance.close()


def _settings(made: HandMade, *nodes: str) -> Settings:
    return Settings(
        source=made.folder / "shardsync.toml",
        state_dir=made.state.path,
        trees=(TreeSettings(name="main", root=made.root),),
        nodes=tuple(
            NodeSettings(
                name=name,
                tree="main",
                target=Target(kind=TargetKind.LOCAL, path=str(made.folder / name)),
            )
            for name in nodes
        ),
        callbacks=(CallbackSettings(name="purge", tree="main", command=("true",)),),
    )


def _registry(
    made: HandMade, metrics: SyncMetrics, nodes: tuple[str, ...] = ("web1",)
) -> CollectorRegistry:
    return build_registry(
        state=made.state,
        settings=_settings(made, *nodes),
        metrics=metrics,
        clock=made.clock,
        log=Log("test"),
    )


def _scrape(registry: CollectorRegistry) -> Samples:
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_name_and_label_of_the_contract_is_there_from_the_start(made: HandMade) -> None:
    """Before anything happened every series of a known Shard, Node and Callback exists."""
    made.add_shard()
    found: dict[str, set[str]] = {}
    for name, labels in _scrape(_registry(made, SyncMetrics())):
        found.setdefault(name, {key for key, _ in labels})
    assert {name: found.get(name) for name in CONTRACT} == CONTRACT


def test_what_nothing_happened_to_is_zero(made: HandMade) -> None:
    """Counters, lags and histograms of a new Node are 0, not absent."""
    samples = _scrape(_registry(made, SyncMetrics()))
    assert samples["shardsync_shipped_paths_total", NODE] == 0
    assert samples["shardsync_node_lag_seconds", NODE] == 0
    assert samples["shardsync_sync_latency_seconds_count", NODE] == 0
    assert samples["shardsync_batches_total", (*NODE[:1], ("outcome", "failed"), NODE[1])] == 0
    assert samples["shardsync_callback_lag_seconds", (("callback", "purge"),)] == 0


def _commit_known_work(made: HandMade) -> None:
    """Three Changes, two of them open, one retry; ten seconds pass."""
    journal = made.add_shard()
    last = journal.commit(
        [change(b"a"), change(b"b"), change(b"c", START + 3_000_000)],
        progress={"state": ShardState.SCANNING, "scan_done": 30, "scan_total": 120, "watches": 9,
                  "directories": 11, "overflows": 2, "watermark_us": START + 500_000},
    )  # fmt: skip
    state = made.open_state()
    state.know_node(WEB1)
    state.set_node(WEB1, state=NodeState.BACKING_OFF, progress=0.75)
    retry = Work(
        path=b"x",
        scope=Scope.ENTRY,
        compare=Compare.CONTENT,
        reason=WorkReason.RETRY,
        since=START + 4_000_000,
    )
    cursor = Cursor(journal_id="id-main-00", position=last - 1)
    state.record(WEB1, BatchRecord(cursors={"main-00": cursor}, work_added=[retry]))
    made.hold("sync", "journal-main-00")
    made.clock.advance(10)


def test_a_tree_s_state_is_one_of_three(made: HandMade) -> None:
    """1 for the present one: halted by a guard, whatever the Nodes are."""
    made.add_shard().commit([], progress={"state": ShardState.FOLLOWING})
    made.hold("sync", "journal-main-00")
    registry = _registry(made, SyncMetrics())

    def states() -> dict[str, float]:
        return {
            dict(labels)["state"]: value
            for (name, labels), value in _scrape(registry).items()
            if name == "shardsync_tree_state"
        }

    assert states() == {"ok": 1, "degraded": 0, "halted": 0}
    made.open_state().set_tree("main", halted="root is gone")
    assert states() == {"ok": 0, "degraded": 0, "halted": 1}


def test_values_of_known_work(made: HandMade) -> None:
    """Each figure is what was committed and told, no more."""
    _commit_known_work(made)
    metrics = SyncMetrics(rsyncs_limit=8)
    metrics.batch_finished(
        WEB1, BatchOutcome.SHIPPED, seconds=0.02, shipped_paths=5, deleted_paths=2,
        shipped_bytes=4096,
    )  # fmt: skip
    metrics.batch_finished(WEB1, BatchOutcome.FAILED, seconds=4.0)
    metrics.changes_shipped(WEB1, (0.004, 0.3, 99999.0))
    metrics.rsyncs_running(3, limit=8)
    metrics.callback_finished("main", "purge", CallbackOutcome.OK)
    metrics.callback_lag("main", "purge", 1.5)

    samples = _scrape(_registry(made, metrics))

    def node(name: str, **labels: str) -> float:
        return samples[name, tuple(sorted((*NODE, *labels.items())))]

    def shard(name: str, **labels: str) -> float:
        return samples[name, tuple(sorted((*SHARD, *labels.items())))]

    assert shard("shardsync_changes_total") == 3
    assert shard("shardsync_watches") == 9
    assert shard("shardsync_directories") == 11
    assert shard("shardsync_overflows_total") == 2
    assert shard("shardsync_epochs_total", reason="first_start") == 1
    assert shard("shardsync_epochs_total", reason="crash") == 0
    assert shard("shardsync_journal_position") == START + 2
    assert shard("shardsync_journal_bytes") > 4096
    assert shard("shardsync_watermark_timestamp_seconds") == START / 1_000_000 + 0.5
    assert shard("shardsync_scan_progress_ratio") == 0.25
    assert node("shardsync_node_lag_changes") == 2
    assert node("shardsync_node_lag_seconds") == 7
    assert node("shardsync_retry_paths") == 1
    assert node("shardsync_node_progress_ratio") == 0.75
    assert node("shardsync_node_state", state="backing_off") == 1
    assert node("shardsync_node_state", state="following") == 0
    assert node("shardsync_batches_total", outcome="shipped") == 1
    assert node("shardsync_batches_total", outcome="failed") == 1
    assert node("shardsync_shipped_paths_total") == 5
    assert node("shardsync_deleted_paths_total") == 2
    assert node("shardsync_shipped_bytes_total") == 4096
    assert node("shardsync_batch_duration_seconds_sum") == 4.02
    assert node("shardsync_sync_latency_seconds_bucket", le="0.005") == 1
    assert node("shardsync_sync_latency_seconds_bucket", le="0.5") == 2
    assert node("shardsync_sync_latency_seconds_bucket", le="1800.0") == 2
    assert node("shardsync_sync_latency_seconds_bucket", le="+Inf") == 3
    assert samples["shardsync_rsyncs_running", ()] == 3
    assert samples["shardsync_rsyncs_limit", ()] == 8
    assert samples["shardsync_callback_lag_seconds", (("callback", "purge"),)] == 1.5
    runs = (("callback", "purge"), ("outcome", "ok"))
    assert samples["shardsync_callback_runs_total", runs] == 1
    up = {labels: value for (name, labels), value in samples.items() if name == "shardsync_up"}
    assert up == {
        (("process", "coordinator"),): 0,
        (("process", "sync"),): 1,
        (("process", "watcher-00"),): 1,
    }
    assert samples["shardsync_scrape_failed_parts", ()] == 0


def test_a_damaged_journal_does_not_fail_the_scrape(made: HandMade) -> None:
    """What cannot be read is 0 or left out; the other Nodes and Shards are there."""
    journal = made.add_shard()
    registry = _registry(made, SyncMetrics())
    journal.close()
    made.state.journal("main-00").write_bytes(b"no database" * 1000)
    made.state.plan.write_text("no plan")
    made.state.state_db.write_bytes(b"no database" * 1000)
    samples = _scrape(registry)
    assert samples["shardsync_node_lag_seconds", NODE] == 0


def test_a_part_that_fails_is_left_out_and_counted(made: HandMade) -> None:
    """Whatever one part raises, the rest of the scrape is served."""

    class Broken(SyncMetrics):
        def callback_lags(self) -> dict[str, float]:
            raise RuntimeError("broken")

    samples = _scrape(_registry(made, Broken()))
    assert samples["shardsync_scrape_failed_parts", ()] == 1
    assert samples["shardsync_shipped_paths_total", NODE] == 0


def test_pruning_epochs_never_lowers_their_counter(made: HandMade) -> None:
    """A counter that falls would look like a restart."""
    journal = made.add_shard()
    journal.begin_epoch(EpochReason.OVERFLOW)
    made.clock.advance(60)
    journal.begin_epoch(EpochReason.OVERFLOW)
    registry = _registry(made, SyncMetrics())
    series = ("shardsync_epochs_total", (("reason", "overflow"), *SHARD))
    assert _scrape(registry)[series] == 2
    journal.commit([change(b"a", START)])
    journal.prune(before_us=START + 90_000_000, max_bytes=1 << 40)
    journal.begin_epoch(EpochReason.OVERFLOW)
    assert _scrape(registry)[series] == 3


def test_odd_node_names_are_no_labels_of_paths(made: HandMade) -> None:
    """No path ever appears in the exposition."""
    journal = made.add_shard()
    journal.commit([change(b"secret-path")])
    assert b"secret-path" not in generate_latest(_registry(made, SyncMetrics()))


def test_it_is_served_over_http_and_stops(made: HandMade) -> None:
    """A client gets the exposition; a second exporter on the port is refused in words."""
    exporter = Exporter(
        registry=_registry(made, SyncMetrics()), listen=("127.0.0.1", 0), clock=SystemClock()
    )
    exporter.start()
    url = f"http://127.0.0.1:{exporter.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert b"shardsync_build_info" in answer.read()
    second = Exporter(
        registry=CollectorRegistry(), listen=("127.0.0.1", exporter.port), clock=SystemClock()
    )
    with pytest.raises(StateUnusable, match=r"cannot listen on 127\.0\.0\.1"):
        second.start()
    exporter.stop()
    exporter.stop()


def test_a_port_in_use_is_told_by_status(made: HandMade) -> None:
    """The sync process ships on; Prometheus sees nothing, so an operator must."""
    made.add_shard()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = made.write_settings(more=f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
        argv = ["-m", "shardsync.cli.sync_process", "--state", str(made.state.path)]
        process = subprocess.Popen(
            [sys.executable, *argv, "--settings", str(file)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.DEVNULL,
        )
        reader = StatusReader(
            state=made.state, settings=None, clock=made.clock, liveness=Liveness(state=made.state)
        )
        try:
            told = f"metrics: cannot listen on 127.0.0.1:{port}: Address already in use"
            eventually(lambda: any(told in problem for problem in reader.read().problems))
            assert reader.read().exit_code == 14
        finally:
            process.terminate()
            process.wait(timeout=30)
        assert reader.read().problems == ()
        reader.close()
