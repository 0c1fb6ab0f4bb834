"""A file that nobody may change, not even root."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def immutable(path: Path) -> Iterator[None]:
    """As long as this is open; skips where the file system knows no such files."""
    done = subprocess.run(["chattr", "+i", path], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("no immutable files on this file system")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
