"""The list of safety rules to be taken out (tools/mutating) fits the source as it is.

That their tests notice is tried by `tools/mutants`, which takes minutes and is no part of CI.
"""

from __future__ import annotations

import ast

import pytest

from tests.support.sources import REPOSITORY
from tools.mutating.mutant import Lost, Mutant
from tools.mutating.rules import MUTANTS

PLAIN = Mutant(
    name="x",
    rule="x",
    file="shardsync/x.py",
    edits=(("a = 1", "a = 2"),),
    tests=("tests/x.py::x",),
)


def read(file: str) -> str:
    return (REPOSITORY / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_source(mutant: Mutant) -> None:
    """Whoever changes a rule's code changes its mutant, which parses, and differs."""
    text = read(mutant.file)
    assert ast.dump(ast.parse(mutant.applied(text))) != ast.dump(ast.parse(text))


def test_each_named_test_exists() -> None:
    """A test that is renamed is renamed there."""
    named = {test for mutant in MUTANTS for test in mutant.tests}
    files = {test.partition("::")[0] for test in named}
    there = {
        f"{file}::{node.name}"
        for file in files
        for node in ast.parse(read(file)).body
        if isinstance(node, ast.FunctionDef)
    }
    assert named - there == set()


def test_each_rule_is_taken_out_once() -> None:
    """No two mutants share a name, a rule, or an edit."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 24
    assert len({mutant.rule for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.edits) for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.tests for mutant in MUTANTS)


@pytest.mark.parametrize("text", ["a = 3", "a = 1\na = 1"])
def test_what_does_not_stand_there_exactly_once_is_lost(text: str) -> None:
    """A mutant is never applied to something else than it was written for."""
    with pytest.raises(Lost, match=r"x: . times in shardsync/x\.py"):
        PLAIN.applied(text)


def test_a_mutant_changes_its_piece_alone() -> None:
    """All else of the file stays."""
    assert PLAIN.applied("import b\na = 1\n") == "import b\na = 2\n"
