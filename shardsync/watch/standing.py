"""Where a Watcher stands: its state, what of the kernel's queue is read, and its Watermark.

The parts of a Watcher share this one record; none of it touches kernel or disk.
"""

from __future__ import annotations

import errno

from shardsync.clock import Clock
from shardsync.model import ShardState
from shardsync.watch.events import Fold
from shardsync.watch.forgetting import Forgetting
from shardsync.watch.mount_points import MountPoints
from shardsync.watch.pending import PendingFiles
from shardsync.watch.scan import Scanner
from shardsync.watch.territory import Territory

_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})
"""Why a directory cannot be entered, where waiting does not help."""

CLOCK_JUMP_US = 2_000_000
"""A clock that is only slewed stays within this between two looks."""


class Standing:
    """`drained`: the last read emptied the queue; `drained_us`: all before it was read.

    `watermark_us` is the Watermark as known here, `committed_us` as it stands
    on disk. `polled_us`: when the poll of what is not watched began, that all
    of it was looked at since; None before any. `clock_offset_us`: wall clock
    less boot time when the Watermark was last reckoned.
    """

    def __init__(
        self,
        *,
        scanner: Scanner,
        territory: Territory,
        mount_points: MountPoints,
        pending: PendingFiles,
        fold: Fold,
        forgetting: Forgetting,
        clock: Clock,
    ) -> None:
        self.state = ShardState.STARTING
        self.drained = False
        self.drained_us = 0
        self.watermark_us: int | None = None
        self.committed_us = 0
        self.polled_us: int | None = None
        self.clock_offset_us: int | None = None
        self._scanner = scanner
        self._territory = territory
        self._mount_points = mount_points
        self._pending = pending
        self._fold = fold
        self._forgetting = forgetting
        self._clock = clock

    @property
    def is_halted(self) -> bool:
        """Whether the root is not there."""
        return self.state is ShardState.HALTED

    @property
    def has_unwatched(self) -> bool:
        """Whether some directories have no watch and are polled."""
        return bool(self._scanner.found.unwatched or self._mount_points.apart)

    @property
    def has_unseen(self) -> bool:
        """Whether no event tells of some directories: they have no watch, or cannot be entered."""
        return self.has_unwatched or bool(self._scanner.found.refused)

    def is_settled(self) -> bool:
        """Whether no scan is open or wanted, and what the last one did not find is forgotten."""
        return not (
            self._scanner.is_open
            or self._forgetting.is_open
            or self._territory.catching_up
            or self._mount_points.have_changed
            or self._territory.live_suspects()
            or self.is_halted
        )

    def must_catch_up(self) -> bool:
        """Whether a stop now leaves something to find: it would not be a clean one."""
        return (
            self._territory.catching_up
            or self._mount_points.have_changed
            or self.is_halted
            or self._is_kept_out()
        )

    def reckon(self) -> int:
        """Move the Watermark to where it may stand now, and return it."""
        self.watermark_us = self.safe_us()
        self.clock_offset_us = self._clock.wall_us() - self._clock.boottime_us()
        return self.watermark_us

    def was_clock_set(self) -> bool:
        """Whether the Watermark was reckoned by another clock than that of now."""
        if self.clock_offset_us is None:
            return False
        offset_us = self._clock.wall_us() - self._clock.boottime_us()
        return abs(offset_us - self.clock_offset_us) > CLOCK_JUMP_US

    def safe_us(self) -> int:
        """The Watermark as of now: all that changed before is journaled or about to be."""
        now_us = self._clock.wall_us()
        # Not beyond now, where the clock was set back: what changes next has an earlier ctime.
        bound = min(self.watermark_us or now_us, now_us)
        if not self.is_settled() or self._is_kept_out():
            return bound
        limits = [self.drained_us or bound]
        oldest = self._pending.oldest_us(self._fold.fresh)
        if oldest is not None:
            limits.append(oldest)
        limits += [departure.stamp[1] for departure in self._fold.unpaired.values()]
        if self.has_unwatched and self.polled_us is not None:
            limits.append(self.polled_us)
        return min(limits)

    def _is_kept_out(self) -> bool:
        """Whether a directory cannot be entered for a while: what changes in it is told by nobody.

        One that was closed on purpose has a new ctime once it is opened.
        """
        refused = self._scanner.found.refused.values()
        return any(each.number not in _CLOSED for each in refused)
