"""How the bench tells where it stands: a bar on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_PLAIN_EVERY_SECONDS = 10.0


def tell(text: str) -> None:
    """A line."""
    print(text, file=sys.stderr, flush=True)


class Display:
    """One bar for the whole run; what is being done now stands beside it."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began = time.monotonic()
        self._said_at = 0.0

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = Progress(
                BarColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step(self, text: str) -> None:
        """Something new begins."""
        self._said_at = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=_plain(text), total=None, completed=0)
        else:
            tell(f"[{self._said_at - self._began:6.1f} s] {text}")

    def part(self, text: str, done: int, total: int) -> None:
        """How much of it is done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, description=_plain(text), completed=done, total=total or None
            )
        elif time.monotonic() - self._said_at >= _PLAIN_EVERY_SECONDS:
            self.step(f"{text}: {done:,} of {total:,}")


def _plain(text: str) -> str:
    # Square brackets are markup to rich.
    return text.replace("[", r"\[")
