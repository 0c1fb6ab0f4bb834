"""`shardsync flush`: wait until all that is on disk now is on the Nodes."""

from __future__ import annotations

import click

from shardsync.cli.asking import Asker
from shardsync.cli.barrier import Barrier
from shardsync.cli.daemons import Daemons, StoppedByHand
from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, duration, examples, node_option, tree_option
from shardsync.cli.output import Meter, say
from shardsync.errors import NodesFailed
from shardsync.journal.requests import Request, RequestKind, new_request_id
from shardsync.units import human_duration


@click.command(
    epilog=examples(
        "make site && shardsync flush && echo published",
        "shardsync flush --node web1 --timeout 30s",
    )
)
@config_option
@tree_option
@node_option
@click.option(
    "--timeout", type=duration, default="5m", show_default=True, help="Give up after that long."
)
@click.pass_obj
def flush(call: Invocation, tree: str | None, nodes: tuple[str, ...], timeout: float) -> None:
    """Wait until all that is on disk now is on the nodes.

    Exits 14, naming them, when some nodes do not have it in time, are halted
    or paused; 16 when the daemons are down.
    """
    began = call.clock.monotonic()
    keys = call.nodes(tree, nodes)
    if not keys:
        raise NodesFailed("flush: there is no node", hint="write a [[node]] into the settings")
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
        deadline_us=call.clock.wall_us() + int(left * 1_000_000),
    )
    Asker(call=call).ask(request, title="flush")
    say(f"flushed {call.called(keys)} in {human_duration(call.clock.monotonic() - began)}")


def wait_for_watchers(
    call: Invocation, trees: tuple[str, ...], timeout_seconds: float
) -> dict[str, int]:
    """Shard -> the Position up to which all that changed before this call is journaled."""
    with Meter(title="flush", clock=call.clock) as meter:
        barrier = Barrier(call=call, trees=trees, timeout_seconds=timeout_seconds)
        return barrier.pass_through(meter)
