"""One mutant, tried: its tests run in a copy without the rule, and every one of them must fail.

They run with process ids and mounts of their own, so that nothing of theirs outlives
them, whatever a product without its rules leaves running or mounted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.mutating.copy import Copy
from tools.mutating.mutant import Mutant
from tools.mutating.told import FILE

_SECONDS = 600.0
_TEST_SECONDS = 90
_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# A first process that takes in what others leave behind, which pytest does not.
_INIT = ("bash", "-c", '"$@"; exit $?', "tests")
_RAN = {0, 1}
"""pytest's exit codes where all that was asked for was collected and run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Tests that ran: node ids without parameters. `trouble`: why they did not, "" if they did."""

    failed: frozenset[str]
    passed: frozenset[str]
    seconds: float
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What became of one mutant. `caught`, `missed`: of its tests, those that failed or not."""

    mutant: Mutant
    caught: tuple[str, ...]
    missed: tuple[str, ...]
    seconds: float
    trouble: str

    @property
    def is_caught(self) -> bool:
        """Whether each of its tests noticed that the rule is gone."""
        return not self.missed and not self.trouble


def try_mutant(mutant: Mutant) -> Trial:
    """Apply it to a copy, run its tests there. Raises Lost where it no longer applies."""
    with _copy() as (folder, copy):
        file = copy.root / mutant.file
        file.write_text(mutant.applied(file.read_text(encoding="utf-8")), encoding="utf-8")
        run = _run(folder, copy, mutant.tests)
    return Trial(
        mutant=mutant,
        caught=tuple(test for test in mutant.tests if test in run.failed),
        missed=tuple(test for test in mutant.tests if test not in run.failed),
        seconds=run.seconds,
        trouble=run.trouble,
    )


def try_none(tests: Sequence[str]) -> Run:
    """The same tests in a copy as it is: where one fails, its failing tells nothing."""
    with _copy() as (folder, copy):
        return _run(folder, copy, tests, "--numprocesses", "2")


@contextlib.contextmanager
def _copy() -> Iterator[tuple[Path, Copy]]:
    # A short name: the path of a Unix socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="m."))
    folder.chmod(0o755)  # some tests are another user for a while, who imports from it
    try:
        copy = Copy(folder=folder)
        copy.make()
        yield folder, copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, copy: Copy, tests: Sequence[str], *options: str) -> Run:
    told = folder / "told"
    told.touch()
    argv = [
        *_ALONE, *_INIT, str(copy.python), "-m", "pytest", "-q", "--tb=short",
        "-p", "no:cacheprovider", "-p", "tools.mutating.told",
        f"--timeout={_TEST_SECONDS}", f"--basetemp={folder}/t", *options, *tests,
    ]  # fmt: skip
    began = time.monotonic()
    with (folder / "said").open("w+", encoding="utf-8", errors="replace") as said:
        try:
            code = subprocess.run(
                argv,
                cwd=copy.root,
                env={**os.environ, FILE: str(told)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
        said.seek(0)
        tail = said.read()[-2000:]
    failed, passed = _told(told.read_text(encoding="utf-8"))
    return Run(
        failed=failed,
        passed=passed - failed,
        seconds=time.monotonic() - began,
        trouble="" if code in _RAN else f"pytest ended with {code}:\n{tail}",
    )


def _told(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """(failed, passed): a test of several parameters failed where one of them did."""
    lines = [line.partition(" ") for line in text.splitlines()]
    failed = {test.partition("[")[0] for how, _, test in lines if how == "failed"}
    passed = {test.partition("[")[0] for how, _, test in lines if how == "passed"}
    return frozenset(failed), frozenset(passed)
