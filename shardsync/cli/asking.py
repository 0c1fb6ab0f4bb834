"""Asks the sync process for something and waits for its answer.

The request lies in the spool and the answer in state.db, so both outlive a
restart of either side.
"""

from __future__ import annotations

import contextlib
import time

from shardsync.cli.daemons import Daemons
from shardsync.cli.invocation import Invocation
from shardsync.cli.output import Meter, tell
from shardsync.errors import NodesFailed, NotRunning, ShardsyncError, StateUnusable
from shardsync.journal import requests
from shardsync.journal.records import Answer
from shardsync.journal.requests import Request, RequestKind, RequestState
from shardsync.journal.state_reader import StateReader

_SOON_SECONDS = 1.0
_LOOK_SOON_SECONDS = 0.01
_LOOK_SECONDS = 0.05
_ALIVE_EVERY_SECONDS = 1.0
_LATE_SECONDS = 5.0
"""The sync process ends a request at its deadline; beyond this it does not answer at all."""

_GO_ON = frozenset({RequestKind.REPLAY, RequestKind.RECONCILE})
"""What is done whether somebody waits for it or not."""


class Asker:
    """Sends one request and waits."""

    def __init__(self, *, call: Invocation) -> None:
        self._call = call
        self._daemons = Daemons(call=call)
        self._unreadable_since: float | None = None

    def send(self, request: Request) -> None:
        """Put it into the spool. Raises NotRunning and StateUnusable."""
        self._daemons.require_sync()
        try:
            requests.send(self._call.state.requests, request)
        except OSError as error:
            raise StateUnusable(f"{self._call.state.requests}: {error.strerror}") from error

    def ask(self, request: Request, *, title: str) -> Answer:
        """Send it and wait until it is done. Raises what the answer's exit code stands for.

        Raises NotRunning where the sync process ends for good meanwhile.
        """
        self.send(request)
        reader = StateReader(self._call.state.state_db)
        with contextlib.closing(reader), Meter(title=title, clock=self._call.clock) as meter:
            try:
                answer = self._wait(reader, request, meter)
            except KeyboardInterrupt:
                if request.kind in _GO_ON:
                    tell(f"the {request.kind} goes on: `shardsync status` shows how far it is")
                raise
        if answer.exit_code:
            raise error_of(answer.exit_code, f"{title}: {answer.message}")
        return answer

    def _wait(self, reader: StateReader, request: Request, meter: Meter) -> Answer:
        clock = self._call.clock
        began = checked = clock.monotonic()
        while True:
            answer = self._answer(reader, request)
            if answer is not None and answer.state is not RequestState.RUNNING:
                return answer
            now = clock.monotonic()
            if answer is not None:
                meter.show(
                    f"{answer.done:,} of {answer.total:,}; {answer.message}",
                    done=answer.done,
                    total=answer.total,
                )
            if now - checked >= _ALIVE_EVERY_SECONDS:
                checked = now
                self._require_hope(request)
            time.sleep(_LOOK_SOON_SECONDS if now - began < _SOON_SECONDS else _LOOK_SECONDS)

    def _answer(self, reader: StateReader, request: Request) -> Answer | None:
        """The answer so far. At its very first start the sync process has yet to make state.db."""
        now = self._call.clock.monotonic()
        try:
            answer = reader.answer(request.id)
        except StateUnusable:
            if self._unreadable_since is None:
                self._unreadable_since = now
            if now - self._unreadable_since >= _LATE_SECONDS:
                raise
            return None
        self._unreadable_since = None
        return answer

    def _require_hope(self, request: Request) -> None:
        """Raise where no answer will come any more, and take the request back."""
        late_us = (request.deadline_us or 0) + int(_LATE_SECONDS * 1_000_000)
        try:
            if request.deadline_us is not None and self._call.clock.wall_us() > late_us:
                raise NodesFailed(f"{request.kind}: timed out, the sync process does not answer")
            if not self._daemons.is_sync_coming():
                raise NotRunning(f"{request.kind}: the sync process has stopped meanwhile")
        except ShardsyncError:
            requests.withdraw(self._call.state.requests, request)
            raise


def error_of(exit_code: int, message: str) -> ShardsyncError:
    """The error that an exit code of the contract stands for."""
    for cls in ShardsyncError.__subclasses__():
        if cls.exit_code == exit_code:
            return cls(message)
    return ShardsyncError(message)
