"""The names of files that have several: each ships under all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shardsync.clock import Clock
from shardsync.journal.records import LinkedFile
from shardsync.journal.state_database import StateDatabase


class LinkNames:
    """The write side; `StateReader.link_names` tells."""

    def __init__(self, *, database: StateDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def note(self, tree: str, names: Mapping[bytes, LinkedFile]) -> None:
        """Remember names of files that have several.

        Whose they were before is kept for the retention, as by `forget`.
        """
        now = self._clock.wall_us()
        with self._database.transaction():
            self._database.connection.executemany(
                "UPDATE links SET is_gone = 1, noted_at = ? WHERE tree = ? AND path = ?"
                " AND is_gone = 0 AND (device, inode) != (?, ?)",
                ((now, tree, path, file.device, file.inode) for path, file in names.items()),
            )
            self._database.connection.executemany(
                "INSERT OR REPLACE INTO links (tree, path, device, inode, noted_at)"
                " VALUES (?, ?, ?, ?, ?)",
                ((tree, path, file.device, file.inode, now) for path, file in names.items()),
            )

    def forget(self, tree: str, file: LinkedFile, names: Iterable[bytes]) -> None:
        """These names are no longer that file's, nor is it known to have been searched for.

        Whose they were is kept for the retention: a Change may still be pending under one.
        """
        now = self._clock.wall_us()
        with self._database.transaction():
            self._database.connection.executemany(
                "UPDATE links SET is_gone = 1, noted_at = ? WHERE tree = ? AND path = ?"
                " AND device = ? AND inode = ?",
                ((now, tree, name, file.device, file.inode) for name in names),
            )
            self._database.connection.execute(
                "DELETE FROM link_searches WHERE tree = ? AND device = ? AND inode = ?",
                (tree, file.device, file.inode),
            )

    def note_search(self, tree: str, files: Iterable[LinkedFile]) -> None:
        """Remember that the whole Tree was searched for the names of these files."""
        with self._database.transaction():
            self._database.connection.executemany(
                "INSERT OR REPLACE INTO link_searches (tree, device, inode, links)"
                " VALUES (?, ?, ?, ?)",
                ((tree, file.device, file.inode, file.links) for file in files),
            )
