"""A process that makes two names change places all the time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_SWAP = """
import ctypes, sys, time
libc = ctypes.CDLL(None)
one, other = (word.encode() for word in sys.argv[1:3])
pause = float(sys.argv[3])
print(flush=True)
while True:
    libc.renameat2(-100, one, -100, other, 2)  # RENAME_EXCHANGE
    if pause:
        time.sleep(pause)
"""


@contextlib.contextmanager
def swapping(one: Path, other: Path, *, pause_seconds: float = 0.0) -> Iterator[None]:
    """Two names that change places all the time, with a pause after each swap."""
    argv = [sys.executable, "-c", _SWAP, str(one), str(other), str(pause_seconds)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()
