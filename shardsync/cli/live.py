"""A Status that is kept fresh: redrawn on a terminal, elsewhere a line when something changes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live

from shardsync.cli.output import say
from shardsync.cli.tables import lines, tables
from shardsync.clock import Clock
from shardsync.observe.reader import StatusReader
from shardsync.observe.status import Status

_LOOK_SECONDS = 0.5
_SAY_EVERY_SECONDS = 60.0

Show = Callable[[Status], None]


class LiveView:
    """Shows how one instance is doing, for as long as it is asked to."""

    def __init__(self, *, reader: StatusReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock

    def follow(self, until: Callable[[Status], bool]) -> Status:
        """Show each new Status until one is `until`; that one is returned."""
        with contextlib.closing(self._reader), self._shown() as show:
            while True:
                status = self._reader.read()
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
            yield lambda status: live.update(tables(status, self._clock.wall_us()), refresh=True)


class Spoken:
    """A line per thing whenever its state changes, and all of them once a minute."""

    def __init__(self, *, clock: Clock, tell: Callable[[str], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._states: dict[str, str] = {}
        self._said_at: float | None = None

    def show(self, status: Status) -> None:
        """Say what is new."""
        now = self._clock.monotonic()
        is_due = self._said_at is None or now - self._said_at >= _SAY_EVERY_SECONDS
        if is_due:
            self._said_at = now
        for line in lines(status):
            kind, name, state, *_ = line.split(" ", 3)
            key = f"{kind} {name}"
            if is_due or self._states.get(key) != state:
                self._tell(line)
            self._states[key] = state
