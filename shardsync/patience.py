"""Waiting for a state directory that cannot be used for now: its disk is full, or read-only.

A program that exits again and again ends as FATAL under supervisord, which never
starts it anew: it would be down long after there is room again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from shardsync.clock import Clock
from shardsync.errors import MadeByNewer, StateUnusable
from shardsync.log import ChangeOnly, Log

_AGAIN_SECONDS = 2.0


def patiently(
    work: Callable[[], None],
    *,
    clock: Clock,
    log: Log,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Do `work`, again and again while it finds the state unusable, and `wait` does not say stop.

    Raises MadeByNewer, for which waiting does not help, and whatever else `work` raises.
    """
    said = ChangeOnly(clock=clock)
    while True:
        try:
            work()
        except MadeByNewer:
            raise
        except StateUnusable as error:
            if said.is_due(str(error)):
                log.error("state.waits", error=error, remedy=error.remedy)  # noqa: TRY400 (an operator wants the error, not a trace)
            if wait(_AGAIN_SECONDS):
                return
        else:
            return
