"""kill -9 of a Watcher in the middle of a scan: what it did not say, the next one finds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shardsync.errors import StateUnusable
from shardsync.journal.progress import Progress
from shardsync.journal.reader import JournalReader
from shardsync.model import ShardState
from tests.support.compare import differences
from tests.support.instances import Instance, eventually, instance

DIRECTORIES = 12_000


def shardsync(made: Instance, *words: str) -> int:
    """The exit code of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "shardsync.cli.main", *words],
        env={**os.environ, "SHARDSYNC_CONFIG": str(made.config)},
        capture_output=True,
        timeout=100,
        check=False,
    )
    return done.returncode


def progress(made: Instance) -> Progress | None:
    """Of the one Shard; None while there is no Journal to be read."""
    try:
        reader = JournalReader(made.state.journal("main-00"))
    except StateUnusable:
        return None
    try:
        return reader.progress()
    except StateUnusable:
        return None
    finally:
        reader.close()


def kill_in_its_scan(made: Instance) -> None:
    """Wait for a scan that is under way, and kill the Watcher before it is through."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = progress(made)
        scanning = now is not None and now.state is ShardState.SCANNING
        if now is not None and scanning and now.pid and 0 < now.scan_done < DIRECTORIES // 2:
            os.kill(now.pid, signal.SIGKILL)
            last = progress(made)
            assert last is not None
            assert last.state is ShardState.SCANNING
            return
        time.sleep(0.002)
    raise AssertionError(f"no scan was seen: {progress(made)}")


def change(made: Instance, first: int) -> None:
    """Rewrites, deletions, a directory from outside with old times, renamed directories."""
    for number in range(first, first + 2000, 10):
        (made.root / f"d{number % 100:02d}/e{number}/f").write_text(f"rewritten {first}")
    for number in range(first + 5, first + 300, 10):
        (made.root / f"d{number % 100:02d}/e{number}/f").unlink()
    outside = made.folder / f"outside{first}"
    (outside / "x").mkdir(parents=True)
    (outside / "x/f").write_text("from outside")
    os.utime(outside / "x/f", (1, 1))
    os.utime(outside / "x", (1, 1))
    os.rename(outside, made.root / f"came{first}")
    number = first + 1
    os.rename(
        made.root / f"d{number % 100:02d}/e{number}",
        made.root / f"d{(number + 1) % 100:02d}/moved{number}",
    )
    shutil.rmtree(made.root / f"d{(first + 2) % 100:02d}/e{first + 2}")


@pytest.mark.fault("watcher-killed")
@pytest.mark.timeout(300)
def test_a_watcher_killed_in_its_scans_loses_nothing(tmp_path: Path) -> None:
    """In the very first one, and in a catch-up with much to find: the Node becomes the Tree."""
    with instance(tmp_path, shards=1) as made:
        for number in range(DIRECTORIES):
            folder = made.root / f"d{number % 100:02d}/e{number}"
            folder.mkdir(parents=True)
            if number % 5 == 0:
                (folder / "f").write_text("first")
        up = threading.Thread(target=lambda: made.lifecycle().up(made.settings()))
        up.start()
        try:
            kill_in_its_scan(made)
            change(made, 0)
        finally:
            up.join(120)
        eventually(lambda: shardsync(made, "flush") == 0, seconds=120)
        assert differences(made.root, made.node) == []

        made.supervisorctl("stop", "shardsync:watcher-00")
        change(made, 3000)
        starting = threading.Thread(
            target=lambda: made.supervisorctl("start", "shardsync:watcher-00")
        )
        starting.start()
        try:
            kill_in_its_scan(made)
            change(made, 6000)
        finally:
            starting.join(60)
        eventually(lambda: shardsync(made, "flush") == 0, seconds=120)
        assert differences(made.root, made.node) == []
