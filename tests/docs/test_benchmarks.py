"""docs/benchmarks.md and the README's figures are what tools/bench measured, and nothing else."""

from __future__ import annotations

import json
import re

from tools.benches import report
from tools.benches.cases import CASES, DEFAULT
from tools.benches.trees import SCALES

README = report.README.read_text(encoding="utf-8")
STORE = json.loads(report.STORE.read_text(encoding="utf-8"))


def figures_in_readme() -> str:
    return README.partition(report.BEGIN)[2].partition(report.END)[0]


def test_the_page_is_what_the_bench_makes_of_its_figures() -> None:
    """Nobody edited it by hand; `tools/bench --markdown` writes it anew."""
    assert report.PAGE.read_text(encoding="utf-8") == report.page(STORE)


def test_the_readme_quotes_the_figures_that_were_measured() -> None:
    """Its table is made from the same measurements as the page."""
    assert figures_in_readme() == report.figures(STORE)


def test_every_quoted_figure_stands_on_the_page() -> None:
    """Whoever looks a quoted figure up finds the very same text, under what was timed."""
    page = report.PAGE.read_text(encoding="utf-8")
    rows = figures_in_readme().splitlines()[2:]
    assert rows
    for row in rows:
        _, directories, ours, beside, quotient = (cell.strip() for cell in row[1:-1].split("|"))
        assert not directories or f" {directories} directories, " in page
        assert f"| {ours} |" in page
        if beside:
            name, _, figure = beside.partition(" ")
            assert re.search(rf"\| {re.escape(name)}[^|]* \| {re.escape(figure)} \|", page)
            assert f"| {quotient} |" in page


def test_every_measurement_tells_where_it_was_made() -> None:
    """Machine, kernel, file system, versions, date and commit stand beside each figure."""
    assert STORE["parts"]
    for part in STORE["parts"]:
        assert part["case"] in CASES
        assert part["scale"] in SCALES
        assert {
            "date", "commit", "cores", "RAM", "kernel", "file system", "rsync", "shardsync",
        } <= part["where"].keys()  # fmt: skip


def test_the_default_cases_need_no_root() -> None:
    """Dropping the page cache is asked for by name."""
    assert "cold-start" not in DEFAULT
    assert set(DEFAULT) <= set(CASES)
