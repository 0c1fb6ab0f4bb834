"""The one connection that writes state.db: opened, in transactions, set aside where damaged."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Self

from shardsync.clock import Clock
from shardsync.errors import StateDamaged, StateUnusable
from shardsync.journal.database import (
    STATE_VERSION,
    Transaction,
    connect_writer,
    is_damage,
    is_sound,
    unusable,
)
from shardsync.journal.writer import set_aside


class StateDatabase:
    """Hold the sync process's flock before opening it."""

    def __init__(self, *, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self.connection = connection

    @classmethod
    def open(cls, path: Path, *, clock: Clock) -> Self:
        """Open or make state.db. Raises StateUnusable where the disk refuses."""
        try:
            connection = connect_writer(path, version=STATE_VERSION)
            if is_sound(connection, path):
                return cls(connection=connection, path=path)
            connection.close()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise unusable("state", path, error) from error
        except OSError as error:
            raise unusable("state", path, error) from error
        set_aside(path, clock)
        return cls.open(path, clock=clock)

    def is_at_fault(self, error: StateUnusable) -> bool:
        """Whether state.db is damaged: nothing helps but to open it anew, which sets it aside."""
        return isinstance(error, StateDamaged) and error.path == self.path

    def run(self, statement: str, values: tuple[object, ...]) -> None:
        """One statement in a transaction of its own. Raises StateUnusable."""
        try:
            self.connection.execute(statement, values)
        except sqlite3.Error as error:
            raise unusable("state", self.path, error) from error

    def transaction(self) -> Transaction:
        """All that is done with the connection within it, or nothing."""
        return Transaction(self.connection, name="state", path=self.path)

    def close(self) -> None:
        """Checkpoint and close."""
        self.connection.close()
