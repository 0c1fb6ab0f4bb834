"""Requests that the sync process received, and how each stands: what the one who asked reads."""

from __future__ import annotations

from shardsync.clock import Clock
from shardsync.journal.requests import RequestKind, RequestState
from shardsync.journal.state_database import StateDatabase


class Received:
    """The write side; `StateReader.answer` tells."""

    def __init__(self, *, database: StateDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def put(self, request_id: str, *, kind: RequestKind, body: str, total: int = 0) -> None:
        """Record a request as running. Idempotent: the same id again changes nothing."""
        now = self._clock.wall_us()
        self._database.run(
            "INSERT OR IGNORE INTO requests (id, kind, body, state, total, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (request_id, kind.value, body, RequestState.RUNNING.value, total, now, now),
        )

    def answer(
        self,
        request_id: str,
        *,
        state: RequestState,
        exit_code: int = 0,
        message: str = "",
        done: int = 0,
        total: int = 0,
    ) -> None:
        """Say how a request stands."""
        self._database.run(
            "UPDATE requests SET state = ?, exit_code = ?, message = ?, done = ?, total = ?,"
            " updated_at = ? WHERE id = ?",
            (state.value, exit_code, message, done, total, self._clock.wall_us(), request_id),
        )
