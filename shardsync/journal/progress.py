"""The one row in a Journal that says how its Watcher is doing."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields

from shardsync.model import ShardState


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the Watcher of one Shard has come. Field for field the table `progress`.

    `*_us`: Unix microseconds. `clock_offset_us`: wall clock less boot time, to
    notice a clock that was set. `pruned_until_us`: newest observed_at
    that was ever pruned. `scan_total` is an estimate, 0 where unknown.
    `generation`: of the Plan that the Watcher follows. `clean_stop`: the last
    Watcher ended with everything journaled up to `watermark_us`. `scanned`: a
    pass over all directories was completed once; no Node is compared before.
    `mounts`: what was mounted below the root, the Watcher's own words. `settings`: the mark of
    those that the Watcher runs.
    """

    state: ShardState = ShardState.STOPPED
    last_error: str = ""
    last_position: int = 0
    pruned_to: int = 0
    pruned_until_us: int = 0
    watermark_us: int | None = None
    watches: int = 0
    directories: int = 0
    polled_directories: int = 0
    overflows: int = 0
    changes_total: int = 0
    scan_done: int = 0
    scan_total: int = 0
    pid: int = 0
    generation: int = 0
    heartbeat_us: int = 0
    clean_stop: bool = False
    scanned: bool = False
    boot_id: str = ""
    clock_offset_us: int = 0
    mounts: str = ""
    settings: str = ""


PROGRESS_COLUMNS = tuple(field.name for field in fields(Progress))
_SELECT = f"SELECT {', '.join(PROGRESS_COLUMNS)} FROM progress"  # noqa: S608 (our own names)


def read_progress(connection: sqlite3.Connection) -> Progress:
    """The row as a value. Raises sqlite3.Error."""
    values = dict(zip(PROGRESS_COLUMNS, connection.execute(_SELECT).fetchone(), strict=True))
    values["state"] = ShardState(values["state"])
    values["clean_stop"] = bool(values["clean_stop"])
    values["scanned"] = bool(values["scanned"])
    return Progress(**values)
