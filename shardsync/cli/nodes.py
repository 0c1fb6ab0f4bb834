"""`shardsync pause` and `shardsync resume`: Nodes stopped and started by hand."""

from __future__ import annotations

import click

from shardsync.cli.asking import Asker
from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, duration, examples, tree_option
from shardsync.cli.output import say
from shardsync.errors import UsageError
from shardsync.escape import printable_text
from shardsync.journal.requests import Request, RequestKind, new_request_id


@click.command(epilog=examples("shardsync pause web1", "shardsync pause web1 --for 2h"))
@click.argument("node", metavar="NODE")
@config_option
@tree_option
@click.option("--for", "seconds", type=duration, metavar="T", help="Resume by itself after that.")
@click.pass_obj
def pause(call: Invocation, node: str, tree: str | None, seconds: float | None) -> None:
    """Send nothing to NODE any more; its changes are kept and sent on resume."""
    key = call.one_node(tree, node)
    until = None if seconds is None else call.clock.wall_us() + int(seconds * 1_000_000)
    request = Request(
        id=new_request_id(),
        kind=RequestKind.PAUSE,
        tree=key[0],
        nodes=(node,),
        until_us=until,
    )
    Asker(call=call).ask(request, title="pause")
    say(f"paused {call.called((key,))}")


@click.command(
    epilog=examples(
        "shardsync resume web1",
        "shardsync resume web1 --allow-delete",
        "shardsync resume --accept-root",
    )
)
@click.argument("node", metavar="[NODE]", required=False)
@config_option
@tree_option
@click.option(
    "--allow-delete",
    is_flag=True,
    help="Make the deletions that are pending now, beyond max_delete.",
)
@click.option(
    "--adopt", is_flag=True, help="Own the node: what it has and the tree has not is deleted."
)
@click.option(
    "--accept-root", is_flag=True, help="Take the tree's root as it is now (another file system)."
)
@click.pass_obj
def resume(
    call: Invocation,
    node: str | None,
    tree: str | None,
    allow_delete: bool,
    adopt: bool,
    accept_root: bool,
) -> None:
    """Go on with NODE after a pause or a halt, or with a tree whose root was replaced."""
    if node is None and not accept_root:
        raise UsageError("which node?", hint="name it, or say --accept-root for a halted tree")
    if accept_root and (node is not None or allow_delete or adopt):
        raise UsageError("--accept-root is for a whole tree", hint="resume the node after it")
    if node is None:
        tree = call.one_tree(tree)
        resumed = f"tree {printable_text(tree)}"
    else:
        key = call.one_node(tree, node)
        tree, resumed = key[0], call.called((key,))
    request = Request(
        id=new_request_id(),
        kind=RequestKind.RESUME,
        tree=tree,
        nodes=() if node is None else (node,),
        allow_delete=allow_delete,
        adopt=adopt,
        accept_root=accept_root,
    )
    Asker(call=call).ask(request, title="resume")
    say(f"resumed {resumed}")
