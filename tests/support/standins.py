"""Programs to run under a real supervisord in place of the sync process and the Watchers.

Run as `python standins.py -m MODULE --state DIR ... [--slot NN]`: it holds a lock of
its own, says when it began and ended in `trace`, and lives until SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from shardsync.errors import AlreadyRunning
from shardsync.journal.locks import FileLock
from shardsync.layout import StateDirectory


def main() -> int:
    state = StateDirectory(path=Path(sys.argv[sys.argv.index("--state") + 1]))
    slot = sys.argv[sys.argv.index("--slot") + 1] if "--slot" in sys.argv else ""
    name = f"slot-{slot}" if slot else "sync"
    try:
        lock = FileLock.acquire(state.lock(name))
    except AlreadyRunning as error:
        _trace(state, f"{name} refused: {error}")
        return 11
    # Blocked, so that a SIGTERM between two lines is not lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    _trace(state, f"{name} began {os.getpid()}")
    signal.sigwait({signal.SIGTERM})
    _trace(state, f"{name} ended {os.getpid()}")
    lock.release()
    return 0


def _trace(state: StateDirectory, line: str) -> None:
    with open(state.path / "trace", "a", encoding="utf-8") as stream:
        stream.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
