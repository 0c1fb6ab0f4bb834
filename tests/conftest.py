"""Tests marked `root` run where they can: as root, which CI is; Ctrl-C works in all of them."""

from __future__ import annotations

import os
import signal

import pytest


def pytest_configure() -> None:
    """A run in the background of a shell is given SIGINT ignored, and would hand that on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An ordinary user's run says which tests it left out, and why."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))
