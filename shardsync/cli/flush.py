"""`shardsync flush`: wait until all that is on disk now is on the Nodes."""

from __future__ import annotations

import click

from shardsync.cli.asking import Asker
from shardsync.cli.barrier import Barrier
from shardsync.cli.daemons import Daemons, StoppedByHand
from shardsync.cli.invocation import Invocation
from shardsync.cli.options import (
    config_option,
    duration,
    examples,
    node_option,
    path_option,
    tree_option,
)
from shardsync.cli.output import Meter, say
from shardsync.errors import NodesFailed, UsageError
from shardsync.journal.requests import Request, RequestKind, new_request_id
from shardsync.units import human_duration


@click.command(
    epilog=examples(
        "make site && shardsync flush && echo published",
        "shardsync flush --node web1 --timeout 30s",
        "shardsync flush --path news/index.html --nodes 2",
    )
)
@config_option
@tree_option
@node_option
@path_option
@click.option(
    "--nodes",
    "enough",
    type=click.IntRange(min=1),
    metavar="N",
    help="Return when any N nodes have it.",
)
@click.option(
    "--timeout", type=duration, default="5m", show_default=True, help="Give up after that long."
)
@click.pass_obj
def flush(
    call: Invocation,
    tree: str | None,
    nodes: tuple[str, ...],
    path: str | None,
    enough: int | None,
    timeout: float,
) -> None:
    """Wait until all that is on disk now is on the nodes, or what concerns one path.

    Exits 14, naming them, when some nodes do not have it in time, are halted
    or paused; 16 when the daemons are down.
    """
    began = call.clock.monotonic()
    below = b""
    if path is not None:
        tree, below = call.tree_path(path, tree)
    keys = call.nodes(tree, nodes)
    if not keys:
        raise NodesFailed("flush: there is no node", hint="write a [[node]] into the settings")
    if enough is not None and enough > len(keys):
        raise UsageError(f"--nodes {enough}: there are only {len(keys)}: {call.called(keys)}")
    try:
        Daemons(call=call).require_sync()
    except StoppedByHand as error:
        # What an operator stopped does not come by waiting, as with a paused Node.
        raise NodesFailed(
            f"flush: {error}, not done: {call.called(keys)}", hint=error.remedy
        ) from error
    positions = wait_for_watchers(call, tuple({key[0] for key in keys}), timeout)
    left = max(0.0, timeout - (call.clock.monotonic() - began))
    request = Request(
        id=new_request_id(),
        kind=RequestKind.FLUSH,
        tree=tree or "",
        nodes=nodes,
        positions=positions,
        path=below,
        enough=enough or 0,
        deadline_us=call.clock.wall_us() + int(left * 1_000_000),
    )
    answer = Asker(call=call).ask(request, title="flush")
    flushed = answer.message if enough else call.called(keys)
    say(f"flushed {flushed} in {human_duration(call.clock.monotonic() - began)}")


def wait_for_watchers(
    call: Invocation, trees: tuple[str, ...], timeout_seconds: float
) -> dict[str, int]:
    """Shard -> the Position up to which all that changed before this call is journaled."""
    with Meter(title="flush", clock=call.clock) as meter:
        barrier = Barrier(call=call, trees=trees, timeout_seconds=timeout_seconds)
        return barrier.pass_through(meter)
