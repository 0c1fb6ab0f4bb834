"""The windows of a Node's settings: what holds at an hour, and the pauses that come and go by it.

Pure: settings, a Node's row and the moment in; settings and columns to set out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from shardsync.config.settings import NodeSettings
from shardsync.config.windows import Window, in_force
from shardsync.journal.records import NodeRow


def as_of_now(node: NodeSettings, now_us: int) -> tuple[NodeSettings, Window | None]:
    """The Node's settings at this hour, and the window that makes them so.

    At a window's edges a Node is served anew, so that an rsync under way does not go on for
    hours as it was begun.
    """
    found = in_force(node.windows, now_us)
    node = dataclasses.replace(node, windows=())
    if found is None:
        return node, None
    window, _ = found
    if not window.paused:
        node = dataclasses.replace(node, bandwidth=window.bandwidth)
    return node, window


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
