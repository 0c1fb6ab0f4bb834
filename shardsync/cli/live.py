"""A Status that is kept fresh: redrawn on a terminal, elsewhere a line when something changes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console, RenderableType
from rich.live import Live

from shardsync.cli.output import say
from shardsync.cli.scanning import Pace
from shardsync.cli.tables import lines, tables
from shardsync.clock import Clock
from shardsync.observe.reader import StatusReader
from shardsync.observe.status import Status

_LOOK_SECONDS = 0.5
_SAY_EVERY_SECONDS = 60.0
_SAY_MOVING_EVERY_SECONDS = 5.0

Show = Callable[[Status], None]


class LiveView:
    """Shows how one instance, or one Tree of it, is doing, for as long as it is asked to."""

    def __init__(self, *, reader: StatusReader, clock: Clock, tree: str | None = None) -> None:
        self._reader = reader
        self._clock = clock
        self._tree = tree
        self._paces: dict[str, Pace] = {}

    def follow(self, until: Callable[[Status], bool]) -> Status:
        """Show each new Status until one is `until`; that one is returned."""
        with contextlib.closing(self._reader), self._shown() as show:
            while True:
                status = self._reader.read()
                if self._tree is not None:
                    status = status.of_tree(self._tree)
                show(status)
                if until(status):
                    return status
                time.sleep(_LOOK_SECONDS)

    @contextlib.contextmanager
    def _shown(self) -> Iterator[Show]:
        console = Console()
        if not console.is_terminal:
            yield Spoken(clock=self._clock, tell=say).show
            return
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda status: live.update(self._drawn(status), refresh=True)

    def _drawn(self, status: Status) -> RenderableType:
        paces = {}
        for shard in status.shards:
            if shard.is_scanning:
                pace = self._paces.setdefault(shard.id, Pace())
                pace.see(self._clock.monotonic(), shard.scan_done)
                paces[shard.id] = pace.per_second()
        return tables(status, self._clock.wall_us(), paces)


class Spoken:
    """A line per thing whenever its state changes, and all of them once a minute.

    What has a progress (a scan, a bootstrap) is told every five seconds.
    """

    def __init__(self, *, clock: Clock, tell: Callable[[str], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._states: dict[str, str] = {}
        self._said_at: float | None = None
        self._moved_at: dict[str, float] = {}

    def show(self, status: Status) -> None:
        """Say what is new."""
        now = self._clock.monotonic()
        is_due = self._said_at is None or now - self._said_at >= _SAY_EVERY_SECONDS
        if is_due:
            self._said_at = now
        for line in lines(status):
            kind, name, state, word, *_ = [*line.split(" ", 4), ""]
            key = f"{kind} {name}"
            is_new = self._states.get(key) != state
            if is_due or is_new or (word.endswith("%") and self._is_moving_due(key, now)):
                self._tell(line)
                self._moved_at[key] = now
            self._states[key] = state

    def _is_moving_due(self, key: str, now: float) -> bool:
        return now - self._moved_at.get(key, now) >= _SAY_MOVING_EVERY_SECONDS
