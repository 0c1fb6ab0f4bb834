"""The page cache, made warm before each measurement that says so.

One walk is not enough on a machine that gives back what was not used for a
minute (proactive reclaim): a walk of a million directories that takes longer
never finds its own beginning again. So: in parallel, until nothing is read.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from pathlib import Path

from tools.benches.say import Display

_PASSES = 12
_QUIET_BLOCKS = 40_000
"""Blocks of 512 bytes that a pass may read from disk: 20 MB of some 4 GB at a million."""


def warm_up(display: Display, *trees: Path) -> bool:
    """Stat every entry of the trees until that reads nothing; whether it came to that."""
    folders = [folder for tree in trees for folder in sorted(tree.iterdir()) if folder.is_dir()]
    workers = os.cpu_count() or 1
    for number in range(_PASSES):
        display.step(f"warming the page cache, pass {number + 1}")
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
        with contextlib.ExitStack() as running:
            for worker in range(workers):
                argv = ["du", "-s", "--", *map(str, folders[worker::workers])]
                if len(argv) > 3:
                    running.enter_context(
                        subprocess.Popen(
                            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                        )
                    )
        if resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock - before < _QUIET_BLOCKS:
            return True
    return False
