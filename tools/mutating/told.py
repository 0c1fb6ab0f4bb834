"""A plugin of pytest's in the copy: which tests ran, how, and on which product.

Loaded by `tools.mutating.trial`, which names the file for it in the environment.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import shardsync

FILE = "SHARDSYNC_MUTANT_TOLD"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Ends the run where the tests would be of another product than the copy's."""
    product = Path(shardsync.__file__).parent
    if product != session.config.rootpath / "shardsync":
        pytest.exit(f"the product comes from {product}", returncode=3)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A line for each step of each test that was not passed, and for each test that ran."""
    if report.when == "call" or not report.passed:
        with open(os.environ[FILE], "a", encoding="utf-8") as stream:
            stream.write(f"{report.outcome} {report.nodeid}\n")
