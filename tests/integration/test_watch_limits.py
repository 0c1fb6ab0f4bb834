"""The kernel's own limits, in user namespaces: instances and watches run out, and come back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardsync.journal.plan import Plan, write_plan
from shardsync.journal.reader import JournalReader
from shardsync.model import ShardState
from tests.support.compare import differences
from tests.support.instances import Instance, eventually, instance
from tests.support.namespaces import INSTANCES, WATCHES, limited, set_limit
from tests.support.slots import Programs
from tests.support.watching import planned

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        subprocess.run((*limited(WATCHES, 10), "true"), check=False).returncode != 0,
        reason="needs user namespaces",
    ),
]


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    programs = Programs(tmp_path)
    programs.prepare()
    write_plan(programs.state.plan, Plan(generation=1, shards=(planned(),)))
    yield programs
    programs.end()


@pytest.mark.fault("instances-short")
@pytest.mark.parametrize(
    ("file", "key"),
    [(INSTANCES, "fs.inotify.max_user_instances"), (WATCHES, "fs.inotify.max_user_watches")],
)
def test_a_watcher_without_an_instance_or_a_first_watch_waits_and_says_why(
    programs: Programs, file: str, key: str
) -> None:
    """It stays up, names the limit in log and status, and begins when it is raised."""
    programs.under = limited(file, 0)
    slot = programs.start(0)
    programs.log_has("watcher.waits")
    programs.log_has(key)
    reader = JournalReader(programs.state.journal("main-00"))
    assert key in reader.progress().last_error
    assert slot.poll() is None
    set_limit(slot.pid, file, 1000)
    programs.log_has("scan.done")
    programs.until(lambda: reader.progress().last_error == "", "no error left")
    reader.close()
    (programs.folder / "tree/a/f").write_text("x")
    programs.journaled(b"a/f")


@pytest.mark.fault("watches-short")
def test_64_watches_are_left_to_others(programs: Programs) -> None:
    """When watches run out, when more directories are made, and after a poll that tried again."""
    for number in range(400):
        (programs.folder / f"tree/d{number:03d}").mkdir()
    programs.under = limited(WATCHES, 300)
    slot = programs.start(0)
    programs.log_has("watches.exhausted")
    reader = JournalReader(programs.state.journal("main-00"))
    for made, attempt in ((0, "flush-1"), (100, "flush-2")):
        for number in range(made):
            (programs.folder / f"tree/new{number:03d}").mkdir()
        if made:
            programs.journaled(b"new099")
            assert _watches_of(slot.pid) <= 300 - 64
        (programs.state.cookies / attempt).touch()
        programs.until(lambda name=attempt: name in programs.flushed(), attempt)  # type: ignore[misc]
        progress = reader.progress()
        assert progress.state is ShardState.POLLING
        assert progress.watches + progress.polled_directories == 402 + made
        assert progress.watches <= 300 - 1 - 64  # its cookies have one
        assert _watches_of(slot.pid) <= 300 - 64
    reader.close()


def _watches_of(pid: int) -> int:
    """What the kernel counts."""
    return sum(
        line.startswith("inotify wd:")
        for info in Path(f"/proc/{pid}/fdinfo").iterdir()
        for line in info.read_text().splitlines()
    )


def shardsync(made: Instance, *words: str, under: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and standard output of the command."""
    done = subprocess.run(
        [*under, sys.executable, "-m", "shardsync.cli.main", *words],
        env={**os.environ, "SHARDSYNC_CONFIG": str(made.config)},
        stdout=subprocess.PIPE,
        timeout=90,
        check=False,
    )
    return done.returncode, done.stdout.decode()


def shard_of(made: Instance) -> dict[str, Any]:
    shards = json.loads(shardsync(made, "status", "--json")[1])["shards"]
    assert len(shards) == 1
    found: dict[str, Any] = shards[0]
    return found


@pytest.mark.fault("watches-short")
@pytest.mark.timeout(240)
def test_half_the_watches_that_are_needed_are_enough_to_converge(tmp_path: Path) -> None:
    """Everything real: it runs, says so, converges, and heals when the limit is raised."""
    with instance(tmp_path, shards=1) as made:
        for number in range(200):
            (made.root / f"d{number:03d}/e").mkdir(parents=True)
            (made.root / f"d{number:03d}/e/f").write_text("f")
        code, _ = shardsync(made, "up", under=limited(WATCHES, 200))
        assert code == 0
        eventually(lambda: shardsync(made, "flush")[0] == 0)
        shard = shard_of(made)
        assert shard["state"] == "polling"
        assert shard["watches"] + shard["polled_directories"] == 401
        assert shard["polled_directories"] >= 200
        assert "polled, watches ran out" in shardsync(made, "status")[1]
        said = "".join(log.read_text() for log in (made.state.path / "logs").iterdir())
        assert "watches.exhausted" in said
        assert "fs.inotify.max_user_watches" in said
        assert "wakeup.polling" not in said  # the sync process found a watch

        for number in range(0, 200, 5):
            folder = made.root / f"d{number:03d}"
            (folder / "e/f").write_text("rewritten")
            (made.root / f"d{number + 1:03d}/e/f").unlink()
            (folder / "new/er").mkdir(parents=True)
            (folder / "new/er/f").write_text("new")
            shutil.rmtree(made.root / f"d{number + 2:03d}/e")
            os.rename(made.root / f"d{number + 3:03d}/e", made.root / f"d{number + 4:03d}/moved")
        assert shardsync(made, "flush")[0] == 0
        assert differences(made.root, made.node) == []

        pid = shard["pid"]
        set_limit(pid, WATCHES, 10_000)
        assert shardsync(made, "flush")[0] == 0  # asks for a poll now, not within a minute
        eventually(lambda: shard_of(made)["state"] == "following")
        assert shard_of(made)["polled_directories"] == 0
        (made.root / "d199/moved/later").write_text("later")
        assert shardsync(made, "flush")[0] == 0
        assert differences(made.root, made.node) == []
