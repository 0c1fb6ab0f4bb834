"""The second lane: big files go beside the Batches, one at a time per Node.

A Batch with a file larger than `big_file_bytes` sets it aside as a work row, and the
Cursor moves on; Lag, flush and replay count the row. Its own rsync (with `-O`)
leaves directory times alone, as overlapping runs spoil them for good. What it spoils
all the same, by its temporary file and by the rename, is put right by a row that has
the next Batch look at the path again: then no run is under way in its directory, unless the
next big file is, which has such a row of its own to come. That look also deletes what
was removed meanwhile, and sends what was replaced by something small.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from shardsync.clock import Clock
from shardsync.errors import StateUnusable
from shardsync.escape import printable
from shardsync.failpoints import Point, reach
from shardsync.journal.records import BatchRecord, Compare, NodeKey, Work, WorkReason
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.backoff import Backoff
from shardsync.ship.command import Purpose
from shardsync.ship.fold import Pending
from shardsync.ship.janitor import InFlight
from shardsync.ship.look import Look, LookKind
from shardsync.ship.messages import Failure, FailureKind
from shardsync.ship.observer import BatchOutcome, ShipObserver
from shardsync.ship.outcome import Outcome, RunResult, Trouble
from shardsync.ship.shipping import NodeTrouble, Shipping
from shardsync.ship.view import NodeView

_BACKOFF = Backoff(first=5.0, longest=600.0)
_DEADLINE_SECONDS = 24 * 3600.0
_NODES_OWN = frozenset(
    {
        Trouble.UNREACHABLE,
        Trouble.TIMEOUT,
        Trouble.SSH,
        Trouble.AUTHENTICATION,
        Trouble.RSYNC_MISSING,
    }
)
"""What the whole Node backs off for; a disk that has no room for this file may have some for
others."""


class BigFiles:
    """The big files of one Node, those of `more_than` so many bytes. Used by its Syncer alone."""

    def __init__(
        self,
        *,
        key: NodeKey,
        state: StateWriter,
        transport: Shipping,
        view: NodeView,
        turns: contextlib.AbstractAsyncContextManager[object],
        observer: ShipObserver,
        in_flight: InFlight,
        more_than: int,
        clock: Clock,
        log: Log,
    ) -> None:
        self._key = key
        self._state = state
        self._transport = transport
        self._view = view
        self._turns = turns
        self._observer = observer
        self._on_done: Callable[[bool], None] = lambda _is_clean: None
        self._clock = clock
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._in_flight = in_flight
        self.more_than = more_than
        self._trouble: RunResult | None = None
        self._changed_again = False

    def tell(self, on_done: Callable[[bool], None]) -> None:
        """Have this called after each run: whether nothing of it can be left on the Node."""
        self._on_done = on_done

    def set_aside(
        self,
        sizes: Mapping[bytes, int],
        pending: Mapping[bytes, Pending],
        known: Mapping[bytes, Work] | None = None,
    ) -> list[Work]:
        """The rows for what a Batch left to this lane. Record them with its Cursors.

        `known`: the rows that the Batch came from, whose requests wait for these then.
        """
        now = self._clock.wall_us()
        # The row of what is being sent is this very row: it must outlive that run.
        self._changed_again = self._changed_again or self._in_flight.path in sizes
        return [
            Work(
                path=path,
                scope=Scope.ENTRY,
                compare=Compare.CONTENT,
                reason=WorkReason.BIG,
                since=pending[path].since if path in pending else now,
                request=known[path].request if known and path in known else "",
            )
            for path in sizes
        ]

    def tend(self) -> None:
        """Have the oldest file that is due sent, unless one is. Raises NodeTrouble.

        That is the last run's, for which the Node backs off as a whole.
        """
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise NodeTrouble(trouble)
        if self._task is None:
            due = self._state.read.big_due(self._key, now_us=self._clock.wall_us())
            if due is not None:
                self._in_flight.path = due.path
                self._task = asyncio.create_task(self._ship(due))

    async def stop(self) -> None:
        """End the run under way; its file stays open work. Idempotent."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _ship(self, work: Work) -> None:
        is_clean = False
        try:
            async with self._turns:
                is_clean = await self._ship_now(work)
        except OSError as error:
            # The root was let go of, or its subtree is gone.
            self._failed(work, Failure(reason=f"the tree cannot be read: {error.strerror}"))
        except StateUnusable as error:
            # Nothing is recorded, so it is sent again: once the Syncer can write again.
            self._log.warning("file.not_recorded", path=work.path, error=error)
        finally:
            self._task, self._in_flight.path = None, None
            self._on_done(is_clean)

    async def _ship_now(self, work: Work) -> bool:
        self._changed_again = False
        before = self._view.look(work.path)
        if before.kind is not LookKind.FILE:
            self._done(work, work.path)
            return True
        self._log.info("file.sending", path=work.path, bytes=before.size)
        result = await self._transport.ship(
            [work.path], purpose=Purpose.BIG_FILE, deadline_seconds=_DEADLINE_SECONDS
        )
        reach(Point.SHIP_BIG_FILE)
        failure = _failure(work.path, result)
        if failure is None:
            self._sent(work, before, result)
            return True
        self._trouble = result if result.trouble in _NODES_OWN else None
        self._failed(work, failure)
        return False

    def _sent(self, work: Work, before: Look, result: RunResult) -> None:
        after = self._view.look(work.path)
        is_same = (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
        is_big = after.kind is LookKind.FILE and after.size > self.more_than
        # A big file that was written meanwhile has a Change to come, or has its row again: the
        # look is not to send it in a Batch. One that is small now may have been shipped already.
        self._done(work, work.path if is_same or not is_big else work.path.rpartition(b"/")[0])
        now = self._clock.wall_us()
        self._state.set_node(self._key, last_success=now)
        self._observer.batch_finished(
            self._key,
            BatchOutcome.SHIPPED,
            seconds=result.seconds,
            shipped_paths=1,
            shipped_bytes=result.bytes_sent,
        )
        self._observer.changes_shipped(self._key, [(now - work.since) / 1e6])
        self._log.info("file.sent", path=work.path, seconds=result.seconds)

    def _done(self, work: Work, look_at: bytes) -> None:
        """Close the row, unless the file changed again; open one for the look afterwards.

        Crash safety: one transaction after the effect; before it the file is sent again.
        """
        done = [] if self._changed_again else [work.id]
        added = []
        # The root's own attributes are nobody's.
        if look_at:
            row = _look(work, look_at)
            before = self._state.read.work_of(self._key, look_at, WorkReason.AFTER_BIG)
            if before is not None:
                # A Batch may be looking right now, and would close that row behind this one.
                done.append(before.id)
                row = replace(row, since=min(row.since, before.since))
            added.append(row)
        self._state.record(self._key, BatchRecord(work_added=added, work_done=done))

    def _failed(self, work: Work, failure: Failure) -> None:
        """Try again later, here; but what is in its way is deleted by a Batch, which counts it."""
        attempts = work.attempts + 1
        row = replace(
            work,
            attempts=attempts,
            not_before=self._clock.wall_us() + _BACKOFF.delay_us(attempts),
            last_error=failure.reason,
        )
        is_blocked = failure.kind is FailureKind.NOT_EMPTY
        if is_blocked:
            row = replace(row, reason=WorkReason.RETRY)
        self._state.record(
            self._key,
            BatchRecord(work_added=[row], work_done=[work.id] if is_blocked else []),
        )
        self._state.set_node(self._key, last_error=f"{printable(work.path)}: {failure.reason}")
        self._log.warning("path.failed", path=work.path, attempts=attempts, error=failure.reason)


def _failure(path: bytes, result: RunResult) -> Failure | None:
    """Why this path is not on the Node, None where it is."""
    if result.failed:
        return result.failed.get(path) or next(iter(result.failed.values()))
    if result.outcome is Outcome.NOTHING:
        return Failure(reason=result.message)
    return None


def _look(work: Work, path: bytes) -> Work:
    return Work(
        path=path,
        scope=Scope.ENTRY,
        compare=Compare.ATTRIBUTES,
        reason=WorkReason.AFTER_BIG,
        since=work.since,
        request=work.request,
    )
