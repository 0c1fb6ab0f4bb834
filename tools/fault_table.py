"""Writes the table of faults in docs/guarantees.md: the rows, and the tests that are marked."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.faults import GROUPS, Fault

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs/guarantees.md"
BEGIN, END = "<!-- faults: made by tools/faults -->\n", "<!-- /faults -->\n"


def marked() -> dict[str, list[str]]:
    """Name of a row -> the tests that are marked with it, as `folder/file.py::test`, sorted."""
    found: dict[str, list[str]] = {}
    tests = REPOSITORY / "tests"
    for file in sorted(tests.rglob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for name in _names(node):
                    found.setdefault(name, []).append(f"{file.relative_to(tests)}::{node.name}")
    return found


def table(tests: dict[str, list[str]]) -> str:
    """The part of the page between BEGIN and END."""
    lines = []
    for heading, rows in GROUPS.items():
        lines += [
            f"### {heading}",
            "",
            "| fault | injected | what is seen | tests |",
            "| --- | --- | --- | --- |",
            *(_row(row, tests.get(row.name, [])) for row in rows),
            "",
        ]
    lines += ["### Not held", "", *_missing()]
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with its table made anew."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + table(marked()) + END + rest.partition(END)[2]


def _names(test: ast.FunctionDef) -> Iterator[str]:
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def _row(row: Fault, tests: list[str]) -> str:
    held = "<br>".join(f"`{test}`" for test in tests) or "not held, see below"
    return f"| {row.what} | {row.injected} | {row.seen} | {held} |"


def _missing() -> list[str]:
    return [f"* {row.what}: {row.lacks}." for rows in GROUPS.values() for row in rows if row.lacks]


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
