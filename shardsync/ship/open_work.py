"""What outlives a Batch: paths to be tried again, comparisons, links still searched for.

The rows lie in state.db; the Cursors have moved on, and each row holds what is open.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardsync.clock import Clock
from shardsync.journal.records import BatchRecord, Compare, NodeKey, NodeRow, Work, WorkReason
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.backoff import Backoff
from shardsync.ship.deletions import DeletionBudget
from shardsync.ship.delivery import Delivered, Delivery
from shardsync.ship.fold import Pending, Want
from shardsync.ship.links import HardLinks

_BACKOFF = Backoff(first=5.0, longest=600.0)
_LINK_SEARCH_US = 500_000
_RETRIES_AT_ONCE = 1000
_PIECES_AT_ONCE = 16
_SINGLE = frozenset({WorkReason.RETRY, WorkReason.AFTER_BIG, WorkReason.SETTLING})
"""Of Changes: each row is one path, which may be deleted on every Node."""


class OpenWork:
    """The open work of one Node. Used by its Syncer alone."""

    def __init__(
        self,
        *,
        key: NodeKey,
        state: StateWriter,
        delivery: Delivery,
        links: HardLinks,
        budget: DeletionBudget,
        clock: Clock,
        log: Log,
    ) -> None:
        self._key = key
        self._state = state
        self._delivery = delivery
        self._links = links
        self._budget = budget
        self._clock = clock
        self._log = log

    def due(self) -> list[Work]:
        """The retries that are due, all together; else the next pieces of a comparison.

        An eighth of the pieces at a time, at least sixteen: each run costs a start, and
        each is a step of progress that a restart keeps.
        """
        due = self._state.read.work_due(
            self._key, now_us=self._clock.wall_us(), limit=_RETRIES_AT_ONCE
        )
        if due and due[0].reason in _SINGLE:
            kind = (due[0].reason, due[0].compare)
            return [item for item in due if (item.reason, item.compare) == kind]
        if due and due[0].reason is WorkReason.LINKS:
            # Retries and comparisons come first, so all that is due is of this kind.
            return [] if self._links.is_searching else due
        at_once = max(_PIECES_AT_ONCE, len(due) // 8)
        return [
            item
            for item in due[:at_once]
            if (item.reason, item.request) == (due[0].reason, due[0].request)
        ]

    async def ship(self, row: NodeRow, due: Sequence[Work], *, sweep: bool) -> Delivered:
        """Ship what is due, then record it as done, or what of it stays open.

        Raises as `Delivery.deliver` does; nothing is recorded then.
        Crash safety: the rows go after the effect; a crash in between does them again.
        """
        pending = [
            Pending(path=item.path, want=_WANT_OF[item.scope], since=item.since) for item in due
        ]
        delivered = await self._delivery.deliver(
            pending,
            owned=bool(row.owned),
            compare=due[0].compare,
            allow_delete=all(item.since <= row.allow_delete for item in due),
            again=due[0].reason is WorkReason.RETRY,
            live=due[0].reason in _SINGLE | {WorkReason.LINKS, WorkReason.MOVE},
            # What was empty at first contact has nothing beside the Tree to look for.
            find_extraneous=not (row.owned and due[0].reason is WorkReason.BOOTSTRAP),
            sweep=sweep,
        )
        by_path = {item.path: item for item in pending}
        known = {item.path: item for item in due}
        requests = {item.request for item in due}
        request = due[0].request if len(requests) == 1 else ""
        again = self.left_by(delivered, by_path, known, request)
        kept = {(item.path, item.scope) for item in again if item.reason is WorkReason.RETRY}
        self._state.record(
            self._key,
            BatchRecord(
                work_added=again,
                work_done=[
                    item.id
                    for item in due
                    if item.reason is not WorkReason.RETRY or (item.path, item.scope) not in kept
                ],
                deleted_entries=self._budget.take_deleted(),
            ),
        )
        return delivered

    def left_by(
        self,
        delivered: Delivered,
        pending: dict[bytes, Pending],
        known: dict[bytes, Work] | None = None,
        request: str = "",
    ) -> list[Work]:
        """The rows for what a Batch left open: failed paths, and files with names unknown yet.

        `known`: the rows that the Batch came from. Changes nothing.
        """
        rows = self._failed_rows(delivered, pending, known or {}, request)
        return rows + self._link_rows(delivered, pending)

    def _failed_rows(
        self,
        delivered: Delivered,
        pending: dict[bytes, Pending],
        known: dict[bytes, Work],
        request: str,
    ) -> list[Work]:
        """A work row for each path that failed, with its own back-off."""
        rows = []
        now = self._clock.wall_us()
        for path, failed in delivered.failed.items():
            before = known.get(path)
            attempts = (before.attempts if before else 0) + 1
            since = pending[path].since if path in pending else now
            rows.append(
                Work(
                    path=path,
                    scope=failed.scope,
                    compare=before.compare if before else Compare.CONTENT,
                    reason=WorkReason.RETRY,
                    since=since,
                    request=before.request if before else request,
                    attempts=attempts,
                    not_before=now + _BACKOFF.delay_us(attempts),
                    last_error=failed.reason,
                )
            )
            self._log.warning("path.failed", path=path, attempts=attempts, error=failed.reason)
        return rows

    def _link_rows(self, delivered: Delivered, pending: dict[bytes, Pending]) -> list[Work]:
        """A work row for each file whose other names are still being searched for."""
        now = self._clock.wall_us()
        return [
            Work(
                path=path,
                scope=Scope.ENTRY,
                # The file itself is on the Node: only what differs is sent.
                compare=Compare.CHECKSUM,
                reason=WorkReason.LINKS,
                since=pending[path].since if path in pending else now,
                not_before=now + _LINK_SEARCH_US,
            )
            for path in delivered.unresolved
        ]


_WANT_OF = {
    Scope.ENTRY: Want.CONTENT,
    Scope.TREE: Want.TREE,
    Scope.LISTING: Want.LISTING | Want.ATTRIBUTES,
}
