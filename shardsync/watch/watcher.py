"""The Watcher of one Shard: kernel queue in, Journal out; waits on nothing else.

One `tick` waits for events, reads, folds, scans a little, commits. Whatever
was missed (start, crash, overflow, a lost root or Journal) is answered by a
new Epoch and a catch-up scan from the Watermark while events go on arriving.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from dataclasses import dataclass

from shardsync.clock import Clock
from shardsync.errors import StateUnusable
from shardsync.failpoints import Point, reach
from shardsync.inotify import Inotify, decode, emptied_the_queue
from shardsync.journal.plan import Origin, PlannedShard
from shardsync.journal.progress import Progress
from shardsync.journal.recent import TICK_US
from shardsync.journal.writer import JournalWriter, Opened
from shardsync.log import Log
from shardsync.model import EpochReason, ShardState
from shardsync.watch.beside import Beside
from shardsync.watch.catching_up import CatchingUp
from shardsync.watch.committing import COMMIT_SECONDS, Committing
from shardsync.watch.cookies import Cookies
from shardsync.watch.events import Fold, Stamp
from shardsync.watch.forgetting import Forgetting
from shardsync.watch.gathered import Gathered
from shardsync.watch.leaving import Leaving
from shardsync.watch.ledger import Ledger
from shardsync.watch.mount_points import MountPoints
from shardsync.watch.mounts import MountsBelow
from shardsync.watch.pending import PendingFiles
from shardsync.watch.polling import Polling
from shardsync.watch.prefixes import Prefixes
from shardsync.watch.root import WatchedRoot
from shardsync.watch.scan import Scanner
from shardsync.watch.standing import Standing
from shardsync.watch.territory import Territory
from shardsync.watch.unclosed import Unclosed

HEARTBEAT_SECONDS = 10.0
LOOK_SECONDS = 1.0
PRUNE_SECONDS = 60.0
PRUNE_AGAIN_SECONDS = 0.5
_TICK_SECONDS = (TICK_US + 1_000) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What one tick did. `idle`: nothing is left to do until something happens."""

    events: int = 0
    changes: int = 0
    state: ShardState = ShardState.STARTING
    overflowed: bool = False
    plan_changed: bool = False
    idle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What the Journal keeps."""

    seconds: float
    max_bytes: int


class Watcher:
    """Call `start`, then `tick` for ever, then `stop`."""

    def __init__(
        self,
        *,
        shard: PlannedShard,
        generation: int,
        inotify: Inotify,
        cookies: Cookies,
        fold: Fold,
        gathered: Gathered,
        pending: PendingFiles,
        beside: Beside,
        unclosed: Unclosed,
        scanner: Scanner,
        territory: Territory,
        leaving: Leaving,
        mount_points: MountPoints,
        ledger: Ledger,
        standing: Standing,
        forgetting: Forgetting,
        polling: Polling,
        catching_up: CatchingUp,
        root: WatchedRoot,
        committing: Committing,
        mounts: MountsBelow,
        reopen: Callable[[], JournalWriter],
        retention: Retention,
        clock: Clock,
        log: Log,
        wake_fd: int | None = None,
    ) -> None:
        self.shard = shard
        self._generation = generation
        self._inotify = inotify
        self._cookies = cookies
        self._fold = fold
        self._gathered = gathered
        self._pending = pending
        self._beside = beside
        self._unclosed = unclosed
        self._scanner = scanner
        self._territory = territory
        self._leaving = leaving
        self._mount_points = mount_points
        self._ledger = ledger
        self._standing = standing
        self._forgetting = forgetting
        self._polling = polling
        self._catching_up = catching_up
        self._root = root
        self._committing = committing
        self._mounts = mounts
        self._reopen = reopen
        self._retention = retention
        self._clock = clock
        self._log = log
        self._wake_fd = wake_fd
        self._poller = select.poll()
        self._last_heartbeat = -HEARTBEAT_SECONDS
        self._last_look = 0.0
        self._last_prune = 0.0

    @property
    def state(self) -> ShardState:
        """As `status` shows it."""
        return self._standing.state

    def start(self) -> None:
        """Begin an Epoch and the catch-up from the Watermark. Raises StateUnusable.

        Crash safety: the Watermark is on disk before the first Node may rely
        on being told of what happens from now on.
        """
        self._poller.register(self._inotify.fd, select.POLLIN)
        if self._wake_fd is not None:
            self._poller.register(self._wake_fd, select.POLLIN)
        progress = self._ledger.journal.progress()
        now_us = self._clock.wall_us()
        first = not progress.scanned and self.shard.since_us is None
        since = (None if first else progress.watermark_us) or self.shard.since_us or now_us
        self._catching_up.remembers = progress.scanned
        self._standing.watermark_us = self._standing.committed_us = since
        self._ledger.overflows = progress.overflows
        self._catching_up.total = self._expected(progress)
        reason = self._reason(clean=progress.clean_stop, first=progress.watermark_us is None)
        why_compare = self._ledger.why_compare(progress, since_us=since)
        if progress.scanned and progress.watermark_us is None and self.shard.since_us is None:
            why_compare = "the Watermark was lost"
        remounted = self._mounts.start(
            progress.mounts, same_boot=self._ledger.is_same_boot(progress)
        )
        self._poller.register(self._mounts.fd, select.POLLPRI)
        if progress.clean_stop:
            self._catching_up.looked_from_us = self._ledger.journal.epoch_started_at()
        self._ledger.begin_epoch(reason)
        self._ledger.commit(
            {
                "watermark_us": since,
                "pid": os.getpid(),
                "generation": self._generation,
                "state": ShardState.SCANNING.value,
                **self._ledger.clock_columns(),
            }
        )
        self._log.info("epoch.began", reason=reason.value, first=first)
        for point in remounted:
            self._mount_points.journal_mount(point)
        if why_compare:
            self._catching_up.compare(why_compare)
        if not self._root.is_there_at_start():
            return
        clean = progress.clean_stop and not why_compare
        self._catching_up.begin(since, first=first, explained_until_us=since if clean else 0)

    def tick(self, timeout: float = 1.0) -> Tick:
        """Wait at most `timeout` seconds for something to do, and do it.

        Crash safety: what was read and not committed is found again by the
        catch-up, for the Watermark is committed with the Changes before it.
        """
        self._poller.poll(1000 * self._wait_seconds(timeout))
        now = self._clock.monotonic()
        events = self._read(now)
        overflowed = self._catching_up.answer_overflow()
        self._mounts.tick()
        self._catching_up.step()
        self._catching_up.forget()
        self._unclosed.tick(now)
        self._look_around(now)
        changes = self._committing.commit_if_due(now)
        plan_changed = self._cookies.take_plan_change()
        return Tick(
            events=events,
            changes=changes,
            state=self.state,
            overflowed=overflowed,
            plan_changed=plan_changed,
            idle=not events and not changes and self._committing.is_quiet(),
        )

    def follow(self, shard: PlannedShard, *, generation: int, prefixes: Prefixes) -> None:
        """Own what this Plan says from now on."""
        self.shard = shard
        self._generation = generation
        self._territory.follow(prefixes)
        reach(Point.WATCH_PLAN_TAKEN)
        self._ledger.commit({"generation": generation})

    def take_settings(self, retention: Retention, *, mark: str) -> None:
        """Keep that much from now on. `mark`: of the settings that are run, for all to read."""
        self._retention = retention
        self._ledger.commit({"settings": mark})

    def stop(self, seconds: float = 10.0) -> bool:
        """Drain what happened before now, commit, end the Epoch. Returns whether that was clean.

        Crash safety: the mark of a clean stop is written with the Watermark
        that it promises, in one transaction; the next start clears it.
        """
        deadline = self._clock.monotonic() + seconds
        if self._wake_fd is not None:
            # It stays readable by what asked for this stop, and no tick would wait any more.
            self._poller.unregister(self._wake_fd)
        self._let_a_tick_pass()
        touched_us = self._clock.wall_us()
        clean = self._cookies.touch_stop()
        while clean and not (self._cookies.stop_seen and self._committing.is_quiet()):
            self.tick(0.02)
            clean = self._clock.monotonic() < deadline and not self._standing.must_catch_up()
        self.tick(0.02)  # an event may be queued a moment after its change has its time
        clean = clean and self._standing.watermark_us is not None
        self._committing.gather_pending()
        columns: dict[str, object] = {"state": ShardState.STOPPED.value, "pid": 0}
        if clean:
            limit = self._standing.polled_us if self._standing.has_unwatched else None
            columns["watermark_us"] = min(touched_us, limit or touched_us)
            columns["clean_stop"] = 1
        written = self._ledger.commit({**columns, **self._ledger.clock_columns()})
        reach(Point.WATCH_STOPPING)
        if written is not None:
            self._ledger.end_epoch()
        self._inotify.close()
        self._mounts.close()
        self._scanner.agenda.abandon()
        self._ledger.close()
        self._log.info("watcher.stopped", clean=clean and written is not None)
        return clean and written is not None

    def _let_a_tick_pass(self) -> None:
        """Have the Watermark of a stop so far behind what came before it that it hides no doubt.

        The next start would journal again what changed within TICK_US before it.
        """
        until = self._clock.monotonic() + _TICK_SECONDS
        while (left := until - self._clock.monotonic()) > 0:
            self.tick(left)

    # Reading.

    def _read(self, now: float) -> int:
        """Read and fold until the queue is empty, or a commit is due."""
        total = 0
        standing = self._standing
        deadline = now + COMMIT_SECONDS
        while True:
            before_us = self._clock.wall_us()
            buffer = self._inotify.read()
            standing.drained = emptied_the_queue(buffer)
            if buffer:
                reach(Point.WATCH_READ)
                events = decode(buffer)
                total += len(events)
                self._ledger.observed_us = self._clock.wall_us()
                # What it tells of happened after all that was read before.
                stamp: Stamp = (self._clock.monotonic(), standing.drained_us or before_us)
                self._fold.fold(events, stamp)
                self._take_cookies()
            if standing.drained and not self._fold.overflowed:
                standing.drained_us = before_us
                self._scanner.overlaps = self._scanner.is_open
            if standing.drained or self._fold.overflowed or self._clock.monotonic() >= deadline:
                return total

    def _take_cookies(self) -> None:
        for name in self._fold.cookies:
            touched_us = self._cookies.see(name)
            # Behind an overflow it says nothing of what was before it: some of that was dropped.
            if touched_us is not None and not self._fold.overflowed:
                self._standing.drained_us = max(self._standing.drained_us, touched_us)
        self._fold.cookies.clear()

    # Once in a while.

    def _look_around(self, now: float) -> None:
        if self._territory.tops.has_news or now - self._last_look >= LOOK_SECONDS:
            self._last_look = now
            self._root.look()
            self._leaving.look_for_outside()
        if self._standing.drained and not self._fold.unpaired and not self._scanner.is_open:
            self._leaving.give_up_outside()
        self._polling.poll(now)
        if now - self._last_heartbeat >= HEARTBEAT_SECONDS:
            self._last_heartbeat = now
            self._cookies.touch_heartbeat()
            self._ledger.commit_wanted = True
            self._look_at_journal()
        if now - self._last_prune >= PRUNE_SECONDS:
            keep_us = int(self._retention.seconds * 1e6)
            dropped = self._ledger.prune(
                before_us=self._clock.wall_us() - keep_us, max_bytes=self._retention.max_bytes
            )
            # A slice a minute would be fewer than a busy Tree's Changes: the next one soon.
            self._last_prune = now - (PRUNE_SECONDS - PRUNE_AGAIN_SECONDS if dropped else 0.0)
        if self._cookies.list_again and not self._scanner.is_open:
            self._cookies.list_again = False
            self._cookies.touch_unanswered()

    def _look_at_journal(self) -> None:
        damaged = self._ledger.is_damaged or (
            self._cookies.take_doubt() and not self._ledger.journal.is_sound()
        )
        if self._ledger.is_in_place() and not damaged:
            return
        event = "journal.damaged" if damaged else "journal.lost"
        self._log.error(event, path=str(self._ledger.journal.path))
        try:
            if damaged:
                self._ledger.set_aside()
            journal = self._reopen()
        except StateUnusable as error:
            self._log.error("journal.unusable", error=error)
            return
        self._ledger.replace(journal)
        self._cookies.answers_lost()
        self._scanner.sub_roots.forget()
        self._catching_up.new_epoch(EpochReason.JOURNAL_LOST, self._clock.wall_us(), first=True)

    def _wait_seconds(self, timeout: float) -> float:
        standing = self._standing
        if not standing.drained or self._polling.wanted or self._has_more_to_do():
            return 0.0
        now = self._clock.monotonic()
        waits = [timeout, self._last_look + LOOK_SECONDS - now]
        pending = self._pending.wait_seconds(self._fold.fresh, now)
        waits += [
            until for until in (pending, self._beside.wait_seconds(now)) if until is not None
        ]
        return max(0.0, min(waits))

    def _has_more_to_do(self) -> bool:
        """Whether what was begun goes on in the next tick."""
        giving_up = self._leaving.is_giving_up and not self._fold.unpaired
        return self._scanner.is_open or self._forgetting.is_open or giving_up

    def _expected(self, progress: Progress) -> int:
        """How many directories the first pass will find: as many as before, or as planned."""
        before = progress.directories
        if progress.state is ShardState.SCANNING:  # it was cut off, and had not seen them all
            before = max(before, progress.scan_total)
        return before or self.shard.directories

    def _reason(self, *, clean: bool, first: bool) -> EpochReason:
        if not first:
            return EpochReason.RESTART if clean else EpochReason.CRASH
        if self.shard.made_by is Origin.REPLAN:
            return EpochReason.REPLAN
        made = self._ledger.journal.opened is not Opened.EXISTING
        known = self.shard.journal_id
        lost = made and bool(known) and self._ledger.journal.journal_id != known
        return EpochReason.JOURNAL_LOST if lost else EpochReason.FIRST_START
