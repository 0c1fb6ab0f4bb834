"""When a Watcher commits, with which Watermark, and which flushes it acknowledges with it."""

from __future__ import annotations

from shardsync.clock import Clock
from shardsync.model import EpochReason
from shardsync.watch.beside import Beside
from shardsync.watch.catching_up import CatchingUp
from shardsync.watch.cookies import Cookies
from shardsync.watch.events import Fold
from shardsync.watch.gathered import Gathered
from shardsync.watch.leaving import Leaving
from shardsync.watch.ledger import Ledger
from shardsync.watch.mount_points import MountPoints
from shardsync.watch.mounts import MountsBelow
from shardsync.watch.pending import PendingFiles
from shardsync.watch.polling import Polling
from shardsync.watch.scan import Scanner
from shardsync.watch.standing import Standing
from shardsync.watch.territory import Territory

COMMIT_SECONDS = 0.05
RETRY_SECONDS = 1.0
SCAN_SECONDS = 1.0
"""How far a scan is stands in the Journal at most so late."""


class Committing:
    """Commits at once when idle, each COMMIT_SECONDS under load, more rarely in trouble."""

    def __init__(
        self,
        *,
        standing: Standing,
        scanner: Scanner,
        territory: Territory,
        leaving: Leaving,
        mount_points: MountPoints,
        ledger: Ledger,
        gathered: Gathered,
        pending: PendingFiles,
        beside: Beside,
        fold: Fold,
        cookies: Cookies,
        polling: Polling,
        catching_up: CatchingUp,
        mounts: MountsBelow,
        clock: Clock,
    ) -> None:
        self._standing = standing
        self._scanner = scanner
        self._territory = territory
        self._leaving = leaving
        self._mount_points = mount_points
        self._ledger = ledger
        self._gathered = gathered
        self._pending = pending
        self._beside = beside
        self._fold = fold
        self._cookies = cookies
        self._polling = polling
        self._catching_up = catching_up
        self._mounts = mounts
        self._clock = clock
        self._last = 0.0

    def commit_if_due(self, now: float) -> int:
        """Commit what was gathered, if it is time; returns the number of Changes.

        Crash safety: the Watermark goes into the transaction of the Changes
        before it.
        """
        found = self._scanner.found
        self._ledger.directories += found.directories
        found.directories.clear()
        self._ledger.gone += self._leaving.gone
        self._leaving.gone.clear()
        self._ledger.gone += found.forgotten
        found.forgotten.clear()
        flushes = self._answerable()
        if not self._is_due(now, wanted=bool(flushes)):
            return 0
        self._last = now
        self._ledger.flushes = flushes
        written = self._ledger.commit(self._columns())
        if written is None:
            return 0
        self._cookies.answered(flushes)
        if not self._mount_points.have_changed:
            self._mounts.is_unsaved = False
        if self._ledger.must_rescan:
            self._ledger.must_rescan = False
            self._catching_up.new_epoch(EpochReason.CRASH, self._standing.committed_us)
        else:
            self._standing.committed_us = (
                self._standing.watermark_us or self._standing.committed_us
            )
        return written

    def gather_pending(self) -> None:
        """Journal what waits as it is now: files not closed, the times of directories."""
        self._ledger.is_flushing = True
        for path in self._pending.all(self._fold.fresh):
            self._gathered.entry(path)

    def is_quiet(self) -> bool:
        """Whether all that was read is on disk, and nothing more is to be done."""
        return (
            self._standing.drained
            and not self._fold.fresh
            and not self._ledger.is_troubled
            and not len(self._gathered)
            and self._standing.is_settled()
            and not self._cookies.flushes
        )

    @property
    def _must_save_mounts(self) -> bool:
        return self._mounts.is_unsaved and not self._mount_points.have_changed

    def _is_due(self, now: float, *, wanted: bool) -> bool:
        wanted = bool(
            wanted or len(self._gathered) or self._ledger.commit_wanted
            or self._ledger.directories or self._ledger.gone or self._must_save_mounts
            or self._standing.state != self._ledger.state
            or (self._territory.catching_up and now - self._last >= SCAN_SECONDS)
            or self._beside.wait_seconds(now) == 0.0
        )  # fmt: skip
        pause = RETRY_SECONDS if self._ledger.is_troubled else COMMIT_SECONDS
        soon = self._standing.drained and not self._ledger.is_troubled
        return wanted and (soon or now - self._last >= pause)

    def _answerable(self) -> list[str]:
        """Flush cookies read by now, if all that came before them is on its way to the Journal."""
        settled = self._standing.is_settled
        if not self._cookies.flushes or not settled() or not self._polling.covers_flushes():
            return []
        # A prefix that was made anew tells the Shard of its parent, not this one.
        self._territory.tops.check()
        if not settled():
            return []
        self.gather_pending()
        return list(self._cookies.flushes)

    def _columns(self) -> dict[str, object]:
        self._standing.reckon()
        if self._standing.is_settled() and not self._standing.has_unwatched:
            # Should watches run out in a moment, that is how far back the first poll looks.
            self._standing.polled_us = self._standing.watermark_us
        self._ledger.state = self._standing.state
        columns: dict[str, object] = {
            "state": self._standing.state.value,
            "scanned": int(self._catching_up.remembers),
            "watermark_us": self._standing.watermark_us,
            "scan_done": self._catching_up.done,
            "scan_total": self._catching_up.total,
            "directories": self._territory.directories + self._polling.directories,
            "polled_directories": self._polling.directories,
        }
        if self._must_save_mounts:
            # With the Changes that tell of them, so that a crash before finds them again.
            columns["mounts"] = self._mounts.saved()
        return columns
