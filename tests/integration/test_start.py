"""The command's first moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.sources import REPOSITORY

_START = [sys.executable, "-m", "shardsync.cli.start"]


def test_ctrl_c_while_importing_ends_it_silently(tmp_path: Path) -> None:
    """No traceback for whoever changed his mind in the first moment; ended by the signal."""
    (tmp_path / "click.py").write_text(
        "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
    with subprocess.Popen(
        [*_START, "status"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (-signal.SIGINT, b"")


def test_it_runs_commands_as_ever(tmp_path: Path) -> None:
    """With their exit codes, and what they print."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*_START, "--version"], env=env, cwd=tmp_path, capture_output=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout[:10]) == (0, b"shardsync,")
    done = subprocess.run(
        [*_START, "nonsense"], env=env, cwd=tmp_path, capture_output=True, check=False, timeout=30
    )
    assert done.returncode == 2
