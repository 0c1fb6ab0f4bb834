"""supervisord.conf as text: which programs run, and how supervisord keeps them.

Pure: names and paths in, text out. Program names, the group and the file's
place are part of the outside contract (`supervisorctl start shardsync:*`).
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from shardsync.layout import StateDirectory

GROUP = "shardsync"
COORDINATOR = f"{GROUP}:coordinator"
SYNC = f"{GROUP}:sync"
COORDINATOR_MODULE = "shardsync.control.coordinator"
SYNC_MODULE = "shardsync.cli.sync_process"
WATCHER_MODULE = "shardsync.watch.slot"
MODULES = (COORDINATOR_MODULE, SYNC_MODULE, WATCHER_MODULE)

_POOL_MAX = 16
_OPEN_FILES = 1024
"""Supervisor's own default."""

# The paths come from `%(here)s`, the folder of the file itself: a path with ` ;` or ` #` in it
# cannot be written as a value, because supervisor takes the rest for a comment.
_HEAD = """\
; Made by shardsync at each `up`: changes to this file are lost.
[unix_http_server]
file = %(here)s/supervisor.sock
chmod = 0700

[supervisord]
identifier = shardsync
directory = %(here)s
logfile = %(here)s/logs/supervisord.log
logfile_maxbytes = 20MB
logfile_backups = 5
pidfile = %(here)s/supervisord.pid
childlogdir = %(here)s/logs
nocleanup = true
umask = 077
; Open files that each program may have: raised up to what the system allows.
minfds = {open_files}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://%(here)s/supervisor.sock
prompt = shardsync

[group:shardsync]
programs = coordinator,sync,watcher
"""

# startsecs: 1 is racy (Supervisor). stopasgroup, killasgroup: rsyncs end with their parent.
# umask: supervisord's own 077 would give a Node's new folders wrong modes. stdout_logfile is
# expanded twice (Supervisor 4.3, `processes_from_section`), hence its `%%`.
_PROGRAM = """
[program:{name}]
command = {command}
process_name = {process_name}
numprocs = {numprocs}
autostart = {autostart}
autorestart = true
startsecs = 2
startretries = 10
stopsignal = TERM
stopwaitsecs = {stopwait_seconds}
stopasgroup = true
killasgroup = true
umask = 022
priority = {priority}
redirect_stderr = true
stdout_logfile = %%(here)s/logs/{process_name}.log
stdout_logfile_maxbytes = 20MB
stdout_logfile_backups = 5
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """The argv of each program; a Watcher's ends with `--slot` and gets its number added."""

    coordinator: tuple[str, ...]
    sync: tuple[str, ...]
    watcher: tuple[str, ...]


def commands(
    state: StateDirectory, settings_file: Path, python: tuple[str, ...] = (sys.executable,)
) -> Commands:
    """The programs' commands for one state directory and one settings file, both absolute."""

    def run(module: str) -> tuple[str, ...]:
        return (
            *python,
            "-m",
            module,
            "--state",
            str(state.path),
            "--settings",
            str(settings_file),
        )

    return Commands(
        coordinator=run(COORDINATOR_MODULE),
        sync=run(SYNC_MODULE),
        watcher=(*run(WATCHER_MODULE), "--slot"),
    )


def slot_program(slot: int) -> str:
    """`shardsync:watcher-NN`."""
    return f"{GROUP}:watcher-{slot:02d}"


def pool_size(wanted: int, *, observing: int = 0) -> int:
    """How many Watcher slots to make for `wanted` Shards, where `observing` do now.

    Twice the wanted, so that a re-plan finds free slots, at most 16; more
    only where more are planned: a re-plan due at this start, to another
    number, needs slots for the old and the new at once.
    """
    replanned = 0 if observing == wanted else wanted + observing
    return max(min(2 * wanted, _POOL_MAX), wanted, replanned)


def build_conf(programs: Commands, *, pool: int, open_files: int = _OPEN_FILES) -> str:
    """The text of supervisord.conf. The Watchers are started by the Coordinator alone.

    `open_files`: supervisord does not start where it cannot have so many.
    """
    return _HEAD.replace("{open_files}", f"{open_files}") + "".join(
        (
            _program("coordinator", programs.coordinator, priority=100, stopwait_seconds=20),
            _program("sync", programs.sync, priority=300, stopwait_seconds=30),
            _PROGRAM.format(
                name="watcher",
                command=f"{_quote(programs.watcher)} %(process_num)02d",
                process_name="watcher-%(process_num)02d",
                numprocs=pool,
                autostart="false",
                priority=200,
                # A Watcher drains its kernel queue and commits before it ends.
                stopwait_seconds=30,
            ),
        )
    )


def _program(name: str, command: tuple[str, ...], *, priority: int, stopwait_seconds: int) -> str:
    return _PROGRAM.format(
        name=name,
        command=_quote(command),
        process_name=name,
        numprocs=1,
        autostart="true",
        priority=priority,
        stopwait_seconds=stopwait_seconds,
    )


def _quote(argv: tuple[str, ...]) -> str:
    """`argv` as supervisor reads it back: shlex, `%` doubled, and no comment seen in it.

    A `;` or `#` after white space starts a comment even inside quotes; an
    empty `''` between the two prevents that and means nothing to shlex.
    """
    text = shlex.join(argv).replace("%", "%%")
    for mark in ";#":
        text = text.replace(f" {mark}", f" ''{mark}").replace(f"\t{mark}", f"\t''{mark}")
    return text
