"""The samples in etc/ say what the programs that read them, and ours, understand."""

from __future__ import annotations

import configparser
import os
import shlex
from pathlib import Path

import click

from shardsync.cli.main import shardsync
from shardsync.control.limits import needed, recommended
from shardsync.control.tuning import read_sysctls, sysctl_text
from shardsync.errors import AlreadyRunning, SettingsError
from tests.support.sources import REPOSITORY

ETC = REPOSITORY / "etc"


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    parser.read(ETC / "shardsync.service")
    return parser


def include() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read(ETC / "supervisord-include.conf")
    return parser["program:shardsync"]


def is_up_in_the_foreground(command: str) -> bool:
    """Whether our own command line takes it as `up --foreground` with these settings."""
    program, name, *rest = shlex.split(command)
    found = shardsync.get_command(click.Context(shardsync), name)
    assert found is not None
    context = found.make_context(name, rest, resilient_parsing=False)
    return program.endswith("/bin/shardsync") and name == "up" and context.params["foreground"]


def test_the_systemd_unit_runs_up_in_the_foreground() -> None:
    """Supervisord is the unit's main process; it alone is told to stop."""
    service = unit()["Service"]
    assert is_up_in_the_foreground(service["ExecStart"])
    assert (service["Type"], service["KillMode"]) == ("exec", "mixed")


def test_what_a_restart_cannot_mend_is_not_restarted() -> None:
    """Refused settings and a second copy end the restarts, under systemd and supervisord alike."""
    final = {SettingsError.exit_code, AlreadyRunning.exit_code}
    systemd = unit()["Service"]["RestartPreventExitStatus"].split()
    assert {int(code) for code in systemd} == final
    assert {int(code) for code in include()["exitcodes"].split(",")} == final | {0}


def test_the_supervisord_include_runs_up_in_the_foreground() -> None:
    """The outer supervisord signals the inner one alone, and waits for its programs."""
    program = include()
    assert is_up_in_the_foreground(program["command"])
    assert program["stopasgroup"] == "false"
    assert int(program["stopwaitsecs"]) > 60


def test_the_sysctl_file_is_what_tune_prints() -> None:
    """For a million directories, on a machine with the kernel's defaults."""
    need = needed(1_000_000, shards=16, slots=32)
    text = (ETC / "sysctl.conf").read_text()
    assert text == sysctl_text(recommended(need), need)


def test_the_sysctl_file_raises_limits_that_exist() -> None:
    """Every key is one of this kernel's, and none lies below the kernel's default."""
    defaults = {"max_user_watches": 8192, "max_user_instances": 128, "max_queued_events": 16384}
    seen = read_sysctls(ETC / "sysctl.conf")
    assert all(Path("/proc/sys", *key.split(".")).exists() for key in seen)
    assert {key.removeprefix("fs.inotify.") for key in seen} == defaults.keys()
    assert all(seen[f"fs.inotify.{key}"] > value for key, value in defaults.items())


def test_logrotate_rotates_the_logs_and_tells_supervisord() -> None:
    """The folder and the pid file are those of the state directory."""
    text = (ETC / "logrotate.conf").read_text()
    rules = [line.strip() for line in text.splitlines() if line and not line.startswith("#")]
    assert rules[0] == "/var/lib/shardsync/logs/*.log {"
    assert rules[-1] == "}"
    assert "dateext" in rules
    assert rules.index("postrotate") < rules.index("endscript")
    assert 'kill -USR2 "$(cat /var/lib/shardsync/supervisord.pid)"' in text


def test_no_sample_names_a_file_that_is_not_there() -> None:
    """Every sample is plain text with an explanation on top."""
    for name in os.listdir(ETC):
        path = ETC / name
        if path.suffix in {".service", ".conf"}:
            assert path.read_text().startswith(("#", ";"))
