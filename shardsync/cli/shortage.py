"""What the machine lacks for these settings, in a word at the start: nothing waits for it."""

from __future__ import annotations

import contextlib

from shardsync.cli.invocation import Invocation
from shardsync.cli.output import tell
from shardsync.control.demand import demand
from shardsync.control.limits import Limits, present, shortfalls
from shardsync.control.processes import find


def machine_limits(call: Invocation) -> Limits:
    """What the machine has; what a running instance of ours has taken counts as free."""
    pids = [process.pid for process in find(call.state)]
    if not pids:
        return present()
    with contextlib.closing(call.status_reader()) as reader:
        watches = sum(shard.watches or 0 for shard in reader.read().shards)
    return present(pids=pids, watches=watches)


def warn_of_shortfalls(call: Invocation) -> None:
    """One line for the worst, and one that says where the rest is told."""
    lacking = shortfalls(demand(call.settings), machine_limits(call))
    if lacking:
        tell(f"warning: {lacking[0]}")
    if len(lacking) > 1:
        more = ", ".join(shortfall.what for shortfall in lacking[1:])
        tell(f"warning: too low as well: {more}; see `shardsync check`")
