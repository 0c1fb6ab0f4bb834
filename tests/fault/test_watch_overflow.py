"""A kernel queue of 64 events and several processes that overrun it: nothing is lost."""

from __future__ import annotations

import itertools
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.model import ShardState
from tests.fault.test_watch_churn import ModelNode, snapshot
from tests.support.queue import small_queue
from tests.support.watching import Watching

SECONDS = 3.0

CHURN = """
import os, random, shutil, sys, time
root, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
dice = random.Random(seed)
def place():
    return os.path.join(root, *(dice.choice("abcdef") for _ in range(dice.randint(1, 3))))
end = time.monotonic() + seconds
while time.monotonic() < end:
    path = place()
    luck = dice.random()
    try:
        if luck < 0.5:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as stream:
                stream.write(str(dice.random()))
        elif luck < 0.7:
            os.makedirs(path)
        elif luck < 0.85:
            os.rename(path, place())
        elif luck < 0.92:
            os.unlink(path)
        else:
            shutil.rmtree(path)
    except OSError:
        pass
"""


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    """Following an empty tree with a queue of 64 events."""
    watching = Watching(tmp_path)
    watching.root.mkdir()
    with small_queue():
        watching.begin()
    watching.quiet()
    yield watching
    watching.close()


@pytest.mark.fault("queue-overflow")
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to lower the queue")
def test_four_processes_that_overrun_the_queue_lose_nothing(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    """It overflows again and again, scans while events go on arriving, and tells of it."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHURN, str(watching.root), str(seed), str(SECONDS)]
        )
        for seed in range(4)
    ]
    ticks = 0
    with caplog.at_level(logging.INFO):
        while any(process.poll() is None for process in processes):
            watching.tick(0.05)
            ticks += 1
            if ticks % 10 == 0:
                time.sleep(0.05)  # as if the machine had other things to do
        watching.quiet(20_000)
    progress = watching.progress()
    assert progress.state is ShardState.FOLLOWING
    assert progress.overflows > 1
    told = re.findall(r"queue\.overflowed .*|scan\.done", caplog.text)
    assert len(told) - told.count("scan.done") == progress.overflows
    assert set(watching.epochs()) == {"first_start", "overflow"}
    # A pass for each overflow that found none under way; one more for all that came in a pass.
    during = [line.endswith("scanning=True") for line in told]
    at_rest = sum(line.endswith("scanning=False") for line in told)
    runs = sum(was and not before for before, was in itertools.pairwise([False, *during]))
    assert told.count("scan.done") == at_rest + runs
    node = ModelNode()
    tree = snapshot(watching.root)
    for change in watching.changes():
        node.take(change, tree)
    assert node.holds == tree
    # All is watched under its own path: what happens now is told by events.
    for path in tree:
        if tree[path][0] == "d":
            (watching.root / os.fsdecode(path) / "later").write_text("x")
            watching.tick(0)
    watching.quiet()
    journaled = {change.path for change in watching.changes()}
    assert {path + b"/later" for path in tree if tree[path][0] == "d"} <= journaled
