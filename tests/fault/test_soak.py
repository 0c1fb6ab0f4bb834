"""Half a minute of `tools/soak`: churn and faults on a whole instance, judged by its oracles."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(400)
def test_churn_with_faults_loses_nothing() -> None:
    """After kills, stops and outages both Nodes hold the tree, and no comparison repaired them."""
    # A short path: the socket's name may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="ss-"))
    options = ("--minutes", "0.5", "--seed", "1")
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
    assert sum(summary["operations"].values()) > 200
    assert sum(summary["faults"].values()) > 1
    folder.rmdir()  # what was right leaves nothing
