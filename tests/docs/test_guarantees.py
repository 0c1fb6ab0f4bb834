"""docs/guarantees.md names tests that exist, for enough rules."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.sources import REPOSITORY
from tools.fault_table import BEGIN

PAGE = (REPOSITORY / "docs/guarantees.md").read_text(encoding="utf-8").partition(BEGIN)[0]
ROWS = re.findall(r"^\| (?!rule \||---)(.+) \| (.+) \| `(.+)` \|$", PAGE, re.MULTILINE)


def test_every_row_is_read() -> None:
    """No line of a table escapes the tests below."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    heads = [line for line in lines if line.startswith(("| rule |", "| --- |"))]
    assert len(ROWS) == len(lines) - len(heads) >= 20


@pytest.mark.parametrize("test", sorted({test for _, _, test in ROWS}))
def test_each_named_test_exists(test: str) -> None:
    """File and function, so that a test that is renamed is renamed here."""
    file, _, name = test.partition("::")
    parsed = ast.parse((REPOSITORY / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in parsed.body if isinstance(node, ast.FunctionDef)}


def test_each_rule_is_told_once() -> None:
    """No two rows tell of the same rule."""
    rules = [rule for rule, _, _ in ROWS]
    assert len(rules) == len(set(rules))
