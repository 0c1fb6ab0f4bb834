"""Whoever reaches the port of /metrics can neither use up the sync process nor shut others out."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from shardsync.clock import SystemClock
from shardsync.config.load import load_settings
from shardsync.log import Log
from shardsync.observe.exporter import Exporter, build_registry
from shardsync.observe.figures import SyncMetrics
from shardsync.observe.serving import CLIENT_SECONDS, MetricsServer
from tests.support.clock import FakeClock
from tests.support.instance import START, HandMade, change
from tests.support.instances import eventually
from tests.support.transports import ODD_NAMES

SLOW_CLIENTS = 200
CLIENTS = 16
_GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """A small exposition, served."""
    registry = CollectorRegistry()
    Gauge("answered", "Whether the scrape got through.", registry=registry).set(1)
    made = Exporter(registry=registry, listen=("127.0.0.1", 0), clock=SystemClock())
    made.start()
    yield made
    made.stop()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still unless told."""
    return FakeClock()


@pytest.fixture
def served(clock: FakeClock) -> Iterator[MetricsServer]:
    """A server for which no time goes by."""
    server = MetricsServer(listen=("127.0.0.1", 0), application=lambda *_: [b""], clock=clock)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield server
    server.shutdown()
    server.server_close()
    serving.join()


def scraped(port: int) -> bytes:
    """What Prometheus gets."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return bytes(answer.read())


def threads_of_clients() -> int:
    """How many threads serve a client."""
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


@pytest.mark.fault("slow-scrapes")
def test_slow_clients_shut_nobody_out(exporter: Exporter) -> None:
    """With 200 that never finish a request, Prometheus is answered, by a bounded crowd."""
    with contextlib.ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            client = socket.create_connection(("127.0.0.1", exporter.port), timeout=10)
            stack.enter_context(client)
            client.sendall(_GET)
        before = len(os.listdir("/proc/self/fd"))
        assert b"answered 1.0" in scraped(exporter.port)
        eventually(lambda: threads_of_clients() <= CLIENTS)
        # The test's own ends are among them.
        assert before <= SLOW_CLIENTS + CLIENTS + 100
    eventually(lambda: threads_of_clients() == 0)


@pytest.mark.fault("slow-scrapes")
def test_a_client_is_cut_off_in_time(served: MetricsServer, clock: FakeClock) -> None:
    """A byte now and then buys no more than the time that every client has."""
    address = ("127.0.0.1", served.server_port)
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(_GET)
        eventually(lambda: threads_of_clients() == 1)
        clock.advance(CLIENT_SECONDS)
        assert client.recv(1) == b""


@pytest.mark.fault("slow-scrapes")
@pytest.mark.parametrize(("lines", "size"), [(1, 10_000_000), (90, 60_000), (100_000, 100)])
def test_a_header_without_end_is_not_read(served: MetricsServer, lines: int, size: int) -> None:
    """Of megabytes of header, in one line or in many, a few kilobytes are taken: then it ends."""
    line = b"X: " + b"a" * size + b"\r\n"
    address = ("127.0.0.1", served.server_port)
    with (
        socket.create_connection(address, timeout=10) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(_GET + line * lines)
        while client.recv(65_536):
            pass
    eventually(lambda: threads_of_clients() == 0)


def test_no_name_makes_a_series(tmp_path: Path) -> None:
    """With 100,000 odd names in the Journal, there are the series that there were with none."""
    made = HandMade(folder=tmp_path, clock=FakeClock())
    made.make()
    journal = made.add_shard()
    made.open_state()
    text = made.write_settings()
    try:
        registry = build_registry(
            state=made.state,
            settings=load_settings(text, {}, tmp_path),
            metrics=SyncMetrics(rsyncs_limit=1),
            clock=made.clock,
            log=Log("test"),
        )
        before = labels(generate_latest(registry))
        for number in range(4_000):
            tag = b"<img onerror=x>%d" % number
            journal.commit([change(name + tag, START) for name in ODD_NAMES])
        after = generate_latest(registry)
        assert labels(after) == before
        assert b"onerror" not in after
    finally:
        made.close()


def labels(exposition: bytes) -> set[bytes]:
    """Each series, without its value."""
    return {line.rpartition(b" ")[0] for line in exposition.splitlines()}
