"""Locks against the real kernel: one holder, named, gone with its process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.control.rootlock import RootLock
from shardsync.errors import AlreadyRunning, StateUnusable
from shardsync.journal.locks import FileLock, holder, is_held

_HOLD = (
    "import sys, pathlib\n"
    "from shardsync.control.rootlock import RootLock\n"
    "from shardsync.journal.locks import FileLock\n"
    "lock, root = map(pathlib.Path, sys.argv[1:])\n"
    "held = [FileLock.acquire(lock), RootLock.acquire(root)]\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds `lock` and the root `tree`."""
    (tmp_path / "tree").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "lock"), str(tmp_path / "tree")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate(timeout=10)


@pytest.mark.fault("second-instance")
def test_a_second_process_is_refused_and_told_by_whom(
    tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    """A lock has one holder; the refusal names its pid, for the file and for the root."""
    with pytest.raises(AlreadyRunning, match=f"process {other.pid}"):
        FileLock.acquire(tmp_path / "lock")
    with pytest.raises(AlreadyRunning, match=f"process {other.pid}"):
        RootLock.acquire(tmp_path / "tree")
    assert is_held(tmp_path / "lock")


def test_a_killed_holder_lets_go(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    """A kill -9 of the holder frees both locks at once, whatever is left on disk."""
    other.kill()
    other.wait(timeout=10)
    FileLock.acquire(tmp_path / "lock").release()
    RootLock.acquire(tmp_path / "tree").release()


def test_the_root_is_one_by_whatever_path(tmp_path: Path) -> None:
    """A symlink or a renamed parent does not give a root a second holder."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to("tree")
    with RootLock.acquire(tmp_path / "tree"), pytest.raises(AlreadyRunning):
        RootLock.acquire(tmp_path / "link")


def test_a_renamed_root_is_still_held(tmp_path: Path) -> None:
    """The directory itself is held, not its name alone."""
    (tmp_path / "tree").mkdir()
    with RootLock.acquire(tmp_path / "tree"):
        (tmp_path / "tree").rename(tmp_path / "other")
        with pytest.raises(AlreadyRunning):
            RootLock.acquire(tmp_path / "other")


def test_holding_a_root_keeps_no_descriptor_on_it(tmp_path: Path) -> None:
    """The Tree can be unmounted while its root is held."""
    with RootLock.acquire(tmp_path):
        opened = {os.readlink(f"/proc/self/fd/{name}") for name in _descriptors()}
    assert str(tmp_path) not in opened


def test_a_lock_names_its_holder_and_can_be_taken_again(tmp_path: Path) -> None:
    """The file holds our pid while we hold it; after release it is free and stays on disk."""
    path = tmp_path / "lock"
    with FileLock.acquire(path):
        assert (holder(path), is_held(path)) == (os.getpid(), True)
    assert (path.exists(), is_held(path)) == (True, False)


def test_a_lock_that_cannot_be_made_is_no_already_running(tmp_path: Path) -> None:
    """A missing folder is trouble with the state directory, not a second copy."""
    with pytest.raises(StateUnusable):
        FileLock.acquire(tmp_path / "missing" / "lock")


def _descriptors() -> list[str]:
    return [
        name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")
    ]
