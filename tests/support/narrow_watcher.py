"""A Watcher whose kernel queue is small, and nobody else's: run in place of Python.

The limit is the machine's, and lowered for no longer than the instance is made: other
tests' Watchers start at any time.
"""

from __future__ import annotations

import runpy
import sys

from shardsync import inotify
from tests.support.queue import small_queue


def main() -> None:
    usual = inotify.Inotify.open

    def narrow() -> inotify.Inotify:
        with small_queue():
            return usual()

    inotify.Inotify.open = narrow  # type: ignore[method-assign]
    del sys.argv[0:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
