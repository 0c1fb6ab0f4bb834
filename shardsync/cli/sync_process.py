"""The sync process as a program: the service, its metrics and its HTTP server put together.

Lies in cli/ because only here everything may be imported. SIGTERM and SIGINT
end it after the Batches under way, SIGHUP has it read its settings again. Run
by supervisord:
`python -m shardsync.cli.sync_process --state DIR --settings FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from shardsync.clock import Clock, SystemClock
from shardsync.config.load import load_again, load_settings
from shardsync.config.settings import Settings
from shardsync.errors import AlreadyRunning, ShardsyncError, StateUnusable
from shardsync.journal.locks import FileLock
from shardsync.journal.state_writer import StateWriter
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log, start_logging
from shardsync.observe.exporter import Exporter, build_registry
from shardsync.observe.figures import SyncMetrics
from shardsync.observe.liveness import Liveness
from shardsync.patience import patiently
from shardsync.ship.service import SyncService

_GC_OBJECTS = 50_000
_LOCK_SECONDS = 20.0
_LISTEN_AGAIN_SECONDS = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    start_logging()
    log = Log("sync")
    arguments = _parse(argv)
    try:
        patiently(
            lambda: _run(arguments.settings, StateDirectory(path=arguments.state), log),
            clock=SystemClock(),
            log=log,
        )
    except ShardsyncError as error:
        log.error("sync.failed", error=error, remedy=error.remedy)  # noqa: TRY400 (as in the log)
        return error.exit_code
    return 0


def _run(settings_file: Path, state: StateDirectory, log: Log) -> None:
    """Serve until told to stop. Raises ShardsyncError."""
    # Until its own handler is there: whoever starts reads the newest settings anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = load_settings(settings_file, os.environ, Path.cwd(), root_must_exist=False)
    try:
        state.make()
        with _lock(state, SystemClock()):
            # A Batch makes many objects and no cycles: searched for 700 at a time, a tenth went
            # into the search.
            gc.set_threshold(_GC_OBJECTS, 10, 100)
            asyncio.run(_serve(settings, state, SystemClock(), log))
    except OSError as error:
        raise StateUnusable(f"{state.path}: {error}") from error
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def _serve(settings: Settings, state: StateDirectory, clock: Clock, log: Log) -> None:
    metrics = SyncMetrics(rsyncs_limit=settings.sync.max_rsyncs)
    writer = StateWriter.open(state.state_db, clock=clock)
    service = SyncService(
        settings=settings,
        state=writer,
        observer=metrics,
        environment=os.environ,
        clock=clock,
        log=log,
    )
    metering = _Metering(settings=settings, writer=writer, metrics=metrics, clock=clock, log=log)

    def reload() -> None:
        """Take up what the file says now; a wrong one changes nothing."""
        try:
            fresh = load_again(
                settings.source, os.environ, settings.source.parent, state_dir=state.path
            )
        except ShardsyncError as error:
            log.error("settings.refused", error=error, hint=error.remedy)  # noqa: TRY400 (a refusal is no bug)
            return
        log.info("settings.loaded", file=fresh.source)
        metering.take(fresh)
        service.take(fresh)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    metering.begin()
    try:
        await service.serve()
    finally:
        await metering.end()


class _Metering:
    """/metrics, begun anew with each change of the settings: it knows Nodes and Trees by them."""

    def __init__(
        self,
        *,
        settings: Settings,
        writer: StateWriter,
        metrics: SyncMetrics,
        clock: Clock,
        log: Log,
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._metrics = metrics
        self._clock = clock
        self._log = log
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Serve it from now on."""
        self._task = asyncio.create_task(self._serve())

    def take(self, settings: Settings) -> None:
        """Go on with these settings."""
        if settings == self._settings:
            return
        self._settings = settings
        self._metrics.rsyncs_running(self._metrics.rsyncs[0], limit=settings.sync.max_rsyncs)
        self._changed.set()

    async def end(self) -> None:
        """Stop serving it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            self._changed.clear()
            exporting = asyncio.create_task(
                _export(self._settings, self._writer, self._metrics, self._clock, self._log)
            )
            try:
                await self._changed.wait()
            finally:
                exporting.cancel()
                await asyncio.gather(exporting, return_exceptions=True)


async def _export(
    settings: Settings, writer: StateWriter, metrics: SyncMetrics, clock: Clock, log: Log
) -> None:
    """Serve /metrics until cancelled. A port in use is no reason not to ship: try again."""
    if settings.metrics_listen is None:
        return
    registry = build_registry(
        state=StateDirectory(settings.state_dir),
        settings=settings,
        metrics=metrics,
        clock=clock,
        log=log,
    )
    exporter = Exporter(registry=registry, listen=settings.metrics_listen, clock=clock)
    repeats = ChangeOnly(clock=clock)
    try:
        while trouble := _trouble(exporter):
            _note(writer, trouble)
            if repeats.is_due(trouble):
                log.error("metrics.not_listening", error=trouble)
            await asyncio.sleep(_LISTEN_AGAIN_SECONDS)
        _note(writer, "")
        log.info("metrics.listening", host=settings.metrics_listen[0], port=exporter.port)
        await asyncio.Event().wait()
    finally:
        exporter.stop()


def _trouble(exporter: Exporter) -> str:
    """Have it listen; why it does not, "" where it does."""
    try:
        exporter.start()
    except StateUnusable as error:
        return f"{error}; {error.remedy}"
    return ""


def _note(writer: StateWriter, trouble: str) -> None:
    """For `status`. A disk that is full now is told of otherwise."""
    with contextlib.suppress(StateUnusable):
        writer.set_metrics_error(trouble)


def _lock(state: StateDirectory, clock: Clock) -> FileLock:
    """The sync process's own lock; an old one that is just ending is waited for."""
    deadline = clock.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return FileLock.acquire(state.lock(Liveness.SYNC))
        except AlreadyRunning:
            if clock.monotonic() >= deadline:
                raise
            time.sleep(0.2)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shardsync.cli.sync_process", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
