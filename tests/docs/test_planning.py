"""docs/planning.md: its commands run, and print lines of the shape that it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from shardsync.control.balance import Pace
from shardsync.control.pieces import PREFIXES_MAX

TEXT = Path(__file__).parents[2].joinpath("docs/planning.md").read_text()


def _shape(line: str) -> str:
    """Without figures and names."""
    line = re.sub(r"[\d,.]+( [KMGT]iB)?", "N", line)
    return re.sub(r"^  (?!warning).*", "  names", line)


def test_the_example_prints_what_is_shown(tmp_path: Path) -> None:
    """Line by line, figures aside; the machine of the docs has too few watches."""
    (tmp_path / "node").mkdir()
    for name in ("a/x", "b/x"):
        (tmp_path / "site" / name).mkdir(parents=True)
    (tmp_path / "shardsync.toml").write_text(
        f'[tree]\nroot = "{tmp_path}/site"\n[state]\ndir = "{tmp_path}/state"\n'
        f"[shards]\ncount = 2\n"
        f'[[node]]\nname = "web1"\ntarget = "{tmp_path}/node"\n'
    )
    (command,) = re.findall(r"^```sh\n(.*?)\n```", TEXT, flags=re.MULTILINE | re.DOTALL)
    (example,) = re.findall(r"^```text\n(.*?)\n```", TEXT, flags=re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-m", "shardsync.cli.main", *command.split()[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    expected = [_shape(line) for line in example.splitlines() if "warning" not in line]
    printed = [_shape(line) for line in done.stdout.splitlines() if "warning" not in line]
    assert printed == expected


def test_the_figures_are_those_of_the_code() -> None:
    """When a Shard is split, and how many prefixes there may be."""
    pace = Pace()
    assert f"{PREFIXES_MAX:,} prefixes" in TEXT
    assert f"{pace.floor_directories:,} more than its share" in TEXT.replace("\n  ", " ")
    assert (pace.hold_seconds, pace.pause_seconds) == (10.0, 600.0)
