"""Files touched in the state directory's `cookies/`: marks in the Watcher's kernel queue.

The queue is first-in first-out and the cookie directory is watched by the same
inotify instance as the Shard, so when a cookie is read, all earlier changes were.
"""

from __future__ import annotations

import os

_FLUSH = b"flush-"
_PLAN = b"plan-"


class Cookies:
    """The cookies of one Shard's Watcher, and the flushes it has yet to answer."""

    def __init__(self, *, folder: bytes, shard: str) -> None:
        self.flushes: dict[str, None] = {}
        self.stop_seen = False
        self.list_again = False
        self._folder = folder
        self._heartbeat = b"heartbeat-" + shard.encode("ascii")
        self._stop = b"stop-" + shard.encode("ascii")
        # As StateDirectory.accept_root names it; a Shard's id is its Tree's name and a number.
        self._accept_root = b"accept-root-" + shard.rpartition("-")[0].encode("ascii")
        self._root_accepted = False
        self._doubt = b"doubt-" + shard.encode("ascii")  # as StateDirectory.doubt names it
        self._doubted = False
        self._plan_changed = False
        self._answered: set[str] = set()

    def see(self, name: bytes) -> int | None:
        """A cookie was read; for an own heartbeat, when it was touched (Unix microseconds)."""
        if name.startswith(_FLUSH):
            self.flushes[os.fsdecode(name)] = None
        elif name == self._stop:
            self.stop_seen = True
        elif name.startswith(_PLAN):
            self._plan_changed = True
        elif name == self._accept_root:
            self._root_accepted = True
        elif name == self._doubt:
            self._doubted = True
        elif name == self._heartbeat:
            try:
                return os.stat(self._folder + b"/" + name).st_mtime_ns // 1000
            except OSError:
                return None
        return None

    def answered(self, names: list[str]) -> None:
        """These flushes are acknowledged on disk."""
        for name in names:
            self.flushes.pop(name, None)
            self._answered.add(name)

    def answers_lost(self) -> None:
        """What was acknowledged went into a Journal that nobody reads: answer it again."""
        self._answered.clear()
        self.list_again = True

    def take_plan_change(self) -> bool:
        """Whether a new Plan was announced since the last call."""
        changed, self._plan_changed = self._plan_changed, False
        return changed

    def take_root_accepted(self) -> bool:
        """Whether an operator accepted the root as it stands since the last call."""
        accepted, self._root_accepted = self._root_accepted, False
        return accepted

    def take_doubt(self) -> bool:
        """Whether somebody found the Journal damaged since the last call."""
        doubted, self._doubted = self._doubted, False
        return doubted

    def touch_heartbeat(self) -> bool:
        """Put a mark into the queue; False where the disk refuses."""
        return self._touch(self._heartbeat)

    def touch_stop(self) -> bool:
        """Put the last mark into the queue; False where the disk refuses."""
        self.stop_seen = False
        return self._touch(self._stop)

    def touch_unanswered(self) -> None:
        """After events were lost: put unanswered flushes into the queue once more.

        Their own events may be among the lost. A touch costs the other
        Watchers one more acknowledgement, which is idempotent.
        """
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        present = {os.fsdecode(name) for name in names if name.startswith(_FLUSH)}
        self._answered &= present
        for name in present - self._answered - self.flushes.keys():
            self._touch(os.fsencode(name), create=False)
        self._plan_changed = True

    def _touch(self, name: bytes, *, create: bool = True) -> bool:
        path = self._folder + b"/" + name
        try:
            if create:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
                os.close(os.open(path, flags, 0o600))
            os.utime(path)
        except OSError:
            return False
        return True
