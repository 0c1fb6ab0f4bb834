"""Durations ("2h", "10s", "1h30m"), sizes ("2GiB") and points in time, to and from text."""

from __future__ import annotations

import datetime as dt
import re

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {
    "": 1, "b": 1, "k": 1024, "kib": 1024, "kb": 1000, "m": 1024**2, "mib": 1024**2, "mb": 1000**2,
    "g": 1024**3, "gib": 1024**3, "gb": 1000**3, "t": 1024**4, "tib": 1024**4, "tb": 1000**4,
}  # fmt: skip
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def duration_seconds(text: str) -> float:
    """Seconds in "90s", "2h", "1h30m", "250ms". Raises ValueError with the accepted form."""
    if not _DURATION.fullmatch(text):
        message = f'"{text}" is not a duration: write it like "10s", "5m", "2h", "7d" or "1h30m"'
        raise ValueError(message)
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def size_bytes(text: str) -> int:
    """Bytes in "2GiB", "500MB", "64k". Raises ValueError with the accepted form."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or found[2].lower() not in _BYTES:
        message = f'"{text}" is not a size: write it like "512KiB", "64MiB" or "2GiB"'
        raise ValueError(message)
    return int(float(found[1]) * _BYTES[found[2].lower()])


def local_time_us(text: str) -> int:
    """Unix microseconds of `2026-11-23T08:00[:00][+01:00|Z]`, local time where no zone is given.

    Raises ValueError with the accepted form.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        message = f'"{text}" is not a time: write it like "2026-11-23T08:00"'
        raise ValueError(message) from error
    return int(moment.timestamp() * 1_000_000)


def human_duration(seconds: float) -> str:
    """Two figures at most: `0.4s`, `12s`, `3m05s`, `2h10m`, `4d02h`."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    for big, small, big_name, small_name in ((60, 1, "m", "s"), (3600, 60, "h", "m")):
        if whole < big * (60 if big == 60 else 24):
            return f"{whole // big}{big_name}{whole % big // small:02d}{small_name}"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def human_bytes(count: float) -> str:
    """`512 B`, `1.4 MiB`."""
    if count < 1024:
        return f"{int(count)} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"
