"""A small kernel queue: the limit is the machine's, and counts when an instance is made."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
DEFAULT = 16_384
"""The kernel's own: never is less left behind, whatever a killed run left to us."""
_LOCK = Path(tempfile.gettempdir()) / "shardsync-tests-queue.lock"


@contextmanager
def small_queue(events: int = 64) -> Iterator[None]:
    """Instances made meanwhile hold so many events. Keep it short: it is everybody's limit."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests would restore a small one
        before = max(int(LIMIT.read_text()), DEFAULT)
        try:
            LIMIT.write_text(str(events))
            yield
        finally:
            LIMIT.write_text(str(before))
