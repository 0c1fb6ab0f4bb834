"""The Syncer of one Node: reads what is pending, has it delivered, then records how far it came.

One `tick()` is one unit of work. Everything it decides on is in state.db and
the Journals, so that a killed Syncer goes on where the record says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable, Sequence

from shardsync.clock import Clock
from shardsync.config.settings import NodeSettings, SyncSettings
from shardsync.errors import StateUnusable
from shardsync.journal.records import BatchRecord, Cursor, NodeRow, Work
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import NodeState
from shardsync.ship.backlog import Backlog, Slice, SliceSize
from shardsync.ship.big_files import BigFiles
from shardsync.ship.comparing import Comparing
from shardsync.ship.condition import NodeCondition
from shardsync.ship.deletions import DeletionBudget, TooManyDeletions
from shardsync.ship.delivery import Delivery
from shardsync.ship.first_contact import FirstContact
from shardsync.ship.fold import Pending, join, rebase
from shardsync.ship.journals import TreeJournals
from shardsync.ship.links import HardLinks
from shardsync.ship.observer import ShipObserver
from shardsync.ship.open_work import OpenWork
from shardsync.ship.settling import Held, Settling, due_now
from shardsync.ship.shipping import NodeTrouble, RootLost
from shardsync.ship.slots import NodeSlots
from shardsync.ship.tick import IDLE_SECONDS, Did, Tick

_WATCHED_SECONDS = 0.2
_HALF_SECONDS = 0.15
"""Watchers commit within 50 ms; the second half of a rename, or the next, is worth the wait."""


class Syncer:
    """Keeps one Node in step. The only one that moves the Node's Cursors."""

    def __init__(
        self,
        *,
        node: NodeSettings,
        journals: TreeJournals,
        backlog: Backlog,
        slots: NodeSlots,
        state: StateWriter,
        delivery: Delivery,
        comparing: Comparing,
        first_contact: FirstContact,
        links: HardLinks,
        budget: DeletionBudget,
        big_files: BigFiles,
        limits: SyncSettings,
        observer: ShipObserver,
        clock: Clock,
        log: Log,
    ) -> None:
        self._node = node
        self._journals = journals
        self._backlog = backlog
        self._slots = slots
        self._state = state
        self._delivery = delivery
        self._first_contact = first_contact
        self._budget = budget
        self._big_files = big_files
        self._limits = limits
        self._observer = observer
        self._clock = clock
        self._log = log
        self._measured_from_us = 0
        self._is_works_turn = False
        self._size = SliceSize(most=limits.batch_paths)
        self._news = asyncio.Event()
        self._hurried = asyncio.Event()
        self._settling = Settling(
            key=node.key,
            subtree=os.fsencode(node.subtree),
            journals=journals,
            state=state.read,
            limits=limits,
            clock=clock,
        )
        self._condition = NodeCondition(
            key=node.key,
            state=state,
            first_contact=first_contact,
            budget=budget,
            observer=observer,
            clock=clock,
            log=log,
        )
        self._open_work = OpenWork(
            key=node.key,
            state=state,
            delivery=delivery,
            comparing=comparing,
            links=links,
            big_files=big_files,
            budget=budget,
            has_news=self._news.is_set,
            clock=clock,
            log=log,
        )
        big_files.tell(self._big_file_done)

    @property
    def key(self) -> tuple[str, str]:
        """(tree, name)."""
        return self._node.key

    def wake(self) -> None:
        """There is news: tick again soon."""
        self._news.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Tick until told to stop; the tick under way is finished first.

        A Node that backs off is tried at once after a stop that somebody asked for: what kept it
        away may be mended. A process that dies, and is started again, keeps its distance.
        """
        self._state.know_node(self.key)
        try:
            while not stopping.is_set():
                self._news.clear()
                self._hurried.clear()
                tick = await self.tick()
                if not self._settling.is_hurried:
                    await _await(self._hurried, self._settling.pace_seconds)
                await _await(self._news, tick.wait_seconds)
            with contextlib.suppress(StateUnusable):
                self._state.set_node(self.key, not_before=0)
        finally:
            await self._big_files.stop()

    def hurry(self) -> None:
        """Ship what is still settling too, and try what backs off now: a flush waits for it."""
        self._settling.hurry()
        self._state.set_retry_due(self.key)
        self._hurried.set()
        self.wake()

    def replay(self) -> None:
        """Cursors were set back: what is shipped again was on the Node, and has no latency."""
        self._measured_from_us = self._clock.wall_us()
        self.wake()

    async def tick(self) -> Tick:
        """Do one unit of work: first contact, one Batch, or one piece of open work.

        Crash safety: Cursors and work rows are written in one transaction after
        rsync succeeded; a crash in between ships the same again.
        """
        row = self._state.know_node(self.key)
        waiting = self._condition.must_wait(row)
        if waiting is not None:
            if row.paused or row.halted:
                await self._big_files.stop()
            return waiting
        try:
            return await self._work(row)
        except NodeTrouble as error:
            return self._condition.back_off(row, error)
        except TooManyDeletions as error:
            return self._condition.halt(error)
        except (RootLost, OSError) as error:
            # An OSError: what is looked at here is the Tree alone, its root or a subtree of it.
            await self._big_files.stop()
            return self._condition.wait_for_root(error)
        except StateUnusable as error:
            if self._state.is_at_fault(error):
                raise
            self._condition.say("node.state_unusable", error)
            return Tick(did=Did.FAILED, wait_seconds=IDLE_SECONDS, error=str(error))

    async def _work(self, row: NodeRow) -> Tick:
        self._first_contact.ask()
        self._first_contact.check_root()
        row = self._condition.resumed(row)
        if self._first_contact.adapt(row):
            return Tick(did=Did.CONTACTED)
        if not row.contacted:
            return await self._contact()
        await self._meet_again(row)
        cursors = self._led_on(self._state.read.cursors(self.key))
        if isinstance(cursors, Tick):
            return cursors
        self._big_files.tend()
        return await self._advance(row, cursors)

    async def _advance(self, row: NodeRow, cursors: dict[str, Cursor]) -> Tick:
        """One Batch of what is pending, or of the open work that is due; else rest."""
        if self._slots.is_free or not self._journals.has_after(cursors):
            return await self._advance_now(row, cursors)
        # What is read now would be little, and old, by the time that it is this Node's turn.
        async with self._slots.ahead():
            row = self._state.know_node(self.key)
            waiting = self._condition.must_wait(row)
            if waiting is not None:
                return waiting
            # A Journal may have been pruned beyond them, or be another one, since.
            led = self._led_on(self._state.read.cursors(self.key))
            return led if isinstance(led, Tick) else await self._advance_now(row, led)

    async def _advance_now(self, row: NodeRow, cursors: dict[str, Cursor]) -> Tick:
        unread, held = await self._next_slice(cursors, row.allow_delete)
        # In turn, so that neither a steady stream of Changes nor a long reconcile starves the
        # other.
        due = self._open_work.due() if self._is_works_turn or not unread.pending else []
        self._is_works_turn = bool(unread.pending) and not due
        if due:
            # It may have been opened since the row was read: by an adoption, and counts as owned.
            return await self._ship_work(self._state.know_node(self.key), due)
        if unread.pending:
            return await self._ship(row, cursors, unread, held)
        if unread.cursors:
            self._state.record(
                self.key,
                BatchRecord(
                    cursors=self._not_set_back(cursors, unread),
                    work_added=self._kept(held),
                    work_done=held.done,
                ),
            )
        if held.added:
            return Tick(did=Did.WORKED)
        return self._rest(row, cursors, unread)

    def _other_half_may_come(self, unread: Slice) -> bool:
        """Whether a rename is so new that what came of it may not be journaled yet."""
        if not unread.pending:
            return False
        age_us = self._clock.wall_us() - unread.newest
        is_fresh = 0 <= age_us < _HALF_SECONDS * 1_000_000
        # What ended the last try is newer than all that is pending.
        return (is_fresh or self._condition.looks_again) and self._delivery.is_half_told(
            unread.pending, in_several=len(self._journals.shard_ids()) > 1
        )

    async def _meet_again(self, row: NodeRow) -> None:
        """Whatever the outage was, of the Node or ours, it may be another machine by now.

        So it may be without one that we know of, if its target is another folder.
        """
        if row.attempts or await self._first_contact.is_other():
            await self._first_contact.look_again()
        else:
            await self._first_contact.glance()
            await self._first_contact.judge()
        if row.attempts:
            self._condition.reached(row)

    def _rest(self, row: NodeRow, cursors: dict[str, Cursor], unread: Slice) -> Tick:
        """Nothing is to be done now: keep the record in order."""
        self._state.note_history(self.key, cursors)
        self._condition.end_allowance(row)
        if row.state is NodeState.HALTED:
            self._state.set_node(self.key, last_error="")
        self._condition.settle(row)
        return Tick(did=Did.NOTHING, wait_seconds=self._idle_seconds(unread))

    async def _ship_work(self, row: NodeRow, due: Sequence[Work]) -> Tick:
        began = self._clock.monotonic()
        sweep = self._condition.may_be_left(min(item.since for item in due))
        delivered = await self._open_work.ship(row, due, sweep=sweep)
        self._condition.succeeded(row, delivered, began)
        if await self._first_contact.is_other(named={item.path for item in due}):
            self.wake()
        return Tick(did=Did.WORKED, paths=len(due))

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
            self._condition.wait_until("all of the tree is watched")
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

    async def _next_slice(
        self, cursors: dict[str, Cursor], allowed_until: int
    ) -> tuple[Slice, Held]:
        """What is pending and at rest, with what is held back of it.

        First of all, and apart, that for which deletions were allowed.
        """
        if allowed_until:
            allowed = await self._read_slice(cursors, range(allowed_until + 1, sys.maxsize))
            if allowed.pending:
                return allowed, Held()
        young = self._settling.young(cursors)
        part = await self._read_slice(cursors, young)
        if young is None or not part.pending:
            return part, Held()
        if self._settling.tells_more(part) and self._delivery.is_half_told(part.pending):
            return Slice(held_until=part.held_until), Held()
        return part, await self._settling.hold(part, cursors, young)

    async def _read_slice(self, cursors: dict[str, Cursor], young: range | None) -> Slice:
        most = self._size.paths
        again = self._condition.looks_again
        found = await self._backlog.read(cursors, max_paths=most, young=young, anew=again)
        if self._other_half_may_come(found):
            await asyncio.sleep(_HALF_SECONDS)
            found = await self._backlog.read(cursors, max_paths=most, young=young, anew=True)
        return found

    def _not_set_back(self, before: dict[str, Cursor], unread: Slice) -> dict[str, Cursor]:
        """The Cursors to record, less those that a replay set back meanwhile: that holds."""
        standing = self._state.read.cursors(self.key)
        return {
            shard: cursor
            for shard, cursor in unread.cursors.items()
            if standing.get(shard) == before.get(shard)
        }

    def _kept(self, held: Held) -> list[Work]:
        """The rows of what is held; due at once where a flush began to wait for them meanwhile."""
        return due_now(held.added) if self._settling.is_hurried else held.added

    async def _ship(
        self, row: NodeRow, before: dict[str, Cursor], unread: Slice, held: Held
    ) -> Tick:
        began = self._clock.monotonic()
        pending = self._rebased(unread.pending.values())
        try:
            delivered = await self._delivery.deliver(
                pending,
                plans=unread.plans,
                owned=bool(row.owned),
                allow_delete=unread.newest <= row.allow_delete,
                sweep=self._condition.may_be_left(unread.oldest),
                big_bytes=self._limits.big_file_bytes,
                room_first=self._condition.lacks_room,
            )
        except BaseException:
            # Whatever it was: what is tried again, by whomever, is looked at again.
            unread.plans.clear()
            raise
        now = self._clock.wall_us()
        self._size.note(paths=len(pending), seconds=self._clock.monotonic() - began)
        by_path = {item.path: item for item in pending}
        # A flush that waits for this Batch waits for the look, too, from before it counts.
        if await self._first_contact.is_other(named=by_path.keys() - {b""}):
            self.wake()
        left = self._open_work.left_by(delivered, by_path)
        left += self._big_files.set_aside(delivered.set_aside, by_path)
        shipped = unread.observed_at
        if delivered.set_aside:
            shipped = shipped[:]
            for path in delivered.set_aside.keys() & by_path.keys():
                # What was held until it came to rest is older than any Change that was read.
                if by_path[path].since in shipped:
                    shipped.remove(by_path[path].since)
        self._state.record(
            self.key,
            BatchRecord(
                cursors=self._not_set_back(before, unread),
                work_added=left + self._kept(held),
                work_done=held.done,
                deleted_entries=self._budget.take_deleted(),
                finished_at=now,
            ),
        )
        self._condition.succeeded(row, delivered, began)
        self._observer.changes_shipped(
            self.key,
            (
                (now - observed_at) / 1e6
                for observed_at in shipped
                if observed_at >= self._measured_from_us
            ),
        )
        return Tick(did=Did.SHIPPED, paths=len(pending))

    def _rebased(self, pending: Iterable[Pending]) -> list[Pending]:
        subtree = os.fsencode(self._node.subtree)
        if not subtree:
            return list(pending)
        found: dict[bytes, Pending] = {}
        for item in pending:
            moved = rebase(item.path, item.want, subtree)
            if moved is not None:
                origin = item.moved_from and rebase(item.moved_from, item.want, subtree)
                seen = Pending(
                    path=moved[0],
                    want=moved[1],
                    since=item.since,
                    moved_from=origin[0] if origin else None,
                )
                join(found, seen)
        return list(found.values())

    def _big_file_done(self, is_clean: bool) -> None:  # noqa: FBT001 (a callback's one argument)
        if not is_clean:
            self._condition.note_cut_off()
        self.wake()

    def _idle_seconds(self, unread: Slice) -> float:
        now = self._clock.wall_us()
        seconds = IDLE_SECONDS
        due_in = self._settling.due_in_seconds(unread)
        if due_in is not None:
            seconds = min(seconds, max(0.01, due_in))
        next_due = self._state.read.next_due(self.key, now_us=now)
        if next_due is not None:
            seconds = min(seconds, max(0.05, (next_due - now) / 1e6))
        return seconds


async def _await(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, so long at most; 0: not at all."""
    if seconds:
        with contextlib.suppress(TimeoutError):
            # Not wait_for, which makes a task and takes two turns of the loop more to wake up.
            async with asyncio.timeout(seconds):
                await event.wait()
