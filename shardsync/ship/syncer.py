"""The Syncer of one Node: reads what is pending, has it delivered, then records how far it came.

One `tick()` is one unit of work. Everything it decides on is in state.db and
the Journals, so that a killed Syncer goes on where the record says.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shardsync.clock import Clock
from shardsync.config.settings import NodeSettings, SyncSettings
from shardsync.errors import StateUnusable
from shardsync.escape import printable
from shardsync.journal.records import (
    BatchRecord,
    Compare,
    Cursor,
    NodeRow,
    Work,
    WorkReason,
)
from shardsync.journal.state_writer import StateWriter
from shardsync.log import ChangeOnly, Log
from shardsync.model import NodeState, Scope
from shardsync.ship.deletions import DeletionBudget, TooManyDeletions
from shardsync.ship.delivery import Delivered, Delivery, NodeTrouble, RootLost
from shardsync.ship.first_contact import FirstContact
from shardsync.ship.fold import Pending, Want, fold, rebase
from shardsync.ship.journals import TreeJournals, Unread
from shardsync.ship.links import HardLinks
from shardsync.ship.observer import BatchOutcome, ShipObserver

_NODE_BACKOFF = (1.0, 60.0)
_WORK_BACKOFF = (5.0, 600.0)
_IDLE_SECONDS = 5.0
_WATCHED_SECONDS = 0.2
_LINK_SEARCH_US = 500_000
_ROOT_LOST_SECONDS = 2.0
_RETRIES_AT_ONCE = 1000
_PIECES_AT_ONCE = 16


class Did(enum.Enum):
    """What one tick did."""

    NOTHING = "nothing"
    SHIPPED = "shipped"
    WORKED = "worked"
    CONTACTED = "contacted"
    FAILED = "failed"
    HALTED = "halted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The record of one tick. `wait_seconds`: until the next one, if nothing wakes it before."""

    did: Did
    wait_seconds: float = 0.0
    paths: int = 0
    error: str = ""


