"""What is wrong with a settings file: one Problem each, all of them told at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from shardsync.errors import SettingsError
from shardsync.escape import printable_text


class Refusal(ValueError):
    """A value that cannot stand: `message` says why, `remedy` what to write instead."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that an operator must (or, as a warning, should) change.

    `key` is spelled as `config get` spells it (`node.web1.target`); "" is the
    file as a whole. `value` is as the file has it, None where it has none or
    where it may be a secret.
    """

    file: Path
    key: str
    message: str
    remedy: str
    value: object = None
    node: str | None = None

    def __str__(self) -> str:
        place = str(self.file)
        if self.key:
            place += f": {self.key}"
        if self.value is not None:
            place += f" = {toml_text(self.value)}"
        return printable_text(f"{place}: {self.message}") + "\n    " + printable_text(self.remedy)


class SettingsInvalid(SettingsError):
    """The settings file is refused; `problems` holds every reason, not just the first."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a table stands: its file, the key prefix `config get` knows it by, its Node if any."""

    file: Path
    prefix: str = ""
    node: str | None = None

    def key(self, name: str) -> str:
        """The full key of one entry of the table."""
        return f"{self.prefix}.{name}" if self.prefix and name else self.prefix or name


@dataclass(slots=True)
class Findings:
    """Collects Problems while the settings are read; nothing is raised until all was seen."""

    problems: list[Problem] = field(default_factory=list)

    def add(
        self, place: Place, name: str, message: str, remedy: str, *, value: object = None
    ) -> None:
        """Note one Problem with the entry `name` of the table at `place`."""
        self.problems.append(
            Problem(
                file=place.file,
                key=place.key(name),
                node=place.node,
                value=value,
                message=message,
                remedy=remedy,
            )
        )

    def refuse(self, place: Place, name: str, refusal: Refusal, *, value: object = None) -> None:
        """Note a Refusal of the entry `name`."""
        self.add(place, name, refusal.message, refusal.remedy, value=value)

    def raise_if_any(self) -> None:
        """Raise SettingsInvalid with everything noted so far, each Problem once."""
        if self.problems:
            raise SettingsInvalid(tuple({str(item): item for item in self.problems}.values()))


def toml_text(value: object) -> str:
    """`value` as the settings file spells it."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {toml_text(item)}" for key, item in value.items())
        return "{" + inner + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_text(item) for item in value) + "]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
