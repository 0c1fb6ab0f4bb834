"""`shardsync status`: prints in every case, and tells by its exit code whether all is well."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import click
from rich.console import Console

from shardsync.cli.daemons import tell_stuck_plans
from shardsync.cli.invocation import Invocation
from shardsync.cli.live import LiveView
from shardsync.cli.options import config_option, examples, json_option, node_option, tree_option
from shardsync.cli.output import print_json, say, tell, tell_error
from shardsync.cli.tables import lines, tables
from shardsync.config.marks import settings_mark
from shardsync.errors import SettingsError, StateUnusable
from shardsync.journal.state_reader import StateReader
from shardsync.observe.status import Status, status_document


@click.command(
    epilog=examples(
        "shardsync status", "shardsync status --json | jq '.nodes[] | select(.lag_seconds > 60)'"
    )
)
@config_option
@tree_option
@node_option
@json_option
@click.pass_context
def status(ctx: click.Context, tree: str | None, nodes: tuple[str, ...], as_json: bool) -> None:
    """Show trees, shards and nodes: state, lag, last error.

    Exits 0 when all is well, 14 when something is not, 16 when nothing runs.
    """
    call: Invocation = ctx.obj
    _tell_settings_error(call)
    found = _chosen(call, call.status_reader().read(), tree, nodes)
    for problem in found.problems:
        tell(f"shardsync: {problem}")
    tell_stuck_plans(call)
    if as_json:
        print_json(status_document(found))
    else:
        _show(found, call)
    ctx.exit(found.exit_code)


@click.command(epilog=examples("shardsync top"))
@config_option
@tree_option
@click.pass_obj
def top(call: Invocation, tree: str | None) -> None:
    """Show the status live, until Ctrl-C."""
    if tree is not None:
        call.trees(tree)
    LiveView(reader=call.status_reader(), clock=call.clock, tree=tree).follow(lambda _: False)


def _chosen(call: Invocation, found: Status, tree: str | None, nodes: tuple[str, ...]) -> Status:
    if tree is not None:
        call.trees(tree)
        found = found.of_tree(tree)
    if nodes:
        keys = call.nodes(tree, nodes)
        found = replace(
            found, nodes=tuple(node for node in found.nodes if (node.tree, node.name) in keys)
        )
    return found


def _show(found: Status, call: Invocation) -> None:
    console = Console()
    if console.is_terminal:
        console.print(tables(found, call.clock.wall_us()))
    else:
        for line in lines(found):
            say(line)
    if found.is_down:
        tell(f"nothing runs in {call.state.path}: start it with `shardsync up`")


def _tell_settings_error(call: Invocation) -> None:
    """The running daemons may be well with the settings they have; the next start is not."""
    try:
        settings = call.settings
    except SettingsError as error:
        tell_error(error)
        return
    with (
        contextlib.suppress(StateUnusable),
        contextlib.closing(StateReader(call.state.state_db)) as reader,
    ):
        running = reader.settings()
        if call.liveness.sync() and running not in {"", settings_mark(settings)}:
            tell("the settings were changed since the daemons took them: `shardsync reload`")
