"""`shardsync reconcile`: full comparison and repair of Nodes."""

from __future__ import annotations

import click

from shardsync.cli.asking import Asker
from shardsync.cli.invocation import Invocation
from shardsync.cli.options import (
    config_option,
    deadline_us,
    examples,
    no_wait_option,
    node_option,
    path_option,
    patience_option,
    tree_option,
)
from shardsync.cli.output import say
from shardsync.journal.requests import Request, RequestKind, new_request_id


@click.command(
    epilog=examples(
        "shardsync reconcile --node web2",
        "shardsync reconcile --path news/2026",
        "shardsync reconcile --node web2 --checksum",
    )
)
@config_option
@tree_option
@node_option
@path_option
@click.option("--checksum", is_flag=True, help="Compare contents, not only size and time.")
@patience_option
@no_wait_option
@click.pass_obj
def reconcile(
    call: Invocation,
    tree: str | None,
    nodes: tuple[str, ...],
    path: str | None,
    checksum: bool,
    timeout: float | None,
    no_wait: bool,
) -> None:
    """Compare nodes with the whole tree, or with a part of it, and repair them.

    For a node that was changed by hand or restored from an old copy.
    """
    below = b""
    if path is not None:
        tree, below = call.tree_path(path, tree)
    keys = call.nodes(tree, nodes)
    request = Request(
        id=new_request_id(),
        kind=RequestKind.RECONCILE,
        tree=tree or "",
        nodes=nodes,
        path=below,
        checksum=checksum,
        deadline_us=deadline_us(call, timeout),
    )
    asker = Asker(call=call)
    if no_wait:
        asker.send(request)
        say("reconcile begun: `shardsync status` shows how far it is")
        return
    asker.ask(request, title="reconcile")
    say(f"reconciled {call.called(keys)}")
