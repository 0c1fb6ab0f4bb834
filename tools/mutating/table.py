"""The table of mutants in docs/guarantees.md: made from their list, never by hand."""

from __future__ import annotations

from tools.mutating.copy import REPOSITORY
from tools.mutating.mutant import Mutant
from tools.mutating.rules import GROUPS

PAGE = REPOSITORY / "docs/guarantees.md"
BEGIN, END = "<!-- mutants: made by tools/mutants --table -->\n", "<!-- /mutants -->\n"


def table() -> str:
    """The part of the page between BEGIN and END."""
    lines = []
    for heading, mutants in GROUPS.items():
        lines += [
            f"### {heading}",
            "",
            "| taken out | the rule | in | tests that fail |",
            "| --- | --- | --- | --- |",
            *(_row(mutant) for mutant in mutants),
            "",
        ]
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its table made anew."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + table() + END + rest.partition(END)[2]


def _row(mutant: Mutant) -> str:
    tests = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in mutant.tests)
    file = mutant.file.removeprefix("shardsync/")
    return f"| {mutant.name} | {mutant.rule} | `{file}` | {tests} |"
