"""A plugin of pytest's in the copy: which tests ran, how, and on which product.

Loaded by `tools.mutating.trial`, which names the file for it in the environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

import pytest

import shardsync

FILE = "SHARDSYNC_MUTANT_TOLD"


class Told:
    """A line for each step of each test that was not passed, and for each test that ran."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Into a file that is open: some tests are another user at that moment."""
        if report.when == "call" or not report.passed:
            self._stream.write(f"{report.outcome} {report.nodeid}\n")
            self._stream.flush()


def pytest_configure(config: pytest.Config) -> None:
    """Ends the run where the tests would be of another product than the copy's."""
    product = Path(shardsync.__file__).parent
    if product != config.rootpath / "shardsync":
        pytest.exit(f"the product comes from {product}", returncode=3)
    stream = open(os.environ[FILE], "a", encoding="utf-8")  # noqa: SIM115 (for the whole run)
    config.add_cleanup(stream.close)
    config.pluginmanager.register(Told(stream))