class Syncer:
    """Keeps one Node in step. The only one that moves the Node's Cursors."""

    def __init__(
        self,
        *,
        node: NodeSettings,
        journals: TreeJournals,
        state: StateWriter,
        delivery: Delivery,
        first_contact: FirstContact,
        links: HardLinks,
        budget: DeletionBudget,
        limits: SyncSettings,
        observer: ShipObserver,
        clock: Clock,
        log: Log,
    ) -> None:
        self._node = node
        self._journals = journals
        self._state = state
        self._delivery = delivery
        self._first_contact = first_contact
        self._links = links
        self._budget = budget
        self._limits = limits
        self._observer = observer
        self._clock = clock
        self._log = log
        self._said = ChangeOnly(clock=clock)
        self._random = random.Random()  # noqa: S311 (jitter, no secret)
        self._is_urgent = False
        self._is_works_turn = False
        # What was pending then may have been sent by an rsync that was killed.
        self._unswept_until = clock.wall_us()
        self._news = asyncio.Event()

    @property
    def key(self) -> tuple[str, str]:
        """(tree, name)."""
        return self._node.key

    def wake(self) -> None:
        """There is news: tick again soon."""
        self._news.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Tick until told to stop; the tick under way is finished first."""
        while not stopping.is_set():
            self._news.clear()
            tick = await self.tick()
            if tick.wait_seconds:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), tick.wait_seconds)

    def hurry(self) -> None:
        """Ship what is still settling too, and try what backs off now: a flush waits for it."""
        self._is_urgent = True
        self._state.set_retry_due(self.key)
        self.wake()

    async def tick(self) -> Tick:
        """Do one unit of work: first contact, one Batch, or one piece of open work.

        Crash safety: Cursors and work rows are written in one transaction after
        rsync succeeded; a crash in between ships the same again.
        """
        row = self._state.know_node(self.key)
        waiting = self._must_wait(row)
        if waiting is not None:
            return waiting
        try:
            return await self._work(row)
        except NodeTrouble as error:
            return self._back_off(row, error)
        except TooManyDeletions as error:
            return self._halt(error)
        except (RootLost, OSError) as error:
            # An OSError: what is looked at here is the Tree alone, its root or a subtree of it.
            return self._wait_for_root(error)
        except StateUnusable as error:
            self._say("node.state_unusable", error)
            return Tick(did=Did.FAILED, wait_seconds=_IDLE_SECONDS, error=str(error))

    def _may_be_left(self, since: int) -> bool:
        """Whether what is pending since then may have been sent by an rsync that was killed.

        That is so for all that was pending when this process started, or when a run last failed.
        """
        return since <= self._unswept_until

    async def _work(self, row: NodeRow) -> Tick:
        self._first_contact.check_root()
        if self._first_contact.adapt(row):
            return Tick(did=Did.CONTACTED)
        if not row.contacted:
            return await self._contact()
        if row.attempts:
            # Whatever the outage was, the Node may have come back as another machine.
            await self._first_contact.look_again()
            self._state.set_node(self.key, attempts=0, not_before=0, last_error="")
            self._said.reset()
            self._log.info("node.reached", after_attempts=row.attempts)
        cursors = self._led_on(self._state.read.cursors(self.key))
        if isinstance(cursors, Tick):
            return cursors
        unread = self._unread(cursors, row.allow_delete)
        # In turn, so that neither a steady stream of Changes nor a long reconcile starves the
        # other.
        due = self._due_work() if self._is_works_turn or not unread.rows else []
        self._is_works_turn = bool(unread.rows) and not due
        if due:
            return await self._ship_work(row, due)
        if unread.rows:
            return await self._ship(row, cursors, unread)
        if unread.cursors:
            self._state.set_cursors(self.key, unread.cursors)
        self._is_urgent = False
        return self._rest(row, cursors, unread)

    def _rest(self, row: NodeRow, cursors: dict[str, Cursor], unread: Unread) -> Tick:
        """Nothing is to be done now: keep the record in order."""
        self._state.note_history(self.key, cursors)
        self._end_allowance(row)
        if row.state is NodeState.HALTED:
            self._state.set_node(self.key, last_error="")
        self._settle(row)
        return Tick(did=Did.NOTHING, wait_seconds=self._idle_seconds(unread))

    async def _contact(self) -> Tick:
        if not await self._first_contact.begin():
            return Tick(did=Did.NOTHING, wait_seconds=_WATCHED_SECONDS)
        return Tick(did=Did.CONTACTED)

    def _led_on(self, cursors: dict[str, Cursor]) -> dict[str, Cursor] | Tick:
        """The Cursors with those of new Shards; a Tick, and a reconcile, where none leads on.

        Not before all of the Tree is watched: a new Journal's first scan looks
        at no file, for what it missed is to be found by comparing afterwards.
        """
        standing = self._journals.standing(cursors)
        if standing.lost and not self._journals.are_observing():
            if self._said.is_due("waits until watched"):
                self._log.info("node.waits", until="all of the tree is watched")
            return Tick(did=Did.NOTHING, wait_seconds=_WATCHED_SECONDS)
        if standing.lost or standing.behind:
            state = NodeState.BEHIND_RETENTION if standing.behind else NodeState.FOLLOWING
            self._log.warning(
                "node.reconcile", lost=standing.lost or "-", behind=standing.behind or "-"
            )
            self._first_contact.reconcile(state=state, shards=[*standing.lost, *standing.behind])
            return Tick(did=Did.CONTACTED)
        if standing.fresh:
            self._state.record(self.key, BatchRecord(cursors=standing.fresh))
            cursors = {**cursors, **standing.fresh}
        return cursors

    def _unread(self, cursors: dict[str, Cursor], allowed_until: int) -> Unread:
        """What is pending; first of all, and apart, that for which deletions were allowed."""
        settled = None
        if allowed_until:
            allowed = self._journals.unread(
                cursors, limit=self._limits.batch_paths, settled_before=allowed_until + 1
            )
            if allowed.rows:
                return allowed
        if self._limits.delay_seconds and not self._is_urgent:
            settled = self._clock.wall_us() - int(self._limits.delay_seconds * 1_000_000)
        return self._journals.unread(
            cursors, limit=self._limits.batch_paths, settled_before=settled
        )

    async def _ship(self, row: NodeRow, before: dict[str, Cursor], unread: Unread) -> Tick:
        began = self._clock.monotonic()
        folded: dict[bytes, Pending] = {}
        fold(unread.rows, folded)
        pending = list(self._rebased(folded.values()))
        delivered = await self._delivery.deliver(
            pending,
            owned=bool(row.owned),
            allow_delete=all(change[4] <= row.allow_delete for change in unread.rows),
            sweep=self._may_be_left(min(change[4] for change in unread.rows)),
        )
        now = self._clock.wall_us()
        # A replay may have set a Cursor back meanwhile, and must not be undone.
        standing = self._state.read.cursors(self.key)
        cursors = {
            shard: cursor
            for shard, cursor in unread.cursors.items()
            if standing.get(shard) == before.get(shard)
        }
        by_path = {item.path: item for item in pending}
        failed = self._failed_work(delivered, by_path) + self._link_work(delivered, by_path)
        self._state.record(
            self.key,
            BatchRecord(
                cursors=cursors,
                work_added=failed,
                deleted_entries=self._budget.take_deleted(),
                finished_at=now,
            ),
        )
        self._note_success(row, delivered, began)
        self._observer.changes_shipped(
            self.key, ((now - observed_at) / 1e6 for _, _, _, _, observed_at, _ in unread.rows)
        )
        return Tick(did=Did.SHIPPED, paths=len(pending))

    def _rebased(self, pending: Iterable[Pending]) -> Iterable[Pending]:
        for item in pending:
            moved = rebase(item.path, item.want, os.fsencode(self._node.subtree))
            if moved is not None:
                yield Pending(path=moved[0], want=moved[1], since=item.since)

    def _due_work(self) -> list[Work]:
        """The retries that are due, all together; else the next pieces of a comparison.

        An eighth of the pieces at a time, at least sixteen: each run costs a start, and
        each is a step of progress that a restart keeps.
        """
        due = self._state.read.work_due(
            self.key, now_us=self._clock.wall_us(), limit=_RETRIES_AT_ONCE
        )
        if due and due[0].reason is WorkReason.RETRY:
            return [
                item
                for item in due
                if item.reason is WorkReason.RETRY and item.compare is due[0].compare
            ]
        if due and due[0].reason is WorkReason.LINKS:
            # Retries and comparisons come first, so all that is due is of this kind.
            return [] if self._links.is_searching else due
        at_once = max(_PIECES_AT_ONCE, len(due) // 8)
        return [
            item
            for item in due[:at_once]
            if (item.reason, item.request) == (due[0].reason, due[0].request)
        ]

    async def _ship_work(self, row: NodeRow, due: Sequence[Work]) -> Tick:
        began = self._clock.monotonic()
        pending = [
            Pending(path=item.path, want=_WANT_OF[item.scope], since=item.since) for item in due
        ]
        delivered = await self._delivery.deliver(
            pending,
            owned=bool(row.owned),
            compare=due[0].compare,
            allow_delete=all(item.since <= row.allow_delete for item in due),
            again=due[0].reason is WorkReason.RETRY,
            live=due[0].reason in {WorkReason.RETRY, WorkReason.LINKS},
            # What was empty at first contact has nothing beside the Tree to look for.
            find_extraneous=not (row.owned and due[0].reason is WorkReason.BOOTSTRAP),
            sweep=self._may_be_left(min(item.since for item in due)),
        )
        by_path = {item.path: item for item in pending}
        known = {item.path: item for item in due}
        requests = {item.request for item in due}
        request = due[0].request if len(requests) == 1 else ""
        again = self._failed_work(delivered, by_path, known, request)
        again += self._link_work(delivered, by_path)
        kept = {(item.path, item.scope) for item in again if item.reason is WorkReason.RETRY}
        self._state.record(
            self.key,
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
        self._note_success(row, delivered, began)
        return Tick(did=Did.WORKED, paths=len(due))

    def _failed_work(
        self,
        delivered: Delivered,
        pending: dict[bytes, Pending],
        known: dict[bytes, Work] | None = None,
        request: str = "",
    ) -> list[Work]:
        """A work row for each path that failed, with its own back-off."""
        rows = []
        now = self._clock.wall_us()
        for path, failed in delivered.failed.items():
            before = (known or {}).get(path)
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
                    not_before=now + self._delay_us(attempts, _WORK_BACKOFF),
                    last_error=failed.reason,
                )
            )
            self._log.warning("path.failed", path=path, attempts=attempts, error=failed.reason)
        return rows

    def _link_work(self, delivered: Delivered, pending: dict[bytes, Pending]) -> list[Work]:
        """A work row for each file whose other names are still being searched for."""
        now = self._clock.wall_us()
        return [
            Work(
                path=path,
                scope=Scope.ENTRY,
                # The file itself is on the Node: only what has its old time is sent.
                compare=Compare.ATTRIBUTES,
                reason=WorkReason.LINKS,
                since=pending[path].since if path in pending else now,
                not_before=now + _LINK_SEARCH_US,
            )
            for path in delivered.unresolved
        ]

    def _note_success(self, row: NodeRow, delivered: Delivered, began: float) -> None:
        seconds = self._clock.monotonic() - began
        values: dict[str, object] = {"last_success": self._clock.wall_us()}
        if row.attempts or row.last_error:
            values |= {"attempts": 0, "not_before": 0, "last_error": ""}
        if delivered.failed:
            path, failed = next(iter(delivered.failed.items()))
            values["last_error"] = f"{printable(path)}: {failed.reason}"
        self._state.set_node(self.key, **values)
        if delivered.foreign:
            self._state.set_foreign(self.key, delivered.foreign)
        self._said.reset()
        self._settle(row)
        self._observer.batch_finished(
            self.key,
            BatchOutcome.PARTIAL if delivered.failed else BatchOutcome.SHIPPED,
            seconds=seconds,
            shipped_paths=delivered.shipped,
            deleted_paths=delivered.deleted,
            shipped_bytes=delivered.bytes_sent,
        )
        self._log.info(
            "batch.shipped",
            paths=delivered.shipped,
            deleted=delivered.deleted,
            failed=len(delivered.failed),
            bytes=delivered.bytes_sent,
            seconds=seconds,
        )

    def _settle(self, row: NodeRow) -> None:
        """Set the state that follows from what is open."""
        reasons = self._state.read.work_reasons(self.key)
        state = NodeState.FOLLOWING
        if WorkReason.BOOTSTRAP in reasons:
            state = NodeState.BOOTSTRAPPING
        elif WorkReason.RECONCILE in reasons and row.state is NodeState.BEHIND_RETENTION:
            state = NodeState.BEHIND_RETENTION
        progress = self._first_contact.progress()
        if state is not row.state or progress != row.progress:
            if state is not row.state:
                self._log.info("node.state", was=row.state, now=state)
            self._state.set_node(self.key, state=state.value, progress=progress)

    def _must_wait(self, row: NodeRow) -> Tick | None:
        now = self._clock.wall_us()
        if row.paused:
            if row.paused_until is None or now < row.paused_until:
                self._set_state(row, NodeState.PAUSED)
                return Tick(did=Did.NOTHING, wait_seconds=_IDLE_SECONDS)
            self._state.set_node(self.key, paused=0, paused_until=None)
        if row.halted:
            self._set_state(row, NodeState.HALTED)
            return Tick(did=Did.NOTHING, wait_seconds=_IDLE_SECONDS)
        # A clock that was set back must not make a Node wait longer than its longest back-off.
        wait = min((row.not_before - now) / 1e6, 1.5 * _NODE_BACKOFF[1])
        if row.attempts and wait > 0:
            return Tick(did=Did.NOTHING, wait_seconds=wait)
        return None

    def _back_off(self, row: NodeRow, error: NodeTrouble) -> Tick:
        self._note_deleted()
        self._unswept_until = self._clock.wall_us()
        attempts = row.attempts + 1
        delay_us = self._delay_us(attempts, _NODE_BACKOFF)
        self._state.set_node(
            self.key,
            state=NodeState.BACKING_OFF.value,
            attempts=attempts,
            not_before=self._clock.wall_us() + delay_us,
            last_error=str(error),
        )
        self._say("node.failed", error, attempts=attempts, retry_seconds=delay_us / 1e6)
        self._observer.batch_finished(self.key, BatchOutcome.FAILED, seconds=0.0)
        return Tick(did=Did.FAILED, wait_seconds=delay_us / 1e6, error=str(error))

    def _halt(self, error: TooManyDeletions) -> Tick:
        self._note_deleted()
        self._state.set_node(
            self.key, state=NodeState.HALTED.value, halted=str(error), last_error=str(error)
        )
        self._log.error("node.halted", reason=error, remedy=error.remedy)
        self._observer.batch_finished(self.key, BatchOutcome.HALTED, seconds=0.0)
        return Tick(did=Did.HALTED, wait_seconds=_IDLE_SECONDS, error=str(error))

    def _wait_for_root(self, error: RootLost | OSError) -> Tick:
        self._note_deleted()
        self._state.set_node(
            self.key, state=NodeState.HALTED.value, last_error=f"nothing is sent: {error}"
        )
        self._say("node.root_lost", error)
        return Tick(did=Did.HALTED, wait_seconds=_ROOT_LOST_SECONDS, error=str(error))

    def _note_deleted(self) -> None:
        """Keep count of what a Batch deleted before it failed."""
        deleted = self._budget.take_deleted()
        if deleted:
            self._state.record(self.key, BatchRecord(deleted_entries=deleted))

    def _end_allowance(self, row: NodeRow) -> None:
        """What was pending at `--allow-delete` is done: later deletions are counted again."""
        since = self._state.read.work_summary(self.key)[2]
        if row.allow_delete and (since is None or since > row.allow_delete):
            self._state.set_node(self.key, allow_delete=0)

    def _set_state(self, row: NodeRow, state: NodeState) -> None:
        if row.state is not state:
            self._state.set_node(self.key, state=state.value)
            self._log.info("node.state", was=row.state, now=state)

    def _say(self, event: str, error: Exception, **fields: object) -> None:
        if self._said.is_due(str(error)):
            self._log.warning(event, error=error, **fields)

    def _delay_us(self, attempts: int, bounds: tuple[float, float]) -> int:
        """Exponential, with jitter so that many Nodes do not come back in step."""
        first, longest = bounds
        seconds = min(longest, first * 2.0 ** min(attempts - 1, 30))
        return int(seconds * self._random.uniform(0.75, 1.25) * 1_000_000)

    def _idle_seconds(self, unread: Unread) -> float:
        now = self._clock.wall_us()
        seconds = _IDLE_SECONDS
        if unread.held_until is not None:
            due = unread.held_until + int(self._limits.delay_seconds * 1_000_000)
            seconds = min(seconds, max(0.01, (due - now) / 1e6))
        next_due = self._state.read.next_due(self.key)
        if next_due is not None:
            seconds = min(seconds, max(0.05, (next_due - now) / 1e6))
        return seconds


_WANT_OF = {
    Scope.ENTRY: Want.CONTENT,
    Scope.TREE: Want.TREE,
    Scope.LISTING: Want.LISTING | Want.ATTRIBUTES,
}
