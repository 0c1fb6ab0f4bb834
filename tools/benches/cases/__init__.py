"""The cases: each fills one Part. A module of functions for each, or for a group of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tools.benches.bench import Bench
from tools.benches.cases import (
    burst,
    changed,
    creates,
    events,
    fan_out,
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
    "scattered-many": Case(
        scattered.scattered_many,
        "As scattered, with 20,000 files, or all of a tree that has fewer. lsyncd gets 90 s.",
    ),
    "new-files": Case(
        burst.new_files,
        "Everything running and in step on an empty tree: 10,000 files made in 1,000 new"
        " directories by four processes, from before the first until all are on the local Node."
        " lsyncd: delay = 1, given 90 s. rsync: one run after the last file.",
        has_own_tree=True,
    ),
    "fan-out": Case(
        fan_out.fan_out,
        "10,000 files in 100 directories rewritten, from before the first write until each is on"
        " every one of 1, 8, 16 local Nodes; at most 8 rsyncs at a time. rsync: after the last"
        " write, so many runs at a time, with the list of exactly these files. Then single files"
        " to 8 Nodes, 2 rsyncs at a time, with a further Node in step and with that one's daemon"
        " stopped by SIGSTOP.",
        has_own_tree=True,
    ),
    "backlog": Case(
        burst.backlog,
        "Files made while the only Node is paused, until the Watchers have journaled them; then"
        " from its resume until `flush` has answered, with the resident memory of the sync process"
        " before and the most meanwhile. rsync: one `rsync -a` of the same.",
        has_own_tree=True,
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
    "steady": Case(
        one.steady,
        "200 small files a second, whatever comes of them: of each, from its close until it is on"
        " the Node, as the kernel tells (inotify). One program after the other, settle delay 0.",
        has_own_tree=True,
    ),
    "idle": Case(
        idle.idle,
        "All directories watched, one local Node in step, nothing changes: CPU time and bytes"
        " written by supervisord and every process below it.",
    ),
}
OPTIONAL = frozenset({"cold-start", "one-file", "steady", "fan-out", "backlog"})
"""Asked for by name: they need root, or long, or much memory."""
DEFAULT = tuple(name for name in CASES if name not in OPTIONAL)
