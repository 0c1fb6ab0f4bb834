"""What outlives a Batch: paths to be tried again, comparisons, links still searched for.

The rows lie in state.db; the Cursors have moved on, and each row holds what is open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from shardsync.clock import Clock
from shardsync.journal.records import (
    COMPARING,
    BatchRecord,
    Compare,
    Gain,
    NodeKey,
    NodeRow,
    Work,
    WorkReason,
)
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.backoff import Backoff
from shardsync.ship.big_files import BigFiles
from shardsync.ship.comparing import Comparing
from shardsync.ship.deletions import DeletionBudget
from shardsync.ship.delivery import Delivery
from shardsync.ship.fold import Pending, Want, ancestors, join
from shardsync.ship.links import HardLinks
from shardsync.ship.shipping import Delivered

_BACKOFF = Backoff(first=5.0, longest=600.0)
_LINK_SEARCH_US = 500_000
_AT_ONCE = 5000


class OpenWork:
    """The open work of one Node. Used by its Syncer alone."""

    def __init__(
        self,
        *,
        key: NodeKey,
        state: StateWriter,
        delivery: Delivery,
        comparing: Comparing,
        links: HardLinks,
        big_files: BigFiles,
        budget: DeletionBudget,
        has_news: Callable[[], bool],
        clock: Clock,
        log: Log,
    ) -> None:
        self._big_files = big_files
        self._key = key
        self._state = state
        self._delivery = delivery
        self._comparing = comparing
        self._links = links
        self._budget = budget
        self._has_news = has_news
        self._clock = clock
        self._log = log

    def due(self) -> list[Work]:
        """What is due and goes together: retries, what an audit found, the next of a comparison.

        Of a comparison that is many pieces; `ship` does those that fit into a slice of time.
        """
        due = self._state.read.work_due(self._key, now_us=self._clock.wall_us(), limit=_AT_ONCE)
        if due and due[0].reason is WorkReason.LINKS:
            # Retries and comparisons come first, so all that is due is of this kind.
            return [] if self._links.is_searching else due
        return [
            item
            for item in due
            if _kind(item) == _kind(due[0])
            and (item.reason not in COMPARING or item.request == due[0].request)
        ]

    async def ship(self, row: NodeRow, due: Sequence[Work], *, sweep: bool) -> Delivered:
        """Ship what is due, then record it as done, or what of it stays open.

        Raises as `Delivery.deliver` does; nothing is recorded of what failed then.
        Crash safety: the rows go after the effect; a crash in between does them again.
        """
        if due[0].reason in COMPARING:
            return await self._comparing.run(
                row,
                due,
                sweep=sweep,
                has_news=self._has_news,
                record=self._record_pieces,
            )
        by_path: dict[bytes, Pending] = {}
        for item in due:
            want = _WANT_OF[item.scope]
            join(by_path, Pending(path=item.path, want=want, since=item.since))
        delivered = await self._delivery.deliver(
            by_path.values(),
            owned=bool(row.owned),
            compare=due[0].compare,
            allow_delete=all(item.since <= row.allow_delete for item in due),
            again=due[0].reason in {WorkReason.RETRY, WorkReason.AUDIT},
            live=due[0].reason is not WorkReason.AUDIT,
            sweep=sweep,
            big_bytes=self._big_files.more_than if _may_be_set_aside(due[0]) else math.inf,
        )
        known = {item.path: item for item in due}
        requests = {item.request for item in due}
        request = due[0].request if len(requests) == 1 else ""
        again = self.left_by(delivered, by_path, known, request)
        again += self._big_files.set_aside(delivered.set_aside, by_path, known)
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

    def _record_pieces(
        self,
        rows: Sequence[Work],
        delivered: Delivered,
        pending: Sequence[Pending],
        gain: Gain,
    ) -> None:
        by_path = {item.path: item for item in pending}
        is_exact = any(item.compare is Compare.CHECKSUM for item in rows)
        again = self.left_by(
            delivered,
            by_path,
            request=rows[0].request if rows else "",
            # As closely as it was compared: what differs by its bytes alone would pass otherwise.
            compare=Compare.CHECKSUM if is_exact else Compare.ATTRIBUTES,
        )
        self._state.record(
            self._key,
            BatchRecord(
                work_added=again,
                work_done=[item.id for item in rows],
                deleted_entries=self._budget.take_deleted(),
                gain=gain,
            ),
        )

    def left_by(
        self,
        delivered: Delivered,
        pending: dict[bytes, Pending],
        known: dict[bytes, Work] | None = None,
        request: str = "",
        compare: Compare = Compare.CONTENT,
    ) -> list[Work]:
        """The rows for what a Batch left open: failed paths, and files with names unknown yet.

        `known`: the rows that the Batch came from. `compare`: how the others are compared then.
        Changes nothing.
        """
        rows = self._failed_rows(delivered, pending, known or {}, request, compare)
        return rows + self._link_rows(delivered, pending)

    def _failed_rows(
        self,
        delivered: Delivered,
        pending: dict[bytes, Pending],
        known: dict[bytes, Work],
        request: str,
        compare: Compare,
    ) -> list[Work]:
        """A work row for each path that failed, with its own back-off."""
        rows = []
        now = self._clock.wall_us()
        since = pending_since(delivered.failed, pending) if delivered.failed else {}
        for path, failed in delivered.failed.items():
            before = known.get(path)
            attempts = (before.attempts if before else 0) + 1
            rows.append(
                Work(
                    path=path,
                    scope=failed.scope,
                    compare=before.compare if before else compare,
                    reason=WorkReason.RETRY,
                    since=since.get(path, now),
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


def pending_since(failed: Iterable[bytes], pending: Mapping[bytes, Pending]) -> dict[bytes, int]:
    """Since when each failed path is pending: by itself, by what is above it, or what is below.

    Not since it failed: a flush that began before would end without it.
    """
    below: dict[bytes, int] = {}
    for item in pending.values():
        for above in ancestors(item.path):
            below[above] = min(below.get(above, item.since), item.since)
    found = {}
    for path in failed:
        known = [pending[p].since for p in (path, *ancestors(path), b"") if p in pending]
        known += [below[path]] if path in below else []
        if known:
            found[path] = min(known)
    return found


def _kind(item: Work) -> tuple[WorkReason, Compare, bool]:
    """What may go together in one run."""
    return (item.reason, item.compare, _may_be_set_aside(item))


def _may_be_set_aside(item: Work) -> bool:
    """Whether a big file goes by the second lane: not what failed, as something is in its way, nor
    what that lane had just looked at.
    """
    is_new = item.reason in {WorkReason.SETTLING, WorkReason.RETRY} and item.attempts == 0
    return is_new and item.compare is Compare.CONTENT
