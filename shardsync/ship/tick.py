"""What one unit of a Syncer's work came to. Values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

IDLE_SECONDS = 5.0
"""The longest that nothing is looked at where nothing wakes a Syncer."""


class Did(enum.Enum):
    """What one tick did."""

    NOTHING = "nothing"
    SHIPPED = "shipped"
    WORKED = "worked"
    CONTACTED = "contacted"
    FAILED = "failed"
    HALTED = "halted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The record of one tick. `wait_seconds`: until the next one, if nothing wakes it before."""

    did: Did
    wait_seconds: float = 0.0
    paths: int = 0
    error: str = ""
