"""A slice of a comparison: the pieces that are done at one go, and what that came to so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shardsync.journal.records import Cursor, Gain, NodeRow, Work
from shardsync.ship.findings import Findings
from shardsync.ship.fold import Pending
from shardsync.ship.shipping import Delivered

MANY = 5_000
"""More differences than that in one run, and the whole is sent instead of a list."""

_SLICE_SECONDS = 10.0
_NEWS_SECONDS = 1.0
"""After so long a slice begins nothing more once a Change waits."""


@dataclass(slots=True)
class Done:
    """Pieces that a run brought to their end, or whose rest is in `found`."""

    rows: list[Work]
    delivered: Delivered
    found: Findings = field(default_factory=Findings)


Record = Callable[[Sequence[Work], Delivered, Sequence[Pending], Gain], None]
"""(rows that are done, what was delivered, the paths it was for, what it adds to the round)."""


@dataclass(slots=True, kw_only=True)
class Slice:
    """One call of `Comparing.run`: what it was called with, and what it came to so far."""

    row: NodeRow
    sweep: bool
    has_news: Callable[[], bool]
    began: float
    cursors: Mapping[str, Cursor]
    record: Record
    noted_at: float = 0.0
    files: int = 0
    file_bytes: int = 0
    open: list[Done] = field(default_factory=list)
    total: Delivered = field(default_factory=Delivered)

    def __post_init__(self) -> None:
        self.noted_at = self.began

    def may_be_owned(self, done: Done) -> bool:
        """Whether a piece that was sent decides on that."""
        return self.row.owned is None and bool(done.delivered.shipped or done.delivered.failed)

    def is_over(self, now: float) -> bool:
        """Whether nothing more is to be begun in it."""
        seconds = now - self.began
        found = sum(len(done.found.changed) + len(done.found.beside.paths) for done in self.open)
        return (
            seconds > _SLICE_SECONDS
            or found > MANY
            or (seconds > _NEWS_SECONDS and self.has_news())
        )


def add(total: Delivered, more: Delivered) -> None:
    """Add up what the runs of a comparison achieved."""
    total.shipped += more.shipped
    total.deleted += more.deleted
    total.bytes_sent += more.bytes_sent
    total.files += more.files
    total.file_bytes += more.file_bytes
    total.failed.update(more.failed)
    total.foreign += more.foreign
    total.unlisted += more.unlisted
    total.unresolved |= more.unresolved
