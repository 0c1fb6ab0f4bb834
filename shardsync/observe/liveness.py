"""Which of our processes live: told by the flocks they hold, never by a pid that may be reused."""

from __future__ import annotations

from shardsync.journal.locks import holder, is_held
from shardsync.layout import StateDirectory


class Liveness:
    """Looks at the lock files of one state directory. Pids are None where nobody holds the lock.

    `SYNC` and `COORDINATOR` are the names of their lock files: the Coordinator holds the one
    that stands for the whole instance.
    """

    SYNC = "sync"
    COORDINATOR = "instance"

    def __init__(self, *, state: StateDirectory) -> None:
        self._state = state

    def sync(self) -> int | None:
        """Pid of the sync process."""
        return self._pid(self.SYNC)

    def coordinator(self) -> int | None:
        """Pid of the Coordinator."""
        return self._pid(self.COORDINATOR)

    def watcher(self, shard: str) -> int | None:
        """Pid of the Watcher that writes this Shard's Journal."""
        return self._pid(f"journal-{shard}")

    def _pid(self, name: str) -> int | None:
        path = self._state.lock(name)
        # 0: held by a process that has not written its pid yet.
        return (holder(path) or 0) if is_held(path) else None
