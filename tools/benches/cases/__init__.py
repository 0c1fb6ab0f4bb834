"""The cases: each fills one Part. A module of functions for each, or for a group of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tools.benches.bench import Bench
from tools.benches.cases import (
    changed,
    creates,
    events,
    idle,
    memory,
    one,
    restart,
    scattered,
    start,
)  # fmt: skip
from tools.benches.model import Part


@dataclass(frozen=True, slots=True)
class Case:
    """`about`: what exactly is measured, for the reader of the table."""

    run: Callable[[Bench, Part], None]
    about: str
    has_own_tree: bool = False
    """Whether it is the same at every scale."""


CASES = {
    "cold-start": Case(
        start.cold,
        "From the command (`up`, `lsyncd`...) to all directories watched, page cache dropped"
        " before each start. Otherwise as warm-start.",
    ),
    "warm-start": Case(
        start.warm,
        "From the command to all directories watched, for the first time, page cache warm."
        " shardsync: from the beginning of `up`, which starts supervisord and the programs, until"
        " every Shard's Watcher follows; its one Node is paused. lsyncd: until it starts its first"
        ' rsync (which is /bin/true). inotifywait -m -r: until "Watches established".'
        " watchman: until it answers `clock`.",
    ),
    "memory": Case(
        memory.memory,
        "Resident memory once all directories are watched, and above that on an empty tree, by"
        " directory. shardsync: all Watchers together.",
    ),
    "restart": Case(
        restart.restart,
        "Stopped cleanly and started again with nothing changed, one local Node. shardsync: from"
        " the beginning of `up` until `flush` has answered that the Node has everything. lsyncd:"
        " until its first rsync is through. rsync: one `rsync -a --delete` of the whole tree."
        " Lists and runs are counted by a script that stands in for rsync.",
    ),
    "restart-changed": Case(
        changed.changed,
        "As restart, but while it was down 1,000 files were rewritten in place, 100 deleted, 10"
        " directories moved in from outside with old timestamps, and 10 directories of 1,000 files"
        " renamed.",
    ),
    "scattered": Case(
        scattered.scattered,
        "Everything running and in step: 1,000 files in as many directories rewritten one after"
        " the other, from before the first write until each is on the local Node. lsyncd: delay ="
        " 1. rsync: run after the last write, with the list of exactly these files.",
    ),
    "events": Case(
        events.events,
        "One Watcher (or inotifywait -m, writing lines to a file) is stopped with SIGSTOP, files"
        " on a tmpfs are opened, written and closed, two events each, and it is continued:"
        " events by the time from SIGCONT until the last is in the Journal (a flush cookie"
        " behind them is acknowledged) or in the file.",
        has_own_tree=True,
    ),
    "create": Case(
        creates.create,
        "Files created by four processes as fast as they can, in an empty tree on a tmpfs with its"
        " Node beside it, the kernel's queue as it is: from before the first until all are on the"
        " Node. shardsync: `flush` has answered. rsync: one run after the last file.",
        has_own_tree=True,
    ),
    "one-file": Case(
        one.one_file,
        "One small file at a time, from its close until it is on the Node; both programs run at"
        " once with a settle delay of 0, and get files by turns.",
        has_own_tree=True,
    ),
    "idle": Case(
        idle.idle,
        "All directories watched, one local Node in step, nothing changes: CPU time and bytes"
        " written by supervisord and every process below it.",
    ),
}
DEFAULT = tuple(name for name in CASES if name not in {"cold-start", "one-file"})
