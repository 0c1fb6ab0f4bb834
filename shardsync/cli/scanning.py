"""How far the scans are, in figures, words and a bar: for `up`, `mirror`, `status` and `top`."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from shardsync.cli.invocation import Invocation
from shardsync.cli.output import Meter, counted, say, tell
from shardsync.escape import printable_text
from shardsync.model import ShardState
from shardsync.observe.status import ShardStatus, Status
from shardsync.units import human_duration

_WATCHING = frozenset({ShardState.FOLLOWING, ShardState.POLLING})
_LOOK_SECONDS = 0.5
_WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFigures:
    """Directories of all Shards together. `total`: 0 where a Shard cannot say yet."""

    done: int
    total: int
    scanning: tuple[str, ...]

    @property
    def is_over(self) -> bool:
        """Whether no scan is open and none is about to be."""
        return not self.scanning


def scan_figures(shards: Iterable[ShardStatus]) -> ScanFigures:
    """How far these Shards are. One that is not scanning has all its directories."""
    done = total = 0
    scanning = []
    is_known = True
    for shard in shards:
        if not shard.is_scanning:
            done += shard.directories or 0
            total += shard.directories or 0
            continue
        scanning.append(shard.id)
        done += shard.scan_done
        total += max(shard.scan_total, shard.scan_done)
        is_known = is_known and shard.scan_total > 0
    return ScanFigures(done=done, total=total if is_known else 0, scanning=tuple(scanning))


class Pace:
    """How fast something counts up, over the last seconds; the clock is the caller's."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, now: float, done: int) -> None:
        """Note a count. One that fell (another scan) starts anew."""
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, done))
        while now - self._seen[0][0] > _WINDOW_SECONDS:
            self._seen.popleft()

    def per_second(self) -> float:
        """0 where nothing is known yet."""
        (first_at, first), (last_at, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0


def scan_words(figures: ScanFigures, per_second: float) -> str:
    """`431,000 of 1,001,011 directories, 68,000/s, 8.4s left`, as far as it is known."""
    words = counted(figures.done, "directory", "directories")
    if figures.total:
        total = counted(figures.total, "directory", "directories")
        words = f"{figures.done:,} of {total}"
    if per_second >= 1:
        words += f", {per_second:,.0f}/s"
        if figures.total > figures.done:
            left = (figures.total - figures.done) / per_second
            words += f", {human_duration(left)} left"
    return words


class ScanWatch:
    """Shows the scans of one instance until they are over."""

    def __init__(self, *, call: Invocation) -> None:
        self._call = call

    def follow(self, *, patience_seconds: float = math.inf) -> Status:
        """Return how it is when all Shards watch, when they are down, or when patience ends.

        Also when all that is left cannot even start, which their `last_error` explains.
        """
        clock = self._call.clock
        began = clock.monotonic()
        pace = Pace()
        with (
            contextlib.closing(self._call.status_reader()) as reader,
            Meter(title="scan", clock=clock) as meter,
        ):
            while True:
                status = reader.read()
                figures = scan_figures(status.shards)
                is_over = figures.is_over and bool(status.shards)
                now = clock.monotonic()
                open_shards = [shard for shard in status.shards if shard.is_scanning]
                is_hopeless = bool(open_shards) and all(map(_cannot_start, open_shards))
                if is_over or is_hopeless or status.is_down or now - began >= patience_seconds:
                    return status
                pace.see(now, figures.done)
                words = scan_words(figures, pace.per_second())
                meter.show(words, done=figures.done, total=figures.total)
                time.sleep(_LOOK_SECONDS)


def _cannot_start(shard: ShardStatus) -> bool:
    """Whether its Watcher has said why it waits; it tries again by itself."""
    return shard.state is ShardState.STARTING and bool(shard.last_error)


def tell_outcome(status: Status, *, seconds: float) -> None:
    """What became of the scans, `seconds` after the start."""
    figures = scan_figures(status.shards)
    amiss = [shard for shard in status.shards if shard.state not in _WATCHING]
    if not figures.is_over:
        tell(f"not watching yet: {', '.join(figures.scanning)}; `shardsync status` tells more")
        for shard in filter(_cannot_start, status.shards):
            tell(f"shard {shard.id}: {printable_text(shard.last_error)}")
    elif amiss:
        for shard in amiss:
            tell(f"shard {shard.id} is {shard.state}: `shardsync status` tells more")
    else:
        polled = sum(shard.polled_directories or 0 for shard in status.shards)
        directories = counted(figures.done - polled, "directory", "directories")
        say(f"watching {directories} after {human_duration(seconds)}")
        if polled:
            more = counted(polled, "directory", "directories")
            tell(f"{more} more without a watch, polled instead: see `shardsync check`")
