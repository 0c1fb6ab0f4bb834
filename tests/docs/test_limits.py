"""docs/limits.md says what the code does, and its commands run as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shardsync.control.limits import (
    KERNEL_WATCH_BYTES,
    WATCHES,
    Limits,
    needed,
    shortfalls,
    watcher_bytes,
)
from tests.support.sources import REPOSITORY

GUIDE = (REPOSITORY / "docs/limits.md").read_text(encoding="utf-8")
FLAT = " ".join(GUIDE.split())


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_warning_is_the_one_that_check_prints() -> None:
    """To the letter."""
    (shown,) = blocks("text")
    need = needed(1_001_011, shards=2, nodes=2, slots=4)
    (shortfall,) = shortfalls(need, Limits(settings={WATCHES: 524_288}))
    assert shown == f"warning: {shortfall}\n"


def test_the_figures_are_the_code_s() -> None:
    """What a watch and a directory cost, and the processes themselves."""
    assert f"about {KERNEL_WATCH_BYTES / 1024:.2f} KiB" in FLAT
    assert f"take {KERNEL_WATCH_BYTES * 1e6 / (1 << 30):.1f} GiB of it" in FLAT
    each = watcher_bytes(1) - watcher_bytes(0)
    base = watcher_bytes(0) >> 20
    assert f"At most {each} bytes a directory beyond about {base} MiB a Watcher" in FLAT


@pytest.mark.parametrize("command", [line for block in blocks("sh") for line in block.split("\n")])
def test_each_command_runs(command: str, tmp_path: Path) -> None:
    """In a folder with settings, with exit code 0."""
    if not command:
        return
    (tmp_path / "tree").mkdir()
    (tmp_path / "shardsync.toml").write_text(
        f'[tree]\nroot = "{tmp_path}/tree"\n[state]\ndir = "{tmp_path}/state"\n'
        f'[[node]]\nname = "web1"\ntarget = "{tmp_path}/node"\n'
    )
    program, *words = command.split()
    assert program == "shardsync"
    done = subprocess.run(
        [sys.executable, "-m", "shardsync.cli.main", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_it_points_to_is_there() -> None:
    """Files by links, alerts and metrics by name."""
    for target in re.findall(r"\]\(\.\./([^)]+)\)", GUIDE):
        assert (REPOSITORY / target).exists(), target
    rules = (REPOSITORY / "etc/shardsync.rules.yml").read_text()
    for name in re.findall(r"`(Shardsync\w+)`", GUIDE):
        assert f"alert: {name}\n" in rules
    families = (REPOSITORY / "shardsync/observe/families.py").read_text()
    for name in re.findall(r"`(shardsync_\w+)`", GUIDE):
        assert f'"{name}"' in families
