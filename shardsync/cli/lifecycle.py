"""`shardsync up` and `shardsync down`: everything started or stopped under supervisord."""

from __future__ import annotations

import sys

import click

from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, examples, no_wait_option
from shardsync.cli.output import say, tell
from shardsync.cli.scanning import ScanWatch, tell_outcome
from shardsync.cli.shortage import warn_of_shortfalls
from shardsync.control.lifecycle import lifecycle

_PATIENCE_SECONDS = 900.0
"""After which `up` no longer shows how far the first scan is; it goes on."""


@click.command(epilog=examples("shardsync up", "shardsync up --foreground"))
@config_option
@click.option("--foreground", is_flag=True, help="Become supervisord, for systemd or a container.")
@no_wait_option
@click.pass_obj
def up(call: Invocation, foreground: bool, no_wait: bool) -> None:
    """Start everything; returns once the programs run.

    On a terminal it then shows how far the first scan is; Ctrl-C ends only that. Processes that a
    killed supervisord left behind are ended first.
    """
    began = call.clock.monotonic()
    settings = call.settings
    warn_of_shortfalls(call)
    started = lifecycle(call.state, call.clock).up(settings, foreground=foreground)
    if started is None:
        return
    if started.was_open is not None:
        was = f"its mode was {started.was_open:04o}, it is 0700 now"
        tell(f"warning: {call.state.path} was writable by others: {was}")
    for process in started.ended:
        say(f"ended a leftover: {process.module}, pid {process.pid}")
    say(f"up: supervisord is pid {started.pid}, {len(started.programs)} programs run")
    say(f"  logs      {call.state.logs}")
    say(f"  programs  supervisorctl -c {call.state.supervisord_conf} status")
    # A script, or whoever reads the output, wants to go on.
    if not no_wait and sys.stdout.isatty() and sys.stderr.isatty():
        _show_scan(call, began)


def _show_scan(call: Invocation, began: float) -> None:
    try:
        status = ScanWatch(call=call).follow(patience_seconds=_PATIENCE_SECONDS)
    except KeyboardInterrupt:
        tell("the scan goes on: `shardsync status` shows how far it is")
    else:
        tell_outcome(status, seconds=call.clock.monotonic() - began)


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
