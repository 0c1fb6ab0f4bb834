"""supervisord.conf: names of the contract, a pool of the right size, commands that survive it."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import pytest

from shardsync.control.programs import build_conf, commands, pool_size, slot_program
from shardsync.control.supervisord import Program, ProgramState
from shardsync.layout import StateDirectory


def parsed(path: str) -> configparser.RawConfigParser:
    """The file as supervisor reads it: both marks start a comment after white space."""
    state = StateDirectory(path=Path(path))
    text = build_conf(commands(state, Path(path) / "s.toml", python=("py",)), pool=4)
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(text)
    return parser


@pytest.mark.parametrize(
    "path", ["/var/lib/x", "/a b", "/a ;b", "/a #b", "/50%d", "/it's", "/a\t#b"]
)
def test_a_command_survives_supervisors_reading(path: str) -> None:
    """Whatever the folder is called, supervisord runs exactly our argv."""
    command = parsed(path)["program:watcher"]["command"] % {"process_num": 3}
    assert shlex.split(command) == [
        "py", "-m", "shardsync.watch.slot", "--state", path, "--settings", f"{path}/s.toml",
        "--slot", "03",
    ]  # fmt: skip


def test_supervisord_gives_its_programs_the_open_files_they_need() -> None:
    """Beyond the 1,024 that a shell gives: many Nodes have many pipes."""
    state = StateDirectory(path=Path("/var/lib/x"))
    programs = commands(state, Path("/s.toml"), python=("py",))
    assert "\nminfds = 1024\n" in build_conf(programs, pool=4)
    assert "\nminfds = 5000\n" in build_conf(programs, pool=4, open_files=5000)


def test_programs_are_named_and_kept_as_promised() -> None:
    """One group, a pool that only the Coordinator starts, groups of processes ended whole."""
    conf = parsed("/var/lib/x")
    assert conf["group:shardsync"]["programs"] == "coordinator,sync,watcher"
    assert slot_program(7) == "shardsync:watcher-07"
    pool = conf["program:watcher"]
    assert (pool["numprocs"], pool["autostart"], pool["process_name"]) == (
        "4",
        "false",
        "watcher-%(process_num)02d",
    )
    for name in ("coordinator", "sync", "watcher"):
        program = conf[f"program:{name}"]
        assert [program[key] for key in ("stopasgroup", "killasgroup", "autorestart")] == [
            "true"
        ] * 3
        assert int(program["startsecs"]) >= 2
        assert program["stdout_logfile_maxbytes"] == "20MB"
        assert "user" not in program
    assert conf["unix_http_server"]["chmod"] == "0700"


@pytest.mark.parametrize(
    ("wanted", "observing", "pool"),
    [(1, 0, 2), (2, 2, 4), (8, 8, 16), (12, 12, 16), (20, 20, 20), (4, 2, 8), (12, 10, 22)],
)
def test_the_pool_is_twice_the_planned_within_bounds(
    wanted: int, observing: int, pool: int
) -> None:
    """At most 16, unless more are planned or a re-plan at this start needs both sets at once."""
    assert pool_size(wanted, observing=observing) == pool


def test_a_program_that_was_killed_will_be_back() -> None:
    """Supervisord has it EXITED for a moment; only what was stopped or given up stays down."""
    down = {
        state
        for state in ProgramState
        if not Program(name="shardsync:sync", state=state, pid=None, description="").is_up
    }
    assert down == {
        ProgramState.STOPPED,
        ProgramState.STOPPING,
        ProgramState.FATAL,
        ProgramState.UNKNOWN,
    }
