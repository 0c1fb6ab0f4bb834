"""Pauses that come and go by the hour of the day: the windows of a Node's settings.

Pure: a Node's row, its windows and the moment in, columns to set out.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardsync.config.windows import Window, in_force
from shardsync.journal.records import NodeRow


def window_columns(row: NodeRow, windows: Sequence[Window], now_us: int) -> dict[str, object]:
    """What must be set of the row now, nothing where it is as it should be.

    A window's pause is begun once, so that a `resume` by hand holds until the next; it never
    ends a pause by hand, which outlasts it.
    """
    found = in_force(windows, now_us)
    end = found[1] if found is not None and found[0].paused else 0
    if end == row.window_pause:
        return {}
    if end:
        if row.paused and (row.paused_until is None or row.paused_until >= end):
            return {"window_pause": end}
        return {"window_pause": end, "paused": 1, "paused_until": end}
    if row.paused and row.paused_until == row.window_pause:
        return {"window_pause": 0, "paused": 0, "paused_until": None}
    return {"window_pause": 0}
