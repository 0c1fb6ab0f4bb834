"""`windows` of a Node as the settings file has it, made into Windows or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from shardsync.config.problems import Refusal
from shardsync.config.values import bandwidth
from shardsync.config.windows import DAY, UNLIMITED, Window

_TIME = re.compile(r"([01]\d|2[0-4]):([0-5]\d)")
_EXAMPLE = 'write it like: { from = "08:00", to = "18:00", bandwidth = "2MiB" }'


def parse_windows(tables: Sequence[Mapping[str, Any]]) -> tuple[Window, ...]:
    """`windows` of a Node. Raises Refusal."""
    windows = tuple(_window(number, table) for number, table in enumerate(tables, 1))
    for (one, first), (two, second) in combinations(enumerate(windows, 1), 2):
        if first.minutes() & second.minutes():
            raise Refusal(
                f"entries {one} ({first}) and {two} ({second}) overlap",
                "have one end where the other begins",
            )
    return windows


def parse_hours(text: str) -> Window | None:
    """Hours of the day like `22:00-06:00`, None for "". Raises Refusal."""
    if not text:
        return None
    begin, _, end = text.partition("-")
    found = [_TIME.fullmatch(time) for time in (begin, end)]
    minutes = [int(time[1]) * 60 + int(time[2]) for time in found if time is not None]
    if len(minutes) < len(found) or max(minutes) > DAY:
        raise Refusal("is not a part of the day", 'write it like "22:00-06:00"')
    if minutes[0] % DAY == minutes[1] % DAY:
        raise Refusal("begins when it ends", 'for all day write ""')
    return Window(begin=minutes[0] % DAY, end=minutes[1] % DAY)


def _window(number: int, table: Mapping[str, Any]) -> Window:
    unknown = sorted(table.keys() - {"from", "to", "bandwidth", "paused"})
    if unknown:
        raise Refusal(f"entry {number}: {unknown[0]} is no known key", _EXAMPLE)
    begin, end = (_minute(number, key, table.get(key)) for key in ("from", "to"))
    if begin == end:
        raise Refusal(
            f"entry {number} begins when it ends", "for all day set the Node's own bandwidth"
        )
    paused, rate = table.get("paused", False), table.get("bandwidth")
    if not isinstance(paused, bool):
        raise Refusal(f"entry {number}: paused should be true or false", _EXAMPLE)
    if paused == (rate is not None):
        raise Refusal(
            f"entry {number} needs either a bandwidth or paused = true",
            f'{_EXAMPLE}, or with paused = true, or bandwidth = "{UNLIMITED}"',
        )
    return Window(begin=begin, end=end, paused=paused, bandwidth=_rate(number, rate))


def _rate(number: int, rate: object) -> str:
    if rate is None or rate == UNLIMITED:
        return ""
    if not isinstance(rate, str) or not rate:
        raise Refusal(f"entry {number}: bandwidth should be a rate in quotes", _EXAMPLE)
    try:
        return bandwidth(rate)
    except Refusal as refusal:
        message = f"entry {number}: bandwidth {refusal.message}"
        raise Refusal(message, refusal.remedy) from refusal


def _minute(number: int, key: str, value: object) -> int:
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    minute = int(found[1]) * 60 + int(found[2]) if found else DAY + 1
    if minute > DAY:
        raise Refusal(f"entry {number}: {key} is no time of day", f'write {key} = "08:00"')
    return minute % DAY
