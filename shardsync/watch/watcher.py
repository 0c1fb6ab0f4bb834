"""The Watcher of one Shard: kernel queue in, Journal out; waits on nothing else.

One `tick` waits for events, reads, folds, scans a little, commits. Whatever
was missed (start, crash, overflow, a lost root or Journal) is answered by a
new Epoch and a catch-up scan from the Watermark while events go on arriving.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from shardsync.clock import Clock
from shardsync.errors import StateUnusable
from shardsync.inotify import Inotify, decode, emptied_the_queue
from shardsync.journal.plan import Origin, PlannedShard
from shardsync.journal.writer import JournalWriter, Opened
from shardsync.log import ChangeOnly, Log
from shardsync.model import EpochReason, ShardState
from shardsync.watch.cookies import Cookies
from shardsync.watch.directories import TOP
from shardsync.watch.events import Fold, Stamp
from shardsync.watch.gathered import Gathered
from shardsync.watch.guard import look_at
from shardsync.watch.ledger import Ledger
from shardsync.watch.pending import Look, PendingFiles, Probe
from shardsync.watch.prefixes import Prefixes
from shardsync.watch.scan import COARSE_US, Rule, Scanner
from shardsync.watch.territory import Territory

MARGIN_US = 5_000_000
"""A write(2) of gigabytes has its ctime at its start and its event at its end."""

COMMIT_SECONDS = 0.05
RETRY_SECONDS = 1.0
HEARTBEAT_SECONDS = 10.0
LOOK_SECONDS = 1.0
POLL_SECONDS = 60.0
PRUNE_SECONDS = 60.0
_SCAN_STEP_SECONDS = 0.02
_PAIR_SECONDS = 1.0
_SCAN_LOG_SECONDS = 5.0


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
        root: bytes,
        inotify: Inotify,
        cookies: Cookies,
        fold: Fold,
        gathered: Gathered,
        pending: PendingFiles,
        probe: Probe,
        scanner: Scanner,
        territory: Territory,
        ledger: Ledger,
        reopen: Callable[[], JournalWriter],
        retention: Retention,
        clock: Clock,
        log: Log,
        wake_fd: int | None = None,
    ) -> None:
        self.state = ShardState.STARTING
        self.shard = shard
        self._generation = generation
        self._root = root
        self._inotify = inotify
        self._cookies = cookies
        self._fold = fold
        self._gathered = gathered
        self._pending = pending
        self._probe = probe
        self._scanner = scanner
        self._territory = territory
        self._ledger = ledger
        self._reopen = reopen
        self._retention = retention
        self._clock = clock
        self._log = log
        self._wake_fd = wake_fd
        self._said = ChangeOnly(clock=clock)
        self._refused_said = ChangeOnly(clock=clock, repeat_seconds=3600.0)
        self._poller = select.poll()
        self._watermark_us: int | None = None
        self._committed_us = 0
        self._drained_us = 0
        self._drained = False
        self._pass_started_us = 0
        self._looked_from_us = 0
        self._again_since_us: int | None = None
        self._poll_started_us: int | None = None
        self._poll_wanted = False
        self._root_seen: tuple[int, int, str] | None = None
        self._last_commit = 0.0
        self._last_heartbeat = -HEARTBEAT_SECONDS
        self._last_look = 0.0
        self._last_poll = 0.0
        self._last_prune = 0.0
        self._last_scan_log = 0.0

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
        first = progress.watermark_us is None and self.shard.since_us is None
        since = progress.watermark_us or self.shard.since_us or now_us
        self._watermark_us = self._committed_us = since
        self._ledger.overflows = progress.overflows
        reason = self._reason(clean=progress.clean_stop, first=progress.watermark_us is None)
        why_compare = self._ledger.why_compare(progress, since_us=since)
        if progress.clean_stop:
            self._looked_from_us = self._ledger.journal.epoch_started_at()
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
        if not self._is_root_there():
            self._log.error("root.missing", root=self._root)
            self.state = ShardState.HALTED
            return
        clean = progress.clean_stop and not why_compare
        self._catch_up(since, first=first, explained_until_us=since if clean else 0)
        if why_compare:
            self._log.warning("tree.compared", why=why_compare)
            for prefix in self._territory.tops:
                self._gathered.tree(prefix)

    def tick(self, timeout: float = 1.0) -> Tick:
        """Wait at most `timeout` seconds for something to do, and do it.

        Crash safety: what was read and not committed is found again by the
        catch-up, for the Watermark is committed with the Changes before it.
        """
        self._poller.poll(1000 * self._wait_seconds(timeout))
        now = self._clock.monotonic()
        events = self._read(now)
        overflowed = self._answer_overflow()
        self._scan()
        self._pending_files(now)
        self._look_around(now)
        changes = self._commit_if_due(now)
        plan_changed = self._cookies.take_plan_change()
        return Tick(
            events=events,
            changes=changes,
            state=self.state,
            overflowed=overflowed,
            plan_changed=plan_changed,
            idle=not events and not changes and self._is_quiet(),
        )

    def follow(self, shard: PlannedShard, *, generation: int, prefixes: Prefixes) -> None:
        """Own what this Plan says from now on."""
        self.shard = shard
        self._generation = generation
        self._territory.follow(prefixes)
        self._ledger.commit({"generation": generation})

    def stop(self, seconds: float = 10.0) -> bool:
        """Drain what happened before now, commit, end the Epoch. Returns whether that was clean.

        Crash safety: the mark of a clean stop is written with the Watermark
        that it promises, in one transaction; the next start clears it.
        """
        deadline = self._clock.monotonic() + seconds
        touched_us = self._clock.wall_us()
        clean = self._cookies.touch_stop()
        while clean and not (self._cookies.stop_seen and self._is_quiet()):
            self.tick(0.02)
            clean = self._clock.monotonic() < deadline and not self._must_catch_up()
        self.tick(0.02)  # an event may be queued a moment after its change has its time
        clean = clean and self._watermark_us is not None
        for path in self._pending.all(self._fold.fresh):
            self._gathered.entry(path)
        columns: dict[str, object] = {"state": ShardState.STOPPED.value, "pid": 0}
        if clean:
            limit = self._poll_started_us if self._scanner.found.unwatched else None
            columns["watermark_us"] = min(touched_us, limit or touched_us)
            columns["clean_stop"] = 1
        written = self._ledger.commit({**columns, **self._ledger.clock_columns()})
        if written is not None:
            self._ledger.end_epoch()
        self._inotify.close()
        self._scanner.abandon()
        self._ledger.close()
        self._log.info("watcher.stopped", clean=clean and written is not None)
        return clean and written is not None

    # Reading.

    def _read(self, now: float) -> int:
        """Read and fold until the queue is empty, or a commit is due."""
        total = 0
        deadline = now + COMMIT_SECONDS
        while True:
            before_us = self._clock.wall_us()
            buffer = self._inotify.read()
            self._drained = emptied_the_queue(buffer)
            if buffer:
                events = decode(buffer)
                total += len(events)
                stamp: Stamp = (self._clock.monotonic(), self._clock.wall_us())
                self._ledger.observed_us = stamp[1]
                self._fold.fold(events, stamp)
                self._take_cookies()
            if self._drained and not self._fold.overflowed:
                self._drained_us = before_us
            if self._drained or self._fold.overflowed or self._clock.monotonic() >= deadline:
                return total

    def _take_cookies(self) -> None:
        for name in self._fold.cookies:
            touched_us = self._cookies.see(name)
            if touched_us is not None:
                self._drained_us = max(self._drained_us, touched_us)
        self._fold.cookies.clear()
        if self._cookies.flushes and self._scanner.found.unwatched:
            self._poll_wanted = True

    def _answer_overflow(self) -> bool:
        if not self._fold.overflowed:
            return False
        self._fold.overflowed = False
        self._ledger.overflows += 1
        since = self._safe_us()
        self._fold.unpaired.clear()
        self._cookies.list_again = True
        self._log.warning("queue.overflowed", scanning=self._territory.catching_up)
        if self._territory.catching_up:
            # One more pass when this one is through, however many overflows there are.
            self._again_since_us = self._pass_started_us
            return True
        self._ledger.commit({})
        self._ledger.begin_epoch(EpochReason.OVERFLOW)
        self._catch_up(since)
        return True

    # Scanning.

    def _catch_up(
        self, since_us: int, *, first: bool = False, explained_until_us: int = 0
    ) -> None:
        """Scan all for what changed since the Watermark, less what is journaled already."""
        self._pass_started_us = self._clock.wall_us()
        margin = COARSE_US if first else MARGIN_US
        # After a clean stop no event is missing, so what was there when the last Epoch's scan
        # began, and has not changed, is no news; a write that it overlapped was told by events.
        from_us = max(since_us - margin, min(since_us, self._looked_from_us) - COARSE_US)
        self._watermark_us = since_us
        self._scanner.recall({} if first else self._ledger.journaled_since(from_us))
        self._scanner.done = self._scanner.polled = 0
        self._poll_started_us = self._pass_started_us
        self._territory.begin_catch_up(
            Rule(
                since_us=from_us,
                unknown=first,
                whole=True,
                explained_until_us=explained_until_us,
            )
        )
        self.state = ShardState.SCANNING

    def _scan(self) -> None:
        if self.state is ShardState.HALTED:
            return
        if self._scanner.is_open:
            self._scanner.step(_SCAN_STEP_SECONDS)
        if self._drained and self._scanner.found.suspects:
            self._territory.look_at_suspects()
            if self._scanner.is_open:
                self._scanner.step(_SCAN_STEP_SECONDS)
        if self._scanner.is_open:
            self._say_how_far()
            return
        if not self._territory.catching_up:
            self._say_coverage()
        elif not self._territory.live_suspects():
            self._caught_up()

    def _caught_up(self) -> None:
        self._looked_from_us = 0
        self._territory.end_catch_up()
        if self._scanner.has_news and not self._scanner.found.unwatched:
            self._territory.forget_absent(self._ledger.remembered())
        self._scanner.has_news = False
        self._scanner.recall({})
        self._log.info(
            "scan.done",
            directories=self._scanner.done,
            seconds=(self._clock.wall_us() - self._pass_started_us) / 1e6,
        )
        if self._again_since_us is not None:
            since, self._again_since_us = self._again_since_us, None
            self._catch_up(since)
            return
        self._say_coverage()
        self._cookies.list_again = True
        self._last_poll = self._clock.monotonic()

    def _say_coverage(self) -> None:
        """Following where all is watched, polling where watches ran out."""
        unwatched = len(self._scanner.found.unwatched)
        state = ShardState.POLLING if unwatched else ShardState.FOLLOWING
        if state is self.state:
            return
        self.state = state
        if unwatched:
            self._log.warning(
                "watches.exhausted",
                polled=self._scanner.polled,
                remedy="raise fs.inotify.max_user_watches",
            )

    def _say_refused(self) -> None:
        """Directories that cannot be entered are tried again with each poll, and never silent."""
        refused = self._scanner.found.refused
        if refused:
            path, (_, why) = next(iter(refused.items()))
            if self._refused_said.is_due(f"{len(refused)} {path!r} {why}"):
                self._log.warning("directory.refused", count=len(refused), first=path, why=why)

    def _say_how_far(self) -> None:
        now = self._clock.monotonic()
        if now - self._last_scan_log >= _SCAN_LOG_SECONDS:
            self._last_scan_log = now
            self._log.info("scan.progress", directories=self._scanner.done)

    def _poll_unwatched(self, now: float) -> None:
        """Look at what cannot be watched; watch it if watches are to be had again."""
        unwatched, refused = self._scanner.found.unwatched, self._scanner.found.refused
        if not (unwatched or refused) or self._scanner.is_open or self._territory.catching_up:
            return
        if now - self._last_poll < POLL_SECONDS and not self._poll_wanted:
            return
        since = self._poll_started_us or self._clock.wall_us()
        self._poll_started_us = self._clock.wall_us()
        self._poll_wanted = False
        self._last_poll = now
        self._scanner.polled = 0
        tasks = [*unwatched.values(), *(task for task, _ in refused.values())]
        unwatched.clear()
        refused.clear()
        for task in tasks:
            folder = self._territory.path(task.parent) if task.parent != TOP else b""
            if folder is not None:
                path = folder + b"/" + task.name if folder else task.name
                rule = replace(
                    task.rule, since_us=since - MARGIN_US, unknown=False, whole=True,
                    everything=False, explained_until_us=0, watched=True,
                )  # fmt: skip
                self._scanner.begin(replace(task, path=path, rule=rule))

    # Files without a close.

    def _pending_files(self, now: float) -> None:
        for path in self._fold.created:
            if path in self._fold.fresh:
                self._look_at_new(path)
        self._fold.created.clear()
        appeared = self._scanner.found.appeared
        for path in appeared:
            if self._probe.look(path) is Look.DONE:
                self._gathered.entry(path)
            elif path not in self._pending.opened:
                self._fold.fresh[path] = (now, self._clock.wall_us())
        appeared.clear()
        for path in self._pending.due(self._fold.fresh, now):
            self._gathered.entry(path)
        self._fold.age(now - _PAIR_SECONDS)

    def _look_at_new(self, path: bytes) -> None:
        """Symlinks, fifos, devices and further names of a file never see a CLOSE_WRITE."""
        found = self._probe.kind(path)
        if found is None:
            return
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            del self._fold.fresh[path]
            self._gathered.entry(path)

    # Once in a while.

    def _look_around(self, now: float) -> None:
        if self._territory.prefix_came or now - self._last_look >= LOOK_SECONDS:
            self._last_look = now
            self._look_at_root()
            if self._drained and not self._fold.unpaired and not self._scanner.is_open:
                self._territory.give_up_outside()
        self._say_refused()
        self._poll_unwatched(now)
        if now - self._last_heartbeat >= HEARTBEAT_SECONDS:
            self._last_heartbeat = now
            self._cookies.touch_heartbeat()
            self._ledger.commit_wanted = True
            self._look_at_journal()
        if now - self._last_prune >= PRUNE_SECONDS:
            self._last_prune = now
            keep_us = int(self._retention.seconds * 1e6)
            self._ledger.prune(
                before_us=self._clock.wall_us() - keep_us, max_bytes=self._retention.max_bytes
            )
        if self._cookies.list_again and not self._scanner.is_open:
            self._cookies.list_again = False
            self._cookies.touch_unanswered()

    def _look_at_root(self) -> None:
        """The root missing, or an empty mount point in its place: halted until it is back."""
        if self._cookies.take_root_accepted():
            self._log.warning("root.accepted", root=self._root)
            self._root_seen = None
        if not self._is_root_there():
            if self.state is not ShardState.HALTED:
                self._log.error("root.lost", root=self._root)
                self.state = ShardState.HALTED
                self._scanner.abandon()
            return
        if self.state is ShardState.HALTED:
            self._log.info("root.back", root=self._root)
            self._ledger.commit({})
            self._ledger.begin_epoch(EpochReason.ROOT_LOST)
            self._catch_up(self._safe_us())
            return
        if not self._territory.catching_up:
            missing = self._territory.check_prefixes()
            if missing and self._said.is_due(repr(missing)):
                self._log.warning("prefix.missing", prefixes=b" ".join(missing))

    def _is_root_there(self) -> bool:
        found = look_at(self._root)
        if found is None:
            return False
        seen = self._root_seen
        if seen is None or (found.st_dev, found.st_ino) == seen[:2]:
            identity = seen[2] if seen else self._ledger.identify(found.st_dev)
            self._root_seen = (found.st_dev, found.st_ino, identity)
            return True
        identity = self._ledger.identify(found.st_dev)
        if identity != seen[2]:
            return False
        self._root_seen = (found.st_dev, found.st_ino, identity)
        if self.state not in {ShardState.HALTED, ShardState.STARTING}:
            self.state = ShardState.HALTED  # replaced, or mounted anew: catch up from scratch
        return True

    def _look_at_journal(self) -> None:
        if self._ledger.is_in_place():
            return
        self._log.error("journal.lost", path=str(self._ledger.journal.path))
        try:
            journal = self._reopen()
        except StateUnusable as error:
            self._log.error("journal.unusable", error=error)
            return
        self._ledger.replace(journal)
        self._ledger.begin_epoch(EpochReason.JOURNAL_LOST)
        self._cookies.answers_lost()
        self._scanner.sub_roots.clear()
        self._catch_up(self._clock.wall_us(), first=True)

    # Committing.

    def _commit_if_due(self, now: float) -> int:
        found = self._scanner.found
        self._ledger.directories += found.directories
        found.directories.clear()
        self._ledger.gone += self._territory.gone
        self._territory.gone.clear()
        flushes = self._answerable()
        wanted = (
            len(self._gathered) or flushes or self._ledger.commit_wanted
            or self._ledger.directories or self._ledger.gone or self.state != self._ledger.state
        )  # fmt: skip
        pause = RETRY_SECONDS if self._ledger.is_troubled else COMMIT_SECONDS
        soon = self._drained and not self._ledger.is_troubled
        if not wanted or not (soon or now - self._last_commit >= pause):
            return 0
        self._last_commit = now
        self._ledger.flushes = flushes
        written = self._ledger.commit(self._columns())
        if written is not None:
            self._cookies.answered(flushes)
        if written is not None and self._ledger.must_rescan:
            self._ledger.must_rescan = False
            self._ledger.begin_epoch(EpochReason.CRASH)
            self._catch_up(self._committed_us)
        elif written is not None:
            self._committed_us = self._watermark_us or self._committed_us
        return written or 0

    def _answerable(self) -> list[str]:
        """Flush cookies read by now, if all that came before them is on its way to the Journal."""
        if not self._cookies.flushes or not self._is_settled() or self._poll_wanted:
            return []
        # A prefix that was made anew tells the Shard of its parent, not this one.
        self._territory.check_prefixes()
        if not self._is_settled():
            return []
        for path in self._pending.all(self._fold.fresh):
            self._gathered.entry(path)
        return list(self._cookies.flushes)

    def _is_settled(self) -> bool:
        """Whether no scan is open or wanted."""
        return not (
            self._scanner.is_open
            or self._territory.catching_up
            or self._territory.live_suspects()
            or self.state is ShardState.HALTED
        )

    def _is_quiet(self) -> bool:
        return (
            self._drained
            and not self._fold.fresh
            and not self._ledger.is_troubled
            and not len(self._gathered)
            and self._is_settled()
            and not self._cookies.flushes
        )

    def _must_catch_up(self) -> bool:
        """Whether a stop now leaves something to find: it would not be a clean one."""
        return self._territory.catching_up or self.state is ShardState.HALTED

    def _safe_us(self) -> int:
        """The Watermark as of now: all that changed before is journaled or about to be."""
        bound = self._watermark_us or self._clock.wall_us()
        if not self._is_settled():
            return bound
        limits = [self._drained_us or bound]
        oldest = self._pending.oldest_us(self._fold.fresh)
        if oldest is not None:
            limits.append(oldest)
        limits += [departure.stamp[1] for departure in self._fold.unpaired.values()]
        if self._scanner.found.unwatched and self._poll_started_us is not None:
            limits.append(self._poll_started_us)
        return min(limits)

    def _columns(self) -> dict[str, object]:
        self._watermark_us = self._safe_us()
        self._ledger.state = self.state
        return {
            "state": self.state.value,
            "watermark_us": self._watermark_us,
            "scan_done": self._scanner.done,
            "polled_directories": self._scanner.polled if self._scanner.found.unwatched else 0,
        }

    def _wait_seconds(self, timeout: float) -> float:
        if self._scanner.is_open or not self._drained or self._poll_wanted:
            return 0.0
        now = self._clock.monotonic()
        waits = [timeout, self._last_look + LOOK_SECONDS - now]
        pending = self._pending.wait_seconds(self._fold.fresh, now)
        if pending is not None:
            waits.append(pending)
        return max(0.0, min(waits))

    def _reason(self, *, clean: bool, first: bool) -> EpochReason:
        if not first:
            return EpochReason.RESTART if clean else EpochReason.CRASH
        if self.shard.made_by is Origin.REPLAN:
            return EpochReason.REPLAN
        made = self._ledger.journal.opened is not Opened.EXISTING
        known = self.shard.journal_id
        lost = made and bool(known) and self._ledger.journal.journal_id != known
        return EpochReason.JOURNAL_LOST if lost else EpochReason.FIRST_START


def root_of(path: Path) -> bytes:
    """The root as the kernel knows it: a root that is a symlink is resolved once, at the start."""
    return os.path.realpath(os.fsencode(path))
