"""Counts of directories for the Coordinator: at once and rough, or thorough and later.

A thorough count runs in a process of its own, so that the Coordinator goes on
meanwhile and the memory is given back: `python -m shardsync.control.survey`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from shardsync.clock import Clock, SystemClock
from shardsync.config.load import load_settings
from shardsync.config.patterns import tree_filter
from shardsync.config.settings import TreeSettings
from shardsync.control.counting import THOROUGH, count_directories
from shardsync.errors import ShardsyncError
from shardsync.log import Log

_PATIENCE_SECONDS = 180.0
_NICE = 10
_PR_SET_PDEATHSIG = 1


def quick_count(tree: TreeSettings, clock: Clock) -> Mapping[bytes, int]:
    """Directories at and below each prefix of a Tree, excluded ones left out. Never raises."""
    return count_directories(tree.root, clock=clock, excluded=tree_filter(tree))


class Survey(Protocol):
    """Directories at and below each prefix of a Tree."""

    def quick(self, tree: TreeSettings) -> Mapping[bytes, int]:
        """Now, in some tenths of a second. Never raises."""
        ...

    def thorough(self, tree: TreeSettings) -> Mapping[bytes, int] | None:
        """As exact as patience allows; None while it is under way: ask again. Never raises."""
        ...

    def close(self) -> None:
        """End what is under way. Idempotent."""
        ...


class DiskSurvey:
    """Counts what is on disk."""

    def __init__(self, *, settings_file: Path, clock: Clock, log: Log) -> None:
        self._settings_file = settings_file
        self._clock = clock
        self._log = log
        self._running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes], float]] = {}

    def quick(self, tree: TreeSettings) -> Mapping[bytes, int]:
        return quick_count(tree, self._clock)

    def thorough(self, tree: TreeSettings) -> Mapping[bytes, int] | None:
        now = self._clock.monotonic()
        if tree.name not in self._running:
            answer: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (outlives this call)
            self._running[tree.name] = (self._start(tree, answer), answer, now)
            return None
        process, answer, since = self._running[tree.name]
        if process.poll() is None:
            if now - since < _PATIENCE_SECONDS:
                return None
            process.kill()
            process.wait()
        del self._running[tree.name]
        with answer:
            return self._read(process, answer) or self.quick(tree)

    def close(self) -> None:
        for process, answer, _ in self._running.values():
            process.kill()
            process.wait()
            answer.close()
        self._running.clear()

    def _start(self, tree: TreeSettings, answer: IO[bytes]) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "shardsync.control.survey"]
        return subprocess.Popen(
            [*argv, "--settings", str(self._settings_file), "--tree", tree.name],
            stdin=subprocess.DEVNULL,
            stdout=answer,
        )

    def _read(
        self, process: subprocess.Popen[bytes], answer: IO[bytes]
    ) -> Mapping[bytes, int] | None:
        try:
            answer.seek(0)
            found = json.load(answer)
            return {os.fsencode(prefix): int(count) for prefix, count in found.items()}
        except ValueError as error:
            self._log.warning("survey.failed", exit_code=process.returncode, error=error)
            return None


def main(argv: Sequence[str]) -> int:
    """Count one Tree and print {prefix: directories}. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shardsync.control.survey")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--tree", required=True)
    options = parser.parse_args(argv)
    # It is of no use without its Coordinator.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.nice(_NICE)
    try:
        file = options.settings
        settings = load_settings(file, os.environ, file.parent, root_must_exist=False)
        tree = settings.tree(options.tree)
    except (ShardsyncError, KeyError) as error:
        sys.stderr.write(f"survey: {error}\n")
        return ShardsyncError.exit_code
    counts = count_directories(
        tree.root, clock=SystemClock(), excluded=tree_filter(tree), budget=THOROUGH
    )
    json.dump({os.fsdecode(prefix): count for prefix, count in counts.items()}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
