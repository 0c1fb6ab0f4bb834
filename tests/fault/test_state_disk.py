"""The disk of the state directory: full, read-only, the logs' own full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.control.supervisord import ProgramState
from tests.support.instances import Instance, eventually, instance
from tests.support.mounting import Mounts

PROGRAMS = ("shardsync:coordinator", "shardsync:sync", "shardsync:watcher-00")
pytestmark = pytest.mark.root


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Instance]:
    """An instance that is up, its state on a small file system and its logs on another."""
    mounts = Mounts()
    state = tmp_path / "state"
    mounts.tmpfs(state, size="16m")
    mounts.tmpfs(state / "logs", size="1m")
    try:
        with instance(tmp_path, shards=1) as yielded:
            yielded.lifecycle().up(yielded.settings())
            eventually(yielded.is_in_step)
            yield yielded
    finally:
        mounts.undo()


def fill(folder: Path) -> Path:
    """A file that takes all the room there is, the last pages of the others included."""
    ballast = folder / "ballast"
    pad(ballast)
    for log in folder.glob("*.log"):
        pad(log)
    return ballast


def pad(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def churn(root: Path, mark: str) -> None:
    (root / mark).mkdir()
    for number in range(500):
        (root / mark / f"{number}-{'long' * 40}").write_text(mark)
    (root / "page").write_text(mark)
    (root / mark / f"1-{'long' * 40}").unlink()


def sizes_of_logs(made: Instance) -> list[int]:
    return sorted(log.stat().st_size for log in made.state.logs.glob("*.log"))


@pytest.mark.fault("state-full", "state-read-only", "logs-full")
def test_what_cannot_be_written_is_made_up_for(made: Instance) -> None:
    """Nothing ends, nothing is lost: it goes on by itself once there is room."""
    pids = {program.name: program.pid for program in made.client.programs()}

    ballast = fill(made.state.logs)
    sizes = sizes_of_logs(made)
    churn(made.root, "logs")
    eventually(made.is_in_step)
    assert sizes_of_logs(made) == sizes
    ballast.unlink()
    churn(made.root, "more")
    eventually(made.is_in_step)
    assert sizes_of_logs(made) != sizes

    ballast = fill(made.state.path)
    churn(made.root, "full")
    eventually(lambda: "disk is full" in made.shardsync("status").stderr)
    assert not (made.node / "full").exists()
    ballast.unlink()
    eventually(made.is_in_step)

    assert {program.name: program.pid for program in made.client.programs()} == pids

    made.supervisorctl("stop", *PROGRAMS)
    remount(made.state.path, "ro")  # while nothing of it is open
    churn(made.root, "ro")
    made.supervisorctl("start", *PROGRAMS)
    eventually(lambda: all(is_running(made, name) for name in PROGRAMS))
    assert not (made.node / "ro").exists()
    remount(made.state.path, "rw")
    eventually(made.is_in_step)


def is_running(made: Instance, name: str) -> bool:
    return made.program(name.partition(":")[2]).state is ProgramState.RUNNING


def remount(point: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", point], check=True, timeout=10)
