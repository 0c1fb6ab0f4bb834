"""The mount table, read again only when it changed: with real mounts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from shardsync.mounts import MountTable, read_mounts


def test_it_is_the_table_as_it_is_and_asked_again_the_same() -> None:
    """What it says is what a fresh look says, first and later."""
    table = MountTable()
    try:
        assert table.read() == read_mounts()
        assert table.read() is table.read()
    finally:
        table.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("how", [["umount"], ["umount", "-l"]])
def test_every_change_is_seen_at_once(tmp_path: Path, how: list[str]) -> None:
    """A mount, one over it, and each unmount are in what the very next call returns."""
    table = MountTable()
    try:
        table.read()
        seen = []
        for argv in (
            ["mount", "-t", "tmpfs", "test", str(tmp_path)],
            ["mount", "-t", "tmpfs", "test", str(tmp_path)],
            [*how, str(tmp_path)],
            [*how, str(tmp_path)],
        ):
            subprocess.run(argv, check=True, timeout=20)
            assert table.read() == read_mounts()
            seen.append(sum(os.fsencode(tmp_path) == mount.point for mount in table.read()))
        assert seen == [1, 2, 1, 0]
        table.close()
        assert table.read() == read_mounts()
    finally:
        table.close()
        while tmp_path.is_mount():
            subprocess.run(["umount", "-l", str(tmp_path)], check=True, timeout=20)
