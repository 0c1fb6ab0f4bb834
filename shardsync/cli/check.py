"""`shardsync check`: whether the settings are right, and whether each Node answers."""

from __future__ import annotations

import asyncio
import os
import shlex
from dataclasses import dataclass

import click

from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, examples, node_option, tree_option
from shardsync.cli.output import counted, say
from shardsync.cli.shortage import machine_limits
from shardsync.cli.transports import pin_roots, reach
from shardsync.config.advice import warnings
from shardsync.config.patterns import node_filter
from shardsync.config.settings import NodeSettings
from shardsync.control.demand import demand
from shardsync.control.limits import shortfalls
from shardsync.errors import NodeUnreachable
from shardsync.escape import printable_text
from shardsync.ship.command import Purpose, rsync_command
from shardsync.ship.root import RootGuard

_SOURCE_FD = 5
"""Shown in place of the number that the pinned root will have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    node: NodeSettings
    trouble: str
    notes: tuple[str, ...]


@click.command(epilog=examples("shardsync check", "shardsync check --node web1 --show-command"))
@config_option
@tree_option
@node_option
@click.option("--show-command", is_flag=True, help="Print the rsync line that each node gets.")
@click.pass_obj
def check(call: Invocation, tree: str | None, nodes: tuple[str, ...], show_command: bool) -> None:
    """Check the settings and the kernel's limits, then try each node; changes nothing.

    Exits 10 with every problem of the settings, 13 when a node does not answer, and 0 with mere
    warnings.
    """
    settings = call.settings
    keys = call.nodes(tree, nodes)
    chosen = [node for node in settings.nodes if node.key in keys]
    say(f"settings {settings.source}: ok")
    for warning in warnings(settings):
        say(f"warning: {warning}")
    _say_limits(call)
    if show_command:
        for node in chosen:
            say(f"{call.called((node.key,))}: {command_line(node)}")
    tried = asyncio.run(_try_all(call, chosen))
    for result in tried:
        notes = f" ({', '.join(result.notes)})" if result.notes else ""
        verdict = f"FAILED: {printable_text(result.trouble)}" if result.trouble else "answers"
        say(f"node {call.called((result.node.key,))} {result.node.target}: {verdict}{notes}")
    failed = [result.node.key for result in tried if result.trouble]
    if failed:
        raise NodeUnreachable(
            f"check: {call.called(failed)} failed",
            hint="what rsync said stands above; `shardsync check --show-command` prints its line",
        )


def _say_limits(call: Invocation) -> None:
    need = demand(call.settings)
    lacking = shortfalls(need, machine_limits(call))
    for shortfall in lacking:
        say(f"warning: {shortfall}")
    if not lacking:
        say(f"limits: enough for about {counted(need.directories, 'directory', 'directories')}")


def command_line(node: NodeSettings) -> str:
    """The rsync that ships this Node's Batches, as it could be typed (the list goes to stdin)."""
    path_filter = node_filter(node).rebased(os.fsencode(node.subtree))
    command = rsync_command(
        node=node,
        purpose=Purpose.BATCH,
        source_fd=_SOURCE_FD,
        environment={},
        filters=tuple(path_filter.rsync_arguments()),
        max_delete=None,
    )
    return printable_text(shlex.join(command.argv))


async def _try_all(call: Invocation, nodes: list[NodeSettings]) -> list[_Tried]:
    roots = pin_roots(call, {node.tree for node in nodes})
    try:
        return await asyncio.gather(*(_try(call, node, roots[node.tree]) for node in nodes))
    finally:
        for root in roots.values():
            root.release()


async def _try(call: Invocation, node: NodeSettings, root: RootGuard) -> _Tried:
    reached = reach(call, node, root)
    try:
        probe = await reached.transport.probe()
    finally:
        await reached.transport.close()
    notes = []
    if not probe.capabilities.delete_missing_args:
        notes.append("its rsync lacks --delete-missing-args: deletions take a second run")
    if not probe.capabilities.modify_window:
        notes.append("behind rrsync: renames are sent whole")
    trouble = probe.result.message if probe.result.trouble is not None else ""
    return _Tried(node=node, trouble=trouble, notes=tuple(notes))
