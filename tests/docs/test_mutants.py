"""docs/guarantees.md says which tests notice that a rule was taken out."""

from __future__ import annotations

from tools.mutating.table import PAGE, page


def test_the_table_is_made_from_the_list() -> None:
    """Nobody edited it by hand; `tools/mutants --table` writes it anew."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text)
