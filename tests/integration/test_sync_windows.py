"""Bandwidth and pause by the hour in a running sync process, with real rsync."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import time
from pathlib import Path

from shardsync.config.settings import NodeSettings
from shardsync.config.windows import Window
from shardsync.journal.requests import RequestKind
from shardsync.model import NodeState
from tests.support.clock import ShiftedClock
from tests.support.nodes import local_node
from tests.support.shipping import ask, fill, newest, row_of
from tests.support.sync import Instance, run, running

_HOUR_US = 3600 * 1_000_000


def _in_hours(begin: int, end: int, **what: object) -> Window:
    """A window from so many hours from now (of the machine's clock) to so many."""
    now = dt.datetime.fromtimestamp(time.time())  # noqa: DTZ006 (local time is meant)
    minute = now.hour * 60 + now.minute
    return Window(
        begin=(minute + begin * 60) % 1440,
        end=(minute + end * 60) % 1440,
        **what,  # type: ignore[arg-type]  # by name
    )


def _instance(folder: Path, *windows: Window) -> tuple[Instance, ShiftedClock, NodeSettings]:
    instance, clock = Instance(folder), ShiftedClock()
    instance.clock = clock
    fill(instance.tree, {"a": "1"})
    node = dataclasses.replace(local_node(folder / "node"), windows=windows)
    instance.nodes = [node]
    return instance, clock, node


def test_a_node_pauses_and_resumes_by_the_hour(tmp_path: Path) -> None:
    """Nothing is sent while the window holds; all of it is when it is over."""
    instance, clock, _ = _instance(tmp_path, _in_hours(2, 4, paused=True))
    page = tmp_path / "node/a"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            clock.ahead_us = 3 * _HOUR_US
            await sync.until(lambda: row_of(sync).state is NodeState.PAUSED)
            fill(instance.tree, {"a": "22"})
            instance.changed("a")
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert (answer.exit_code, answer.message) == (14, "not done: web1 (paused)")
            assert page.read_text() == "1"
            clock.ahead_us = 5 * _HOUR_US
            await sync.until(lambda: page.read_text() == "22")
            assert row_of(sync).paused is False

    run(work)


def test_a_resume_by_hand_holds_within_the_window(tmp_path: Path) -> None:
    """The window does not begin twice."""
    instance, _, _ = _instance(tmp_path, _in_hours(-1, 2, paused=True))

    async def work() -> None:
        async with running(instance) as sync:
            await sync.until(lambda: row_of(sync).paused)
            assert not (tmp_path / "node").exists()
            assert (await ask(sync, RequestKind.RESUME, nodes=("web1",))).exit_code == 0
            await sync.followed()
            sync.service.take(dataclasses.replace(instance.settings(), retention_seconds=3600.0))
            fill(instance.tree, {"a": "22"})
            instance.changed("a")
            await sync.followed()
            assert (tmp_path / "node/a").read_text() == "22"
            assert row_of(sync).paused is False

    run(work)


def test_the_bandwidth_follows_the_hour(tmp_path: Path) -> None:
    """An rsync under way is ended at the window's edge, and the next one has the new limit.

    At the first limit the file would take an hour.
    """
    instance, clock, _ = _instance(
        tmp_path, _in_hours(-1, 2, bandwidth="1KiB"), _in_hours(2, 4, bandwidth="")
    )

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (instance.tree / "big").write_bytes(os.urandom(4_000_000))
            instance.changed("big")
            await sync.until(lambda: any((tmp_path / "node").glob(".big.*")))
            clock.ahead_us = 3 * _HOUR_US
            await sync.until((tmp_path / "node/big").exists, seconds=40)
            await sync.followed()
            assert (tmp_path / "node/big").stat().st_size == 4_000_000

    run(work)
