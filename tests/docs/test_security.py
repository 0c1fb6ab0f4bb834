"""docs/security.md names tests that exist; what is installed is pinned."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.sources import REPOSITORY

PAGE = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (?!they try \||---)(.+) \| (.+) \| `(.+)` \|$", PAGE, re.MULTILINE)
LOCKS = ("requirements.lock", "requirements-dev.lock")


def test_every_row_is_read() -> None:
    """No line of a table escapes the tests below."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    heads = [line for line in lines if line.startswith(("| they try |", "| --- |"))]
    assert len(ROWS) == len(lines) - len(heads) >= 30


@pytest.mark.parametrize("test", sorted({test for _, _, test in ROWS}))
def test_each_named_test_exists(test: str) -> None:
    """File and function, so that a test that is renamed is renamed here."""
    file, _, name = test.partition("::")
    parsed = ast.parse((REPOSITORY / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in parsed.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("lock", LOCKS)
def test_nothing_is_installed_without_its_hash(lock: str) -> None:
    """Each package has one version and hashes, and the set-up demands them."""
    text = (REPOSITORY / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    packages = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(packages) >= 15
    assert [
        line for line in packages if not re.match(r"[a-z0-9._-]+==\S+ .*--hash=sha256:", line)
    ] == []
    setup = (REPOSITORY / "tools/setup.sh").read_text(encoding="utf-8")
    installs = [line for line in setup.splitlines() if re.match(r"\s+pip_install ", line)]
    assert len(installs) == 2
    assert "--require-hashes -r" in installs[0]
    assert "--no-deps --no-build-isolation" in installs[1]
