"""What is on a Node that is not owned, and not in the Tree: kept there, listed here."""

from __future__ import annotations

from collections.abc import Sequence

from shardsync.journal.records import NodeKey
from shardsync.journal.state_database import StateDatabase

_FOREIGN_LISTED = 100_000


class ForeignPaths:
    """The write side; `StateReader.foreign_paths` tells."""

    def __init__(self, *, database: StateDatabase) -> None:
        self._database = database

    def add(self, key: NodeKey, paths: Sequence[bytes], *, unlisted: int = 0) -> None:
        """Add to the list of what is kept on a Node that is not owned.

        The list is cut where it grows long, the Node's count is not: `unlisted` are so many more,
        and the count then is the least that there is.
        """
        with self._database.transaction():
            known = self._database.connection.execute(
                "SELECT count(*) FROM foreign_paths WHERE tree = ? AND node = ?", key
            ).fetchone()[0]
            room = max(0, _FOREIGN_LISTED - known)
            paths, unlisted = paths[:room], unlisted + len(paths[room:])
            self._database.connection.executemany(
                "INSERT OR IGNORE INTO foreign_paths (tree, node, path) VALUES (?, ?, ?)",
                ((*key, path) for path in paths),
            )
            self._database.connection.execute(
                "UPDATE nodes SET foreign_paths = max(foreign_paths, ? + (SELECT count(*)"
                " FROM foreign_paths AS f WHERE f.tree = nodes.tree AND f.node = nodes.name))"
                " WHERE tree = ? AND name = ?",
                (unlisted, *key),
            )

    def clear(self, key: NodeKey) -> None:
        """Forget the list: the Node was adopted, or is compared anew."""
        with self._database.transaction():
            self._database.connection.execute(
                "DELETE FROM foreign_paths WHERE tree = ? AND node = ?", key
            )
            self._database.connection.execute(
                "UPDATE nodes SET foreign_paths = 0 WHERE tree = ? AND name = ?", key
            )
