"""Every fault has a test that is marked with it, and docs/guarantees.md says which."""

from __future__ import annotations

from tests.support.faults import GROUPS
from tools.fault_table import PAGE, marked, page

ROWS = [row for rows in GROUPS.values() for row in rows]


def test_every_fault_is_held_by_a_test_or_told_as_not_held() -> None:
    """A row without a marked test says what it lacks."""
    held = marked()
    assert [row.name for row in ROWS if row.name not in held and not row.lacks] == []


def test_every_marker_names_a_fault() -> None:
    """A name that is misspelled would hold nothing."""
    assert marked().keys() - {row.name for row in ROWS} == set()


def test_each_fault_is_told_once() -> None:
    """No two rows share a name, or what is done."""
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({row.what for row in ROWS}) == len(ROWS)


def test_the_table_is_made_from_the_markers() -> None:
    """Nobody edited it by hand; `tools/faults` writes it anew."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text)
