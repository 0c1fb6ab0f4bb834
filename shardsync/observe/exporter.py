"""/metrics: the one exporter of an instance, inside the sync process.

Reads the state directory anew at each scrape. A part that fails is left out
and counted; the scrape itself never fails, and a slow client holds nothing up.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shardsync import __version__
from shardsync.clock import Clock
from shardsync.config.settings import Settings
from shardsync.errors import StateUnusable
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log
from shardsync.model import EpochReason
from shardsync.observe.families import (
    callback_families,
    node_families,
    process_families,
    shard_families,
    shipping_families,
    tree_families,
)
from shardsync.observe.figures import SyncMetrics
from shardsync.observe.liveness import Liveness
from shardsync.observe.reader import StatusReader
from shardsync.observe.serving import MetricsServer
from shardsync.observe.status import ShardStatus, Status


class EpochCounter:
    """Counts Epochs by number, so that pruning old ones never makes a counter fall."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._counted: Counter[tuple[str, EpochReason]] = Counter()

    def count(self, shards: Iterable[ShardStatus]) -> Counter[tuple[str, EpochReason]]:
        """(Shard, reason) -> Epochs begun, from those in the Journal at the first call on."""
        for shard in shards:
            for number, reason in shard.epochs:
                if number > self._newest.get(shard.id, 0):
                    self._newest[shard.id] = number
                    self._counted[shard.id, reason] += 1
        return self._counted.copy()


class ShardsyncCollector(Collector):
    """Everything that /metrics tells, gathered at each scrape.

    A Collector by inheritance because prometheus_client asks for it.
    """

    def __init__(
        self,
        *,
        reader: StatusReader,
        metrics: SyncMetrics,
        callbacks: Iterable[str],
        log: Log,
        repeats: ChangeOnly,
    ) -> None:
        self._reader = reader
        self._metrics = metrics
        self._callbacks = tuple(callbacks)
        self._log = log
        self._repeats = repeats
        self._epochs = EpochCounter()
        # Scrapes come in threads of their own; the reader's connections are shared.
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            failed: list[str] = []
            found = self._gather(failed)
        yield from found
        errors = GaugeMetricFamily(
            "shardsync_scrape_failed_parts", "Parts that this scrape lacks.", value=len(failed)
        )
        yield errors

    def describe(self) -> Iterator[Metric]:
        """Nothing: otherwise registering would already read the state directory."""
        return iter(())

    def _gather(self, failed: list[str]) -> list[Metric]:
        status = Status()

        def read() -> Iterator[Metric]:
            nonlocal status
            status = self._reader.read()
            return iter(())

        parts: tuple[tuple[str, Callable[[], Iterator[Metric]]], ...] = (
            ("status", read),
            ("processes", lambda: process_families(status, __version__)),
            ("trees", lambda: tree_families(status.trees)),
            ("shards", lambda: shard_families(status.shards, self._epochs.count(status.shards))),
            ("nodes", lambda: node_families(status.nodes)),
            ("shipping", lambda: shipping_families(status.nodes, self._metrics)),
            ("callbacks", lambda: callback_families(self._callbacks, self._metrics)),
        )
        found: list[Metric] = []
        for name, part in parts:
            try:
                found.extend(part())
            except Exception as error:  # noqa: BLE001 (one failing part never fails the scrape)
                failed.append(name)
                self._tell(name, error)
        return found

    def _tell(self, part: str, error: Exception) -> None:
        if self._repeats.is_due(f"{part} {error}"):
            self._log.error("metrics.part_failed", part=part, error=repr(error))


class Exporter:
    """The HTTP server of /metrics."""

    def __init__(
        self, *, registry: CollectorRegistry, listen: tuple[str, int], clock: Clock
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._listen = listen
        self._stop: Callable[[], None] | None = None
        self.port = 0

    def start(self) -> None:
        """Listen, each client in a thread of its own. Raises StateUnusable: address in use."""
        host, port = self._listen
        try:
            server = MetricsServer(
                listen=self._listen, application=make_wsgi_app(self._registry), clock=self._clock
            )
        except OSError as error:
            raise StateUnusable(
                f"metrics: cannot listen on {host}:{port}: {error.strerror}",
                hint="set another metrics.listen, or end what uses that port",
            ) from error
        self.port = int(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def stop() -> None:
            server.shutdown()
            server.server_close()

        self._stop = stop

    def stop(self) -> None:
        """Stop listening. Idempotent; a client in the middle of an answer is cut off."""
        if self._stop is not None:
            self._stop()
            self._stop = None


def build_registry(
    *, state: StateDirectory, settings: Settings, metrics: SyncMetrics, clock: Clock, log: Log
) -> CollectorRegistry:
    """What /metrics shows for one instance: ours, and the process's memory, CPU and files."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(
        ShardsyncCollector(
            reader=StatusReader(
                state=state, settings=settings, clock=clock, liveness=Liveness(state=state)
            ),
            metrics=metrics,
            callbacks=(callback.name for callback in settings.callbacks),
            log=log,
            repeats=ChangeOnly(clock=clock),
        )
    )
    ProcessCollector(registry=registry)
    return registry
