"""Options that many commands share, spelled once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from shardsync.cli.invocation import Invocation
from shardsync.errors import UsageError
from shardsync.units import duration_seconds

Function = TypeVar("Function", bound=Callable[..., Any])


def duration(text: str) -> float:
    """`10s`, `5m`, `2h` as seconds: a type for click. Raises UsageError."""
    try:
        return duration_seconds(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def examples(*commands: str) -> str:
    """The end of a command's help: lines that can be typed as they stand."""
    return "\n".join(("\b", "Examples:", *(f"  {command}" for command in commands)))


def _set_config(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    call = ctx.find_object(Invocation)
    if value is not None and call is not None:
        call.config = value


def config_option(function: Function) -> Function:
    """`--config FILE`, after the command's name as well as before it."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        callback=_set_config,
        expose_value=False,
        help="Settings file (else $SHARDSYNC_CONFIG, ./shardsync.toml, /etc/shardsync/).",
    )(function)


def tree_option(function: Function) -> Function:
    """`--tree T`."""
    return click.option("--tree", metavar="T", help="Only this tree.")(function)


def node_option(function: Function) -> Function:
    """`--node N`, repeatable."""
    return click.option(
        "--node", "nodes", metavar="N", multiple=True, help="Only this node (repeatable)."
    )(function)


def path_option(function: Function) -> Function:
    """`--path P`."""
    return click.option(
        "--path", metavar="P", help="Only this path and all below it, absolute or as in the tree."
    )(function)


def json_option(function: Function) -> Function:
    """`--json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
    )(function)


def no_wait_option(function: Function) -> Function:
    """`--no-wait`."""
    return click.option(
        "--no-wait", is_flag=True, help="Return at once; `shardsync status` tells the rest."
    )(function)


def patience_option(function: Function) -> Function:
    """`--timeout T`, for what goes on by itself."""
    return click.option(
        "--timeout",
        type=duration,
        metavar="T",
        help="Wait no longer than that; it goes on by itself.",
    )(function)


def deadline_us(call: Invocation, seconds: float | None) -> int | None:
    """When a wait of so many seconds is over, None for no end."""
    return None if seconds is None else call.clock.wall_us() + int(seconds * 1_000_000)
