"""Passes over the whole territory: one after every gap, and again where one had a gap itself.

A pass finds what changed since the Watermark, less what is journaled already,
and binds every watch anew, while events go on arriving.
"""

from __future__ import annotations

from shardsync.clock import Clock
from shardsync.failpoints import Point, reach
from shardsync.log import Log
from shardsync.model import EpochReason, ShardState
from shardsync.watch.cookies import Cookies
from shardsync.watch.events import Fold
from shardsync.watch.forgetting import Forgetting
from shardsync.watch.gathered import Gathered
from shardsync.watch.ledger import Ledger
from shardsync.watch.polling import MARGIN_US, Polling
from shardsync.watch.recollection import Recollection
from shardsync.watch.rule import COARSE_US, Rule
from shardsync.watch.scan import Scanner
from shardsync.watch.standing import Standing
from shardsync.watch.territory import Territory

_STEP_SECONDS = 0.02
_LOG_SECONDS = 5.0


class CatchingUp:
    """Call `begin` for a pass, `step` in each tick, `answer_overflow` after each read.

    `looked_from_us`: after a clean stop, when the Epoch that it ended began.
    `total`: how many directories the pass will go through, as far as one can
    know before; 0 where nothing is known.
    `remembers`: the Journal knows every directory, from a pass that was completed.
    """

    def __init__(
        self,
        *,
        standing: Standing,
        scanner: Scanner,
        territory: Territory,
        ledger: Ledger,
        fold: Fold,
        gathered: Gathered,
        cookies: Cookies,
        polling: Polling,
        forgetting: Forgetting,
        recollection: Recollection,
        clock: Clock,
        log: Log,
    ) -> None:
        self.looked_from_us = 0
        self.remembers = False
        self._standing = standing
        self._scanner = scanner
        self._territory = territory
        self._ledger = ledger
        self._fold = fold
        self._gathered = gathered
        self._cookies = cookies
        self._polling = polling
        self._forgetting = forgetting
        self._recollection = recollection
        self._clock = clock
        self._log = log
        self.total = 0
        self._went_through = 0
        self._pass_started_us = 0
        self._again_since_us: int | None = None
        self._last_log = 0.0

    def begin(self, since_us: int, *, first: bool = False, explained_until_us: int = 0) -> None:
        """Scan all for what changed since the Watermark, less what is journaled already.

        `first`: no pass was ever completed, so no Node relies on this Journal
        yet, and the files are left to the comparison that comes after.
        """
        self.remembers = self.remembers and not first
        self._forgetting.abandon()
        self._pass_started_us = self._clock.wall_us()
        margin = COARSE_US if first else MARGIN_US
        # After a clean stop no event is missing, so what was there when the last Epoch's scan
        # began, and has not changed, is no news; a write that it overlapped was told by events.
        from_us = max(since_us - margin, min(since_us, self.looked_from_us) - COARSE_US)
        self._standing.watermark_us = since_us
        self._scanner.recall(
            {} if first else self._ledger.journaled_since(from_us, watermark_us=since_us)
        )
        self._scanner.done = self._scanner.polled = 0
        # After a start, as it was before; a pass that is cut off knows only a part of it.
        known = self._territory.directories + self._polling.directories
        was_cut_off = self._territory.catching_up or not known
        self.total = max(self.total, known) if was_cut_off else known
        self._last_log = self._clock.monotonic()
        self._standing.polled_us = self._pass_started_us
        self._territory.begin_catch_up(
            Rule(
                since_us=from_us,
                unknown=first or not self.remembers,
                whole=True,
                only_directories=first,
                explained_until_us=explained_until_us,
            )
        )
        self._standing.state = ShardState.SCANNING

    @property
    def done(self) -> int:
        """Directories that the pass has gone through so far, or the last one in all."""
        return self._scanner.done if self._territory.catching_up else self._went_through

    def new_epoch(self, reason: EpochReason, since_us: int, *, first: bool = False) -> None:
        """Observation was broken: the next Epoch, and a pass."""
        self._ledger.begin_epoch(reason)
        if self._standing.was_clock_set() and not first:
            # Just now: the gap has ctimes of both clocks.
            self.compare("the clock was set")
        self.begin(since_us, first=first)

    def compare(self, why: str) -> None:
        """Times tell nothing: the Nodes compare all of this Shard with what they have."""
        self._log.warning("tree.compared", why=why)
        for prefix in self._territory.tops:
            self._gathered.tree(prefix)

    def answer_overflow(self) -> bool:
        """Whether events were lost since the last call; a new Epoch and a pass make up for it.

        The pass goes over everything, for nothing tells where less would do: a
        rewritten file changes no ctime but its own, so every file is looked at;
        a rename that was lost leaves all watches below it bound to a path that
        is another directory's by now, so every watch is bound anew.
        """
        if not self._fold.overflowed:
            return False
        self._fold.overflowed = False
        self._ledger.overflows += 1
        since = self._standing.safe_us()
        self._fold.unpaired.clear()
        self._log.warning("queue.overflowed", scanning=self._territory.catching_up)
        if self._territory.catching_up:
            # One more pass when this one is through, however many overflows there are.
            self._again_since_us = self._pass_started_us
            return True
        self._ledger.commit({})
        self.new_epoch(EpochReason.OVERFLOW, since)
        return True

    def step(self) -> None:
        """Scan a little, if anything is to be scanned."""
        if self._standing.is_halted:
            return
        if self._scanner.is_open:
            self._scan()
        self._territory.spare_watches()
        if self._standing.drained and self._scanner.found.suspects:
            self._territory.look_at_suspects()
            if self._scanner.is_open:
                self._scan()
        if self._scanner.is_open:
            self._say_how_far()
            return
        if not self._territory.catching_up:
            self._polling.forget_gone()
            self._polling.say_coverage()
        elif not self._territory.live_suspects():
            self._done()

    def forget(self) -> None:
        """Do a little of what is to be done after a pass for what it did not come across."""
        for row, is_top in self._forgetting.step():
            self._territory.departed(row, self._recollection.path(row) if is_top else None)

    def _scan(self) -> None:
        self._scanner.step(_STEP_SECONDS)
        if self._territory.catching_up:
            reach(Point.WATCH_SCANNING)

    def _done(self) -> None:
        self.looked_from_us = 0
        self._territory.end_catch_up()
        self.total = self._went_through = self._scanner.done
        if self._scanner.has_news and not self._standing.has_unwatched:
            self._forgetting.begin()
        self._polling.forget_gone()
        self._scanner.recall({})
        self._log.info(
            "scan.done",
            directories=self._scanner.done,
            seconds=(self._clock.wall_us() - self._pass_started_us) / 1e6,
        )
        if self._again_since_us is not None:
            since, self._again_since_us = self._again_since_us, None
            self.begin(since)
            return
        self.remembers = True
        reach(Point.WATCH_SCANNED)
        self._ledger.elders.close()
        self._polling.say_coverage()
        self._cookies.list_again = True
        self._polling.last = self._clock.monotonic()

    def _say_how_far(self) -> None:
        now = self._clock.monotonic()
        if self._territory.catching_up and now - self._last_log >= _LOG_SECONDS:
            self._last_log = now
            self._log.info(
                "scan.progress", directories=self.done, total=max(self.done, self.total)
            )
