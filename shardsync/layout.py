"""Where things lie in the state directory. Modes: directories 0700, files 0600."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardsync.private import make_private

UNIX_SOCKET_PATH_MAX = 107
"""Bytes that fit into sockaddr_un.sun_path, unix(7), less the closing zero."""


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Paths in one state directory; pure names, nothing is opened."""

    path: Path

    def journal(self, shard: str) -> Path:
        """The Journal of one Shard (SQLite; its Watcher writes)."""
        return self.path / f"journal-{shard}.db"

    @property
    def state_db(self) -> Path:
        """Cursors, open work, Node states (SQLite; the sync process writes)."""
        return self.path / "state.db"

    @property
    def plan(self) -> Path:
        """The Plan (JSON, replaced atomically; the Coordinator writes)."""
        return self.path / "plan.json"

    @property
    def cookies(self) -> Path:
        """Files touched to mark a moment in every Watcher's kernel queue."""
        return self.path / "cookies"

    def accept_root(self, tree: str) -> Path:
        """The cookie that tells a Tree's Watchers that its root, as it stands, was accepted."""
        return self.cookies / f"accept-root-{tree}"

    def doubt(self, shard: str) -> Path:
        """The cookie that asks a Shard's Watcher to look whether its Journal is damaged."""
        return self.cookies / f"doubt-{shard}"

    def progress_cookie(self, tree: str) -> Path:
        """The cookie by which the sync process asks a Tree's Watchers how far they are.

        Acknowledged as a flush's, with all that they know by then.
        """
        return self.cookies / f"flush-progress-{tree}"

    @property
    def requests(self) -> Path:
        """Spool: one JSON file per request to the sync process, made by the CLI."""
        return self.path / "requests"

    @property
    def locks(self) -> Path:
        """Flock files: the instance, the Journals, the sync process."""
        return self.path / "locks"

    def lock(self, name: str) -> Path:
        """One flock file: `instance`, `sync`, `journal-<shard id>`, `slot-NN`."""
        return self.locks / f"{name}.lock"

    @property
    def logs(self) -> Path:
        """One log per program, rotated by supervisord."""
        return self.path / "logs"

    @property
    def supervisord_conf(self) -> Path:
        """Generated; never edited by hand."""
        return self.path / "supervisord.conf"

    @property
    def supervisor_socket(self) -> Path:
        """Supervisord's unix socket, 0700."""
        return self.path / "supervisor.sock"

    def make(self) -> int:
        """Make the directory and its folders, 0700; the mode that it had. Idempotent.

        Raises OSError, and StateUnusable where it is another user's, or used otherwise.
        """
        mode = make_private(self.path, sign=self.locks.name)
        for folder in (self.cookies, self.requests, self.locks, self.logs):
            make_private(folder)
        return mode
