"""How commands speak: results on standard output, the rest on standard error, all escaped."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from shardsync.clock import Clock
from shardsync.errors import ShardsyncError
from shardsync.escape import printable_text

_PLAIN_EVERY_SECONDS = 5.0


def say(text: str = "") -> None:
    """A line of the result, harmless whatever went into it."""
    click.echo(safe_lines(text))


def tell(text: str) -> None:
    """A line beside the result: progress, warnings; as harmless."""
    click.echo(safe_lines(text), err=True)


def print_json(document: object) -> None:
    """One JSON document on a line of its own; ASCII, so no name can steer a terminal."""
    click.echo(json.dumps(document, ensure_ascii=True))


def tell_error(error: ShardsyncError) -> None:
    """What is wrong, and what to do about it."""
    tell(f"shardsync: {error}")
    if error.remedy:
        tell(f"  {error.remedy}")


def safe_lines(text: str) -> str:
    """Text of several lines, each of them harmless."""
    if text.isprintable():
        return text
    return "\n".join(printable_text(line) for line in text.split("\n"))


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 path`, `2,000 paths`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"


class Meter:
    """Progress of a long command: a bar on a terminal, else a plain line now and then."""

    def __init__(self, *, title: str, clock: Clock, enabled: bool = True) -> None:
        self._title = title
        self._clock = clock
        self._enabled = enabled
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._said_at: float | None = None
        self._said = ""

    def __enter__(self) -> Self:
        if self._enabled and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(self._title, total=None, detail="")
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

    def show(self, detail: str, *, done: int = 0, total: int = 0) -> None:
        """Where it stands now; `total` 0: nobody knows how much there is."""
        text = printable_text(detail)
        if self._bar is not None and self._task is not None:
            # Square brackets are markup to rich.
            self._bar.update(
                self._task, completed=done, total=total or None, detail=text.replace("[", r"\[")
            )
            return
        now = self._clock.monotonic()
        if self._said_at is None:
            self._said_at = now
        if not self._enabled or text == self._said:
            return
        if now - self._said_at >= _PLAIN_EVERY_SECONDS:
            self._said_at, self._said = now, text
            tell(f"{self._title}: {text}")
