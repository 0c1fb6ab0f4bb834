"""`shardsync config get`: the settings as they are understood."""

from __future__ import annotations

import click

from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, examples
from shardsync.cli.output import say
from shardsync.config import lookup


@click.group
def config() -> None:
    """Look at the settings as they are understood."""


@config.command(
    epilog=examples("shardsync config get state.dir", "shardsync config get node.web1")
)
@click.argument("key", metavar="KEY")
@config_option
@click.pass_obj
def get(call: Invocation, key: str) -> None:
    """Print the value that holds for KEY, defaults included."""
    say(lookup.text(lookup.get(call.settings, key)))
