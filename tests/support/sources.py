"""The package's own source text as syntax trees, for tests that hold house rules."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One module: `name` is relative to the package, as in `journal/reader.py`."""

    name: str
    lines: tuple[str, ...]
    tree: ast.Module

    @property
    def part(self) -> str:
        """The folder below `shardsync/`, "" for the foundations."""
        return self.name.partition("/")[0] if "/" in self.name else ""


def source(name: str, text: str) -> Source:
    return Source(name=name, lines=tuple(text.splitlines()), tree=ast.parse(text))


def package_sources() -> list[Source]:
    """Every module of `shardsync/`."""
    package = REPOSITORY / "shardsync"
    return [
        source(str(path.relative_to(package)), path.read_text())
        for path in sorted(package.rglob("*.py"))
    ]
