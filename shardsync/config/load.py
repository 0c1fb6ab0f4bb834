"""The way in: a settings file becomes checked `Settings`, or one SettingsInvalid."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from shardsync.config.resolve import Resolver
from shardsync.config.settings import Settings
from shardsync.config.source import find_file, read_tables
from shardsync.config.validate import Machine, validate
from shardsync.errors import SettingsError
from shardsync.layout import StateDirectory

SYSTEM_STATE_DIR = Path("/var/lib/shardsync")


def load_settings(
    path: Path | None,
    env: Mapping[str, str],
    cwd: Path,
    *,
    root_must_exist: bool = True,
) -> Settings:
    """The settings that hold, checked. Raises SettingsInvalid with every Problem at once.

    The root of a Tree may be missing if `root_must_exist` is False, or if the
    state directory holds a Plan: it existed once, and its loss is for the
    Watchers to survive and to report, not a reason to refuse to start.
    """
    tables, findings = read_tables(path, env, cwd)
    resolved = Resolver(
        tables=tables, findings=findings, default_state_dir=default_state_dir(env)
    ).resolve()
    known = os.path.exists(StateDirectory(path=resolved.settings.state_dir).plan)
    validate(
        resolved,
        findings,
        machine=Machine(effective_uid=os.geteuid()),
        root_must_exist=root_must_exist and not known,
    )
    findings.raise_if_any()
    return resolved.settings


def load_again(path: Path, env: Mapping[str, str], cwd: Path, *, state_dir: Path) -> Settings:
    """The settings that a running daemon is to go on with. Raises SettingsError, also where they
    name another state directory than the one it runs in.
    """
    settings = load_settings(path, env, cwd, root_must_exist=False)
    refuse_other_state_dir(settings, state_dir)
    return settings


def refuse_other_state_dir(settings: Settings, running: Path) -> None:
    """Raise SettingsError unless these settings are for what runs in `running`."""
    if os.path.realpath(settings.state_dir) != os.path.realpath(running):
        raise SettingsError(
            f"{settings.source}: state.dir = {settings.state_dir}: the daemons run in {running},"
            " and cannot move while they run",
            hint="`shardsync down` with the old settings, move the folder, `shardsync up`",
        )


def default_state_dir(env: Mapping[str, str]) -> Path:
    """Where the state lies if the settings do not say: root's place, or the user's."""
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIR
    return user_state_dir(env)


def user_state_dir(env: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/shardsync`, by the XDG base directory specification."""
    home = env.get("XDG_STATE_HOME", "")
    if os.path.isabs(home):
        return Path(home) / "shardsync"
    return Path(env.get("HOME") or os.path.expanduser("~")) / ".local/state/shardsync"


def find_state_dir(path: Path | None, env: Mapping[str, str], cwd: Path) -> Path:
    """The state directory that the settings name, whatever else is wrong with them; never raises.

    For the commands that must work with a wrong settings file. Where the file
    is no TOML at all, its `[state] dir` line is still read.
    """
    source = find_file(path, env, cwd)
    text = _text(source)
    named = _named_dir(text)
    return Path(named) if named else default_state_dir(env)


def _text(source: Path | None) -> str:
    if source is None:
        return ""
    try:
        return source.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _named_dir(text: str) -> str | None:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        tables = _only_state_table(text)
    state = tables.get("state")
    named = state.get("dir") if isinstance(state, dict) else None
    return named if isinstance(named, str) and os.path.isabs(named) else None


def _only_state_table(text: str) -> dict[str, object]:
    """`{"state": {"dir": ...}}` from a file whose other lines may be no TOML."""
    table = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            table = stripped
        wanted = table.startswith("[state]") and stripped.startswith("dir")
        if wanted or stripped.startswith("state.dir"):
            try:
                found = tomllib.loads(stripped)
            except tomllib.TOMLDecodeError:
                continue
            return found if "state" in found else {"state": found}
    return {}
