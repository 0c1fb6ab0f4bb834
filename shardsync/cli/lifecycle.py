"""`shardsync up` and `shardsync down`: everything started or stopped under supervisord."""

from __future__ import annotations

import click

from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, examples
from shardsync.cli.output import say
from shardsync.cli.shortage import warn_of_shortfalls
from shardsync.control.lifecycle import lifecycle


@click.command(epilog=examples("shardsync up", "shardsync up --foreground"))
@config_option
@click.option("--foreground", is_flag=True, help="Become supervisord, for systemd or a container.")
@click.pass_obj
def up(call: Invocation, foreground: bool) -> None:
    """Start everything; returns once the programs run.

    Processes that a killed supervisord left behind are ended first.
    """
    settings = call.settings
    warn_of_shortfalls(call)
    started = lifecycle(call.state, call.clock).up(settings, foreground=foreground)
    if started is None:
        return
    for process in started.ended:
        say(f"ended a leftover: {process.module}, pid {process.pid}")
    say(f"up: supervisord is pid {started.pid}, {len(started.programs)} programs run")
    say(f"  logs      {call.state.logs}")
    say(f"  programs  supervisorctl -c {call.state.supervisord_conf} status")


@click.command(epilog=examples("shardsync down"))
@config_option
@click.pass_obj
def down(call: Invocation) -> None:
    """Stop everything cleanly: what was seen is journaled, running batches end."""
    stopped = lifecycle(call.state, call.clock).down()
    for process in stopped.ended:
        say(f"ended a leftover: {process.module}, pid {process.pid}")
    if stopped.pid is None and not stopped.ended:
        say(f"nothing was running in {call.state.path}")
    else:
        say("down")
