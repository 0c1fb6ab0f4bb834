"""CPU seconds by what a process is: Watchers, sync process, its rsyncs, the rest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from shardsync.control.programs import SYNC_MODULE, WATCHER_MODULE
from tools.benches.instance import Instance
from tools.benches.processes import BenchFailed

WATCHERS, SYNC, RSYNCS, REST = "Watchers", "sync process", "rsyncs", "the rest"
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_by_role(instance: Instance) -> dict[str, float]:
    """Since each began. rsyncs that ended are told by the sync process, which waited for them."""
    found = dict.fromkeys((WATCHERS, SYNC, RSYNCS, REST), 0.0)
    for pid in instance.everything():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # proc_pid_stat(5): utime, stime; then those of children that were waited for.
            own = sum(map(int, fields[11:13])) / _TICKS
            waited = sum(map(int, fields[13:15])) / _TICKS
            role = _role(words)
            found[role] += own
            found[RSYNCS if role == SYNC else role] += waited
    return found


def cpu_since(instance: Instance, before: Mapping[str, float]) -> dict[str, float]:
    """What was spent since `cpu_by_role` said `before`."""
    return {role: spent - before[role] for role, spent in cpu_by_role(instance).items()}


def sync_pid(instance: Instance) -> int:
    """The sync process. Raises BenchFailed."""
    for pid in instance.everything():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if _role(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")) == SYNC:
                return pid
    raise BenchFailed("no sync process is to be found")


def _role(words: list[bytes]) -> str:
    if SYNC_MODULE.encode() in words:
        return SYNC
    if WATCHER_MODULE.encode() in words:
        return WATCHERS
    return RSYNCS if os.path.basename(words[0]) == b"rsync" else REST
