"""The Watcher's dealings with its Journal: commits that may fail and are made again.

A disk that is full must not stop the watching: what could not be committed is
kept up to a bound; beyond it the rows are forgotten, the Watermark stays where
it is, and a catch-up finds the changes again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from shardsync.clock import Clock
from shardsync.errors import StateDamaged, StateUnusable
from shardsync.journal.progress import Progress
from shardsync.journal.writer import DirectoryRow, JournalWriter, Row
from shardsync.log import ChangeOnly, Log
from shardsync.model import EpochReason, Kind, Scope, ShardState
from shardsync.watch.beside import Beside
from shardsync.watch.directories import DirectoryTable
from shardsync.watch.elders import Elders
from shardsync.watch.gathered import Filter, Gathered

KEPT_ROWS = 200_000
_ENTRY = int(Scope.ENTRY)
_ATTRIBUTES = int(Kind.ATTRIBUTES)
_CLOCK_JUMP_US = 2_000_000


class Ledger:
    """Commits what was gathered, with the figures that go into the progress row."""

    def __init__(
        self,
        *,
        journal: JournalWriter,
        gathered: Gathered,
        table: DirectoryTable,
        excluded: Filter,
        beside: Beside,
        clock: Clock,
        log: Log,
        boot_id: str,
        identify: Callable[[int], str],
        elders: Elders | None = None,
    ) -> None:
        self.journal = journal
        self.elders = elders or Elders()
        self.identify = identify
        self.directories: list[DirectoryRow] = []
        self.gone: list[tuple[int, int]] = []
        self.flushes: list[str] = []
        self.observed_us = 0
        self.overflows = 0
        self.is_flushing = False
        self.commit_wanted = False
        self.must_rescan = False
        self.is_damaged = False
        self.root_trouble = ""
        self.state: ShardState | None = None
        self.watermark_us: object = None
        self._identities: dict[int, str] = {}
        self._rows: list[Row] = []
        self._gathered = gathered
        self._table = table
        self._excluded = excluded
        self._beside = beside
        self._clock = clock
        self._log = log
        self._said = ChangeOnly(clock=clock)
        self._boot_id = boot_id
        self._trouble = ""
        self._epoch_wanted: EpochReason | None = None

    def commit(self, columns: dict[str, object]) -> int | None:
        """Write everything; the number of Changes, None where the Journal refuses (kept then).

        Crash safety: one transaction; a failed one is made again with the
        same rows, so a Change may stand twice and never goes missing.
        """
        observed_us = self.observed_us or self._clock.wall_us()
        self._rows += self._take(observed_us)
        self.observed_us = 0
        if self.must_rescan:
            self._rows = []
            columns = {name: columns[name] for name in columns if name != "watermark_us"}
        try:
            self._begin_wanted_epoch()
            self.journal.commit(
                self._rows,
                progress={**self._figures(), **columns},
                directories=self.directories,
                directories_gone=self.gone,
                cookies=self.flushes,
            )
        except StateUnusable as error:
            self._refused(error)
            return None
        written = len(self._rows)
        self.watermark_us = columns.get("watermark_us", self.watermark_us)
        if self._trouble:
            self._log.info("journal.usable")
            self._trouble = ""
            self._said.reset()
        self._forget()
        return written

    def begin_epoch(self, reason: EpochReason) -> None:
        """Start the next Epoch now, or with the next commit that succeeds."""
        self._epoch_wanted = reason
        try:
            self._begin_wanted_epoch()
        except StateUnusable as error:
            self._refused(error)

    def end_epoch(self) -> None:
        """A clean stop."""
        try:
            self.journal.end_epoch()
        except StateUnusable as error:
            self._refused(error)

    def journaled_since(self, since_us: int, *, watermark_us: int) -> dict[bytes, int]:
        """As JournalWriter's, and the elders'; nothing where it cannot be read: more is sent."""
        try:
            told = self.elders.told_since(since_us, now_us=self._clock.wall_us())
            own = self.journal.journaled_since(since_us, watermark_us=watermark_us)
        except StateUnusable as error:
            self._refused(error)
            return {}
        for path, until_us in own.items():
            told[path] = max(told.get(path, 0), until_us)
        return told

    def directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        """As JournalWriter's; None (so: compare the subtree) where it cannot be read."""
        try:
            return self.journal.directory(sub_root, inode)
        except StateUnusable as error:
            self._refused(error)
            return None

    def elders_directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        """As `directory`, of the Shards from which prefixes are taken over."""
        identity = self._identities.get(sub_root)
        return None if identity is None else self.elders.directory(identity, inode)

    def remembered(self, after: tuple[int, int], limit: int) -> list[DirectoryRow]:
        """As JournalWriter.directories; nothing where it cannot be read."""
        try:
            return self.journal.directories(after=after, limit=limit)
        except StateUnusable as error:
            self._refused(error)
            return []

    def every_directory(self) -> Iterator[DirectoryRow]:
        """As JournalWriter's; no more where it cannot be read."""
        try:
            yield from self.journal.every_directory()
        except StateUnusable as error:
            self._refused(error)

    def sub_root(self, path: bytes, identity: str) -> int:
        """As JournalWriter's; 0, which no sub-root has, where it cannot be asked."""
        try:
            number = self.journal.sub_root(path, identity)
            self._identities[number] = identity
            return number  # noqa: TRY300 (as the others here)
        except StateUnusable as error:
            self._refused(error)
            return 0

    @property
    def is_troubled(self) -> bool:
        """Whether the Journal refused the last commit."""
        return bool(self._trouble)

    def prune(self, *, before_us: int, max_bytes: int) -> int:
        """Drop one slice of what the retention no longer wants; returns how many Changes."""
        try:
            dropped = self.journal.prune(before_us=before_us, max_bytes=max_bytes)
        except StateUnusable as error:
            self._refused(error)
            return 0
        if dropped:
            self._log.info("journal.pruned", changes=dropped)
        return dropped

    def is_in_place(self) -> bool:
        """Whether the Journal's file still is where others look for it."""
        return self.journal.is_in_place()

    def set_aside(self) -> None:
        """Keep the damaged Journal under another name. Raises StateUnusable."""
        self.journal.set_aside()

    def replace(self, journal: JournalWriter) -> None:
        """Go on in another Journal."""
        self.journal.close()
        self.journal = journal
        self.is_damaged = False
        self.directories.clear()
        self.gone.clear()

    def close(self) -> None:
        """Close the Journal."""
        self.elders.close()
        self.journal.close()

    def clock_columns(self) -> dict[str, object]:
        """What tells the next start whether it can trust times: boot and clock."""
        return {
            "boot_id": self._boot_id,
            "clock_offset_us": self._clock.wall_us() - self._clock.boottime_us(),
        }

    def is_same_boot(self, progress: Progress) -> bool:
        """Whether `progress` was written since the machine came up."""
        return progress.boot_id == self._boot_id

    def why_compare(self, progress: Progress, *, since_us: int) -> str:
        """Why times cannot tell what changed since `progress`, or ""."""
        if progress.watermark_us is None:
            return ""
        if since_us > self._clock.wall_us():
            return "the clock was set back"
        if progress.boot_id and progress.boot_id != self._boot_id:
            return "" if progress.clean_stop else "the machine went down without a clean stop"
        offset = self._clock.wall_us() - self._clock.boottime_us()
        if progress.boot_id and abs(offset - progress.clock_offset_us) > _CLOCK_JUMP_US:
            return "the clock was set"
        return ""

    def _figures(self) -> dict[str, object]:
        figures: dict[str, object] = {
            "watches": len(self._table),
            "directories": len(self._table),
            "overflows": self.overflows,
            "last_error": self._trouble or self.root_trouble,
        }
        if self.commit_wanted:
            figures["heartbeat_us"] = self._clock.wall_us()
            figures.update(self.clock_columns())
        return figures

    def _take(self, observed_us: int) -> list[Row]:
        """What was gathered, and the directories beside what is excluded, once at rest."""
        now = self._clock.monotonic()
        rows = self._gathered.take(observed_at=observed_us, excluded=self._excluded)
        if self._gathered.skipped:
            self._beside.skipped(self._gathered.skipped, now=now, wall_us=observed_us)
        self._beside.journaled(row[0] for row in rows)
        at = math.inf if self.is_flushing else now
        self.is_flushing = False
        rows += [(path, _ENTRY, _ATTRIBUTES, observed_us, None) for path in self._beside.due(at)]
        return rows

    def _begin_wanted_epoch(self) -> None:
        if self._epoch_wanted is not None:
            self.journal.begin_epoch(self._epoch_wanted)
            self._epoch_wanted = None

    def _forget(self) -> None:
        self._rows = []
        self.directories = []
        self.gone = []
        self.flushes = []
        self.commit_wanted = False

    def _refused(self, error: StateUnusable) -> None:
        self._trouble = str(error)
        self.is_damaged = self.is_damaged or isinstance(error, StateDamaged)
        self.commit_wanted = True
        if self._said.is_due(self._trouble):
            self._log.error("journal.unusable", error=error, kept_changes=len(self._rows))
        if len(self._rows) > KEPT_ROWS:
            self._forget()
            self.must_rescan = True
