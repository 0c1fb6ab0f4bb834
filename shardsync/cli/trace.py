"""`shardsync trace` answers: where is this file."""

from __future__ import annotations

import click

from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, examples, json_option, node_option, tree_option
from shardsync.cli.output import print_json, say
from shardsync.clock import rfc3339
from shardsync.escape import printable
from shardsync.observe.trace import Trace, Tracer, trace_document


@click.command(epilog=examples("shardsync trace news/index.html"))
@click.argument("path", metavar="PATH")
@config_option
@tree_option
@node_option
@json_option
@click.pass_obj
def trace(
    call: Invocation, path: str, tree: str | None, nodes: tuple[str, ...], as_json: bool
) -> None:
    """Show when PATH was modified, observed, journaled, and on each node.

    PATH is absolute, or relative to the tree's root.
    """
    name, relative = call.tree_path(path, tree)
    keys = call.nodes(name, nodes)
    tracer = Tracer(state=call.state, plan=call.plan(), root=call.root(name))
    found = tracer.trace(name, relative, keys)
    if as_json:
        print_json(trace_document(found))
        return
    _show(found)


def _show(found: Trace) -> None:
    change = found.change
    say(printable(found.path) or "(the root)")
    say(f"  modified   {rfc3339(found.modified_at_us) or 'does not exist'}")
    if change is None:
        say("  observed   no change of it in the journals")
        return
    covers = "" if change.path == found.path else f" (as part of {printable(change.path)}/)"
    say(f"  observed   {rfc3339(change.observed_at)}{covers}")
    say(f"  journaled  {rfc3339(found.journaled_at_us) or '-'}  {found.shard}:{change.position}")
    for node in found.nodes:
        say(f"  on {node.name}  {rfc3339(node.shipped_at_us) or 'not yet'}")
