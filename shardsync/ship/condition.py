"""How one Node stands: following, waiting, halted; set here after each unit of work, and stored.

It decides whether the Syncer may work at all now, and what a failure leads to.
"""

from __future__ import annotations

from shardsync.clock import Clock
from shardsync.escape import printable
from shardsync.journal.records import BatchRecord, NodeKey, NodeRow, WorkReason
from shardsync.journal.state_writer import StateWriter
from shardsync.log import ChangeOnly, Log
from shardsync.model import NodeState
from shardsync.ship.backoff import Backoff
from shardsync.ship.deletions import DeletionBudget, TooManyDeletions
from shardsync.ship.first_contact import FirstContact
from shardsync.ship.observer import BatchOutcome, ShipObserver
from shardsync.ship.outcome import Trouble
from shardsync.ship.shipping import Delivered, NodeTrouble, RootLost
from shardsync.ship.tick import IDLE_SECONDS, Did, Tick

_BACKOFF = Backoff(first=1.0, longest=60.0)
_ROOT_LOST_SECONDS = 2.0
_STALE_AT_MOST = 5
_STALE_SECONDS = 0.05


class NodeCondition:
    """Reads and writes the Node's row. One per Node, used by its Syncer alone."""

    def __init__(
        self,
        *,
        key: NodeKey,
        state: StateWriter,
        first_contact: FirstContact,
        budget: DeletionBudget,
        observer: ShipObserver,
        clock: Clock,
        log: Log,
    ) -> None:
        self._key = key
        self._state = state
        self._first_contact = first_contact
        self._budget = budget
        self._observer = observer
        self._clock = clock
        self._log = log
        self._said = ChangeOnly(clock=clock)
        # What was pending then may have been sent by an rsync that was killed.
        self._unswept_until = clock.wall_us()
        self._stale = 0
        self.looks_again = False
        """Whether the last try ended because the Tree moved under its list."""

        self.lacks_room = False
        """Whether the Node was too full for a Batch, and had none since that was not."""

    def must_wait(self, row: NodeRow) -> Tick | None:
        """A Tick where nothing may be sent now: paused, halted, backing off."""
        now = self._clock.wall_us()
        if row.paused:
            if row.paused_until is None or now < row.paused_until:
                self._set_state(row, NodeState.PAUSED)
                return Tick(did=Did.NOTHING, wait_seconds=IDLE_SECONDS)
            self._state.set_node(self._key, paused=0, paused_until=None)
        if row.halted:
            self._set_state(row, NodeState.HALTED)
            return Tick(did=Did.NOTHING, wait_seconds=IDLE_SECONDS)
        # A clock that was set back must not make a Node wait longer than its longest back-off.
        wait = min((row.not_before - now) / 1e6, 1.5 * _BACKOFF.longest)
        if row.attempts and wait > 0:
            return Tick(did=Did.NOTHING, wait_seconds=wait)
        return None

    def resumed(self, row: NodeRow) -> NodeRow:
        """A Node whose pause is over is not paused, however long its first Batch takes."""
        if row.state is not NodeState.PAUSED:
            return row
        if row.attempts:
            self._set_state(row, NodeState.BACKING_OFF)
        elif row.contacted:
            self.settle(row)
        else:
            self._set_state(row, NodeState.BOOTSTRAPPING)
        return self._state.know_node(self._key)

    def back_off(self, row: NodeRow, error: NodeTrouble) -> Tick:
        """Nothing of a run counts: wait, longer each time, and try the same again."""
        self._note_deleted()
        self._unswept_until = self._clock.wall_us()
        self._stale += error.trouble is Trouble.STALE
        # How often for a directory that is renamed on and on, who moves it decides (ship.moving).
        is_moved_on = error.trouble is Trouble.MOVED_ON
        self.looks_again = is_moved_on or (
            error.trouble is Trouble.STALE and self._stale <= _STALE_AT_MOST
        )
        if self.looks_again:
            # The Tree moved under the list, the Node is well: another look makes another list.
            self._log.info("batch.stale", error=error)
            return Tick(did=Did.FAILED, wait_seconds=_STALE_SECONDS, error=str(error))
        self.lacks_room |= error.trouble is Trouble.DISK_FULL
        attempts = row.attempts + 1
        delay_us = _BACKOFF.delay_us(attempts)
        self._state.set_node(
            self._key,
            state=NodeState.BACKING_OFF.value,
            attempts=attempts,
            not_before=self._clock.wall_us() + delay_us,
            last_error=str(error),
        )
        self.say("node.failed", error, attempts=attempts, retry_seconds=delay_us / 1e6)
        self._observer.batch_finished(self._key, BatchOutcome.FAILED, seconds=0.0)
        return Tick(did=Did.FAILED, wait_seconds=delay_us / 1e6, error=str(error))

    def halt(self, error: TooManyDeletions) -> Tick:
        """Too much is gone: nothing is sent until the operator allows it."""
        self._note_deleted()
        why = self._nameless(error)
        self._state.set_node(self._key, state=NodeState.HALTED.value, halted=why, last_error=why)
        self._log.error("node.halted", reason=error, remedy=error.remedy)
        self._observer.batch_finished(self._key, BatchOutcome.HALTED, seconds=0.0)
        return Tick(did=Did.HALTED, wait_seconds=IDLE_SECONDS, error=str(error))

    def wait_for_root(self, error: RootLost | OSError) -> Tick:
        """The Tree is not what it was: nothing is sent until its root is back."""
        self._note_deleted()
        self._state.set_node(
            self._key,
            state=NodeState.HALTED.value,
            last_error=f"nothing is sent: {self._nameless(error)}",
        )
        self.say("node.root_lost", error)
        return Tick(did=Did.HALTED, wait_seconds=_ROOT_LOST_SECONDS, error=str(error))

    def reached(self, row: NodeRow) -> None:
        """The Node answers again after an outage."""
        self._state.set_node(self._key, attempts=0, not_before=0, last_error="")
        self._said.reset()
        self._log.info("node.reached", after_attempts=row.attempts)

    def wait_until(self, what: str) -> None:
        """Tell, once in a while, what the Node waits for."""
        if self._said.is_due(what):
            self._log.info("node.waits", until=what)

    def succeeded(self, row: NodeRow, delivered: Delivered, began: float) -> None:
        """A Batch is recorded, whatever paths of it failed alone. `began`: monotonic."""
        self._stale = 0
        self.looks_again = self.lacks_room = False
        seconds = self._clock.monotonic() - began
        values: dict[str, object] = {"last_success": self._clock.wall_us()}
        if row.attempts or row.last_error:
            values |= {"attempts": 0, "not_before": 0, "last_error": ""}
        if delivered.failed:
            path, failed = next(iter(delivered.failed.items()))
            values["last_error"] = f"{printable(path)}: {failed.reason}"
        self._state.set_node(self._key, **values)
        if delivered.foreign or delivered.unlisted:
            self._state.foreign.add(self._key, delivered.foreign, unlisted=delivered.unlisted)
        self._said.reset()
        self.settle(row)
        self._observer.batch_finished(
            self._key,
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

    def settle(self, row: NodeRow) -> None:
        """Set the state that follows from what is open."""
        reasons = self._state.read.work_reasons(self._key)
        state = NodeState.FOLLOWING
        if WorkReason.BOOTSTRAP in reasons:
            state = NodeState.BOOTSTRAPPING
        elif WorkReason.RECONCILE in reasons and row.state is NodeState.BEHIND_RETENTION:
            state = NodeState.BEHIND_RETENTION
        progress = self._first_contact.progress()
        if state is not row.state or progress != row.progress:
            if state is not row.state:
                self._log.info("node.state", was=row.state, now=state)
            self._state.set_node(self._key, state=state.value, progress=progress)

    def end_allowance(self, row: NodeRow) -> None:
        """What was pending at `--allow-delete` is done: later deletions are counted again."""
        since = self._state.read.work_summary(self._key)[2]
        if row.allow_delete and (since is None or since > row.allow_delete):
            self._state.set_node(self._key, allow_delete=0)

    def may_be_left(self, since: int) -> bool:
        """Whether what is pending since then may have been sent by an rsync that was killed.

        That is so for all that was pending when this process started, or when a run last failed.
        """
        return since <= self._unswept_until

    def note_cut_off(self) -> None:
        """A run was ended, or failed: it may have left a file of ours beside what is pending."""
        self._unswept_until = self._clock.wall_us()

    def _set_state(self, row: NodeRow, state: NodeState) -> None:
        if row.state is not state:
            self._state.set_node(self._key, state=state.value)
            self._log.info("node.state", was=row.state, now=state)

    def _nameless(self, error: Exception) -> str:
        """Words for the Node's own row, which everybody shows beside its name."""
        return str(error).removeprefix(f"node {self._key[1]}: ")

    def _note_deleted(self) -> None:
        """Keep count of what a Batch deleted before it failed."""
        deleted = self._budget.take_deleted()
        if deleted:
            self._state.record(self._key, BatchRecord(deleted_entries=deleted))

    def say(self, event: str, error: Exception, **fields: object) -> None:
        """Warn, once a minute where it is the same again."""
        if self._said.is_due(str(error)):
            self._log.warning(event, error=error, **fields)
