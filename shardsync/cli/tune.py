"""`shardsync tune`: the kernel limits that the Trees need, printed, or written and loaded."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, examples
from shardsync.cli.output import say, tell
from shardsync.config.problems import Findings
from shardsync.config.source import find_file, read_tables, read_toml
from shardsync.control.counting import processors
from shardsync.control.demand import demand, need_of_roots
from shardsync.control.limits import Need, needed
from shardsync.control.tuning import Tuner, Tuning, is_root, sysctl_text
from shardsync.errors import SettingsError, UsageError

_DIRECTORIES = 1_000_000
"""Where there are no settings that name a Tree."""


@click.command(
    epilog=examples(
        "shardsync tune",
        "sudo shardsync tune --apply",
        "shardsync tune --directories 3000000 > 60-shardsync.conf",
    )
)
@config_option
@click.option("--apply", is_flag=True, help="Write the file and load it, as root.")
@click.option(
    "--directories",
    type=click.IntRange(min=1),
    metavar="N",
    help="For so many directories, whatever there are now.",
)
@click.pass_obj
def tune(call: Invocation, apply: bool, directories: int | None) -> None:
    """Print the sysctl.d file with the inotify limits that the trees need.

    Never lowers a limit. Without settings: for a million directories.
    """
    if apply and not is_root():
        raise UsageError("tune --apply must be run as root", hint=f"try: {_as_root(call)}")
    need = _need(call, directories)
    tuner = Tuner()
    if apply:
        _tell_applied(tuner, tuner.apply(need))
        return
    tuning = tuner.plan(need)
    say(sysctl_text(tuning.values, need).rstrip("\n"))
    if tuning.is_done:
        tell(f"nothing to do: {tuner.file} is there, and all of it is loaded")
    elif not tuning.changes:
        tell(f"the kernel has all of this; to keep it over a reboot: {_as_root(call)}")
    else:
        tell(f"to have it written to {tuner.file}, and loaded: {_as_root(call)}")


def _tell_applied(tuner: Tuner, tuning: Tuning) -> None:
    for change in tuning.changes:
        old = "unknown" if change.old is None else f"{change.old:,}"
        say(f"{change.key}: {old} -> {change.new:,}")
    if not tuning.is_written:
        say(f"written: {tuner.file}")
    if tuning.is_done:
        say(f"nothing to do: {tuner.file} is there, and all of it is loaded")
    elif tuning.changes:
        say("running Watchers take what they lacked within a minute, no restart is needed")
    for setting in tuner.overriding(tuning.values):
        tell(f"warning: {setting} is read later and will win at the next boot: remove it")


def _need(call: Invocation, directories: int | None) -> Need:
    """What to tune for. Raises SettingsError where the main file does not parse."""
    if directories is not None:
        return needed(directories, shards=processors())
    cwd = Path.cwd()
    file = find_file(call.config, call.env, cwd)
    if file is None:
        return needed(_DIRECTORIES, shards=processors())
    findings = Findings()
    read_toml(file, findings)
    findings.raise_if_any()
    try:
        return demand(call.settings)
    except SettingsError:
        tables, _ = read_tables(call.config, call.env, cwd)
        tell("the settings are refused (see `shardsync check`): only their roots are looked at")
        roots = [Path(tree.table.root) for tree in tables.trees if tree.table.root]
        return need_of_roots([root for root in roots if root.is_dir()], nodes=len(tables.nodes))


def _as_root(call: Invocation) -> str:
    """What to type: sudo has neither our PATH nor our environment."""
    program = os.path.abspath(sys.argv[0])
    own = program if os.path.basename(program) == "shardsync" else "shardsync"
    argv = ["sudo", own, "tune", "--apply"]
    file = find_file(call.config, call.env, Path.cwd())
    if file is not None:
        argv += ["--config", str(file)]
    return shlex.join(argv)
