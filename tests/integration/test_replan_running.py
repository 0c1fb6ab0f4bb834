"""The Plan follows the Tree while all runs: split where it grew, nothing lost, nothing resent."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from shardsync.control.programs import Commands, commands
from shardsync.journal.plan import Plan, PlannedShard, PlanState, read_plan
from shardsync.journal.reader import JournalReader
from shardsync.model import Change, Scope
from tests.support.compare import differences
from tests.support.instances import Instance, eventually, instance

_FOLDERS = 40
_BELOW = 30
_HOLD_SECONDS = 7.0
"""Longer than the margin of the catch-up: what was filled before is old news by then."""


@pytest.fixture
def grown(tmp_path: Path) -> Iterator[Instance]:
    """Two Shards are wanted, and the Tree is empty when it is planned; then it is filled."""
    with instance(tmp_path, shards=2) as made:
        made.lifecycle().up(made.settings(), programs=eager(made))
        eventually(lambda: states(made) == [PlanState.ACTIVE])
        fill(made)
        eventually(lambda: not differences(made.root, made.node))
        yield made


def eager(made: Instance) -> Commands:
    """The real programs; the Coordinator evens out small Trees too."""
    real = commands(made.state, made.config)
    pace = ("--balance-floor", "100", "--balance-hold", str(_HOLD_SECONDS))
    return replace(real, coordinator=(*real.coordinator, *pace))


def fill(made: Instance) -> None:
    for number in range(_FOLDERS):
        for below in range(_BELOW):
            folder = made.root / f"d{number:02d}" / f"{below:02d}"
            folder.mkdir(parents=True)
            (folder / "page").write_text(f"{number} {below}")


def plan_of(made: Instance) -> Plan:
    return read_plan(made.state.plan) or Plan()


def states(made: Instance) -> list[PlanState]:
    return [shard.state for shard in plan_of(made).observing()]


def is_split(made: Instance) -> bool:
    return states(made) == [PlanState.ACTIVE, PlanState.ACTIVE]


def watermarks(made: Instance) -> list[int]:
    found = []
    for shard in plan_of(made).observing():
        with contextlib.closing(JournalReader(made.state.journal(shard.id))) as reader:
            found.append(reader.progress().watermark_us or 0)
    return found


def changes(made: Instance, shard: PlannedShard) -> list[Change]:
    with contextlib.closing(JournalReader(made.state.journal(shard.id))) as reader:
        return list(reader.read(after=0, limit=100_000))


class Churn:
    """Writers that go on in a few folders, by name `hot`, until they are told to stop."""

    def __init__(self, made: Instance) -> None:
        self._made = made
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(3)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, writer: int) -> None:
        number = 0
        while not self._stop.is_set():
            folder = self._made.root / f"d{number % _FOLDERS:02d}" / "00"
            file = folder / f"hot-{writer}-{number % 7}"
            file.write_text(f"{writer} {number}")
            if number % 5 == 4:
                file.rename(file.with_name(f"hot-moved-{writer}"))
            if number % 11 == 10:
                (folder / f"hot-{writer}-folder-{number}").mkdir()
            number += 1
            time.sleep(0.01)


def of_what_stood_still(made: Instance, shard: PlannedShard) -> list[Change]:
    """Changes that have unchanged files looked at again; `hot` is what was churned."""
    return [
        change
        for change in changes(made, shard)
        if b"hot" not in change.path
        and (change.scope is Scope.TREE or change.path.endswith(b"page"))
    ]


@pytest.mark.timeout(180)
def test_a_tree_planned_while_empty_comes_to_use_all_its_shards(grown: Instance) -> None:
    """Split while writers go on: the Node follows, and what stood still is not looked at again."""
    only = plan_of(grown).observing()[0]
    with Churn(grown):
        eventually(lambda: is_split(grown), seconds=60)
        time.sleep(1)
    kept, new = plan_of(grown).observing()
    assert kept.id == only.id
    assert new.takes_from == (only.id,)
    assert abs(kept.directories - new.directories) < 0.15 * kept.directories
    eventually(lambda: not differences(grown.root, grown.node))
    assert of_what_stood_still(grown, new) == []
    first = changes(grown, kept)[-1].position
    (grown.root / os.fsdecode(new.prefixes[0]) / "later").write_text("x")
    (grown.root / "brand-new" / "below").mkdir(parents=True)
    (grown.root / "brand-new" / "below" / "file").write_text("x")
    eventually(lambda: not differences(grown.root, grown.node))
    assert any(change.path.endswith(b"later") for change in changes(grown, new))
    paths = {change.path for change in changes(grown, kept) if change.position > first}
    assert b"brand-new/below/file" in paths or b"brand-new" in paths
    assert not any(path.endswith(b"later") for path in paths)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("victim", [PlanState.ACTIVE, PlanState.NEW])
def test_a_watcher_killed_in_the_middle_of_a_split_changes_nothing(
    grown: Instance, victim: PlanState
) -> None:
    """The old one or the new one: both come back, the split is done, the Node follows."""
    with Churn(grown):
        eventually(lambda: kill(grown, victim), seconds=60)
        eventually(lambda: is_split(grown), seconds=60)
        time.sleep(1)
    eventually(lambda: not differences(grown.root, grown.node))


def kill(made: Instance, victim: PlanState) -> bool:
    """Kill a Watcher of that state, once a split is under way and it runs."""
    plan = plan_of(made)
    if PlanState.NEW not in {shard.state for shard in plan.observing()}:
        return False
    shard = next(shard for shard in plan.observing() if shard.state is victim)
    pid = made.program(f"watcher-{shard.slot:02d}").pid
    if not pid:
        return False
    os.kill(pid, signal.SIGKILL)
    return True


@pytest.mark.timeout(120)
def test_a_plan_removed_while_running_is_put_back(grown: Instance) -> None:
    """The Coordinator knows it still: nobody stops, nothing is compared."""
    before = plan_of(grown)
    made_files = sorted(path.name for path in grown.state.path.glob("journal-*.db"))
    grown.state.plan.unlink()
    eventually(lambda: plan_of(grown) == before)
    (grown.root / "d00" / "after").write_text("x")
    eventually(lambda: not differences(grown.root, grown.node))
    assert sorted(path.name for path in grown.state.path.glob("journal-*.db")) == made_files


@pytest.mark.timeout(120)
def test_fewer_shards_look_at_nothing_that_stood_still(tmp_path: Path) -> None:
    """One new Shard takes over from two: what is old news to them is none to it."""
    with instance(tmp_path, shards=2) as made:
        fill(made)
        made.lifecycle().up(made.settings())
        eventually(lambda: is_split(made) and not differences(made.root, made.node))
        time.sleep(_HOLD_SECONDS)
        made.write_settings(shards=1)
        began_us = time.time_ns() // 1000
        with Churn(made):
            # A Watermark moves with a commit: until then what stood still may be news.
            eventually(lambda: min(watermarks(made)) > began_us)
            made.client.signal("shardsync:coordinator", "HUP")
            eventually(lambda: states(made) == [PlanState.ACTIVE], seconds=60)
            time.sleep(1)
        (only,) = plan_of(made).observing()
        assert len(only.takes_from) == 2
        eventually(lambda: not differences(made.root, made.node))
        assert of_what_stood_still(made, only) == []
