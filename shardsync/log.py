"""Log lines for operators: `2026-11-23T08:00:00.000000Z info batch.shipped node=web1 paths=3`.

Event names are stable (`noun.verb`); fields are escaped, so no file name can
forge a line. Levels: error = a human must act, warning = degraded and
healing, info = state changed, debug = per Change.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from shardsync.clock import Clock, SystemClock, rfc3339
from shardsync.escape import printable, printable_text

_REPEAT_SECONDS = 60.0


class Log:
    """A logger bound to some fields. Cheap to derive: `log.bind(node="web1")`."""

    def __init__(self, name: str, **fields: object) -> None:
        self._logger = logging.getLogger(f"shardsync.{name}")
        self._fields = fields
        self._name = name

    def bind(self, **fields: object) -> Log:
        """A Log that adds `fields` to each of its lines."""
        return Log(self._name, **{**self._fields, **fields})

    def debug(self, event: str, **fields: object) -> None:
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._emit(logging.ERROR, event, fields)

    def bug(self, event: str, **fields: object) -> None:
        """As `error`, with the traceback of the exception being handled."""
        text = format_event(event, {**self._fields, **fields})
        self._logger.error("%s", text, exc_info=True)  # noqa: LOG014 (the caller handles one)

    def _emit(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", format_event(event, {**self._fields, **fields}))


class ChangeOnly:
    """Says which of a stream of repeating messages to log: each new one, then one a minute."""

    def __init__(self, *, clock: Clock, repeat_seconds: float = _REPEAT_SECONDS) -> None:
        self._clock = clock
        self._repeat_seconds = repeat_seconds
        self._last: tuple[str, float] | None = None

    def is_due(self, message: str) -> bool:
        """Whether `message` is new, or was last said a minute ago."""
        now = self._clock.monotonic()
        if self._last and self._last[0] == message and now - self._last[1] < self._repeat_seconds:
            return False
        self._last = (message, now)
        return True

    def reset(self) -> None:
        """Forget: the trouble is over, the next message is new again."""
        self._last = None


def format_event(event: str, fields: dict[str, object]) -> str:
    """`event key=value ...`; values with spaces are quoted, bytes are paths and escaped."""
    return " ".join([event, *(f"{key}={_value(value)}" for key, value in fields.items())])


def start_logging(*, level: str = "info", stream: TextIO | None = None) -> None:
    """Send this process's log to `stream` (standard error by default), one line an event."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter())
    root = logging.getLogger("shardsync")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = rfc3339(SystemClock().wall_us())
        line = f"{stamp} {record.levelname.lower()} {record.getMessage()}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n{printable_text(part)}" for part in trace)
        return line


def _value(value: object) -> str:
    if isinstance(value, bytes):
        text = printable(value)
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = printable_text(str(value))
    if text == "" or any(char in text for char in ' "='):
        return '"' + text.replace('"', '\\"') + '"'
    return text
