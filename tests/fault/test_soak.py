"""A minute of `tools/soak`: churn and faults on a whole instance, judged by its oracles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tools.soaks.churn import BLIND, OPERATIONS, Churn

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 3_000


@pytest.mark.timeout(400)
@pytest.mark.root
def test_churn_with_faults_loses_nothing() -> None:
    """After kills, stops, outages, lost files of the state all Nodes hold the tree; and only
    what calls for a comparison is repaired by one.
    """
    # A short path: the socket's name may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="ss-"))
    options = ("--operations", "2700", "--round", "700", "--seed", "1", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "tools.soaks", *options, "--folder", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["wrong"] == []
    assert sum(summary["operations"].values()) > 1500
    assert sum(summary["faults"].values()) > 3
    assert set(summary["rounds"]) == {"plain", "hard", "blind"}
    folder.rmdir()  # what was right leaves nothing


def test_a_seed_does_the_same_operations_again(tmp_path: Path) -> None:
    """All kinds of them, wherever the tree lies."""
    runs = [_churned(tmp_path / name) for name in ("one", "another-name")]
    assert runs[0] == runs[1]
    lines, names = runs[0]
    assert len(lines) == STEPS
    assert len(names) > 100
    done = {line.partition(" ")[2].partition(":")[0] for line in lines if ": done" in line}
    assert done == OPERATIONS.keys() | BLIND.keys()


def _churned(folder: Path) -> tuple[list[str], list[str]]:
    (folder / "tree").mkdir(parents=True)
    lines: list[str] = []
    churn = Churn(
        root=os.fsencode(folder / "tree"),
        outside=os.fsencode(folder / "outside"),
        seed=7,
        say=lines.append,
    )
    churn.with_blind = True
    for _ in range(STEPS):
        churn.step()
    churn.ground.let_all_go()
    names = [
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, *lists in os.walk(folder)
        for found in lists
        for name in found
    ]
    return lines, sorted(names)
