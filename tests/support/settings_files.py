"""Settings files for tests: a whole one that is accepted, with parts replaced or added."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shardsync.config.load import load_settings
from shardsync.config.problems import Problem, SettingsInvalid
from shardsync.config.settings import Settings

PARTS = {
    "tree": 'root = "$/tree"',
    "state": 'dir = "$/state"',
    "node": 'name = "web1"\ntarget = "$/node1"',
}


def settings_text(folder: Path, more: str = "", **parts: str) -> str:
    """TOML with `$` standing for `folder`; `parts` replace PARTS, `more` is added at the end."""
    used = {**PARTS, **parts}
    tables = [f"[{'[node]' if name == 'node' else name}]\n{body}" for name, body in used.items()]
    return "\n".join([*tables, more]).replace("$", str(folder))


def write_settings(folder: Path, text: str) -> Path:
    """`text` as folder/shardsync.toml, beside an empty tree/ and nothing else."""
    (folder / "tree").mkdir(exist_ok=True)
    file = folder / "shardsync.toml"
    file.write_text(text, encoding="utf-8")
    return file


def load(folder: Path, more: str = "", **parts: str) -> Settings:
    """The Settings of that text."""
    return load_text(folder, settings_text(folder, more, **parts))


def load_text(folder: Path, text: str, env: Mapping[str, str] | None = None) -> Settings:
    """The Settings of a whole text."""
    return load_settings(write_settings(folder, text), env or {}, folder)


def problems(folder: Path, more: str = "", **parts: str) -> list[tuple[str, str, str]]:
    """(key, message, remedy) of everything wrong with it, `folder` written as `$` again."""
    return refusals(folder, settings_text(folder, more, **parts))


def refusals(folder: Path, text: str) -> list[tuple[str, str, str]]:
    """As `problems`, of a whole text."""
    try:
        load_text(folder, text)
    except SettingsInvalid as refused:
        return [_shape(problem, folder) for problem in refused.problems]
    return []


def _shape(problem: Problem, folder: Path) -> tuple[str, str, str]:
    return (
        problem.key,
        problem.message.replace(str(folder), "$"),
        problem.remedy.replace(str(folder), "$"),
    )
