"""docs/scaling.json, and the tables in docs/scaling.md that are made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tools.benches.scaling.model import Figure, Series, fit, medians, series_of
from tools.benches.table import amount, number

REPOSITORY = Path(__file__).resolve().parents[3]
STORE = REPOSITORY / "docs/scaling.json"
PAGE = REPOSITORY / "docs/scaling.md"
_MARKED = "<!-- {name}: made by tools/bench scaling -->\n", "<!-- /{name} -->\n"

Document = dict[str, Any]


def document(measured: Iterable[Series], where: dict[str, str]) -> Document:
    """A run as JSON: its series, each with where it was made."""
    return {"series": [{**series.document(), "where": where} for series in measured]}


def merged(old: Document, new: Document) -> Document:
    """`old` with every series that `new` has replaced, or added behind."""
    found = {series["name"]: series for series in [*old["series"], *new["series"]]}
    return {"series": list(found.values())}


def merge(measured: Iterable[Series], where: dict[str, str]) -> None:
    """Put a run into the store, and make the page's tables anew."""
    old = json.loads(STORE.read_text()) if STORE.exists() else {"series": []}
    store = merged(old, document(measured, where))
    STORE.write_text(json.dumps(store, indent=1) + "\n")
    if PAGE.exists():
        PAGE.write_text(with_tables(PAGE.read_text(), store))


def with_tables(page: str, store: Document) -> str:
    """The page with what lies between a series' marks replaced."""
    for raw in store["series"]:
        begin, end = (mark.format(name=raw["name"]) for mark in _MARKED)
        body = f"{table(series_of(raw))}\n\n{_place(raw['where'])}\n"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        page = re.sub(pattern, lambda _, text=begin + body + end: text, page, flags=re.DOTALL)  # type: ignore[misc]  # bound now
    return page


def table(series: Series) -> str:
    """What was done, a row for each figure, the notes."""
    sizes = sorted({x for figure in series.figures for x, _ in figure.points})
    step = number(series.step)
    headings = [
        series.variable,
        *(number(size) for size in sizes),
        f"each {step} more",
        "at none",
        "off the line",
        f"{number(series.target)}, by the line",
    ]
    lines = [series.about, "", _row(headings), _row(["---", *["---:"] * (len(headings) - 1)])]
    lines += [_row(_cells(series, figure, sizes)) for figure in series.figures]
    notes = [*_full_cores(series), *series.notes]
    if notes:
        lines += ["", *(f"* {note}" for note in notes)]
    return "\n".join(lines)


def _full_cores(series: Series) -> Iterator[str]:
    for figure in series.figures:
        line = fit(figure.points)
        if figure.unit == "%" and line.slope > 0:
            at = (100 - line.intercept) / line.slope
            yield f"{figure.name}: by the line a whole core at {number(round(at, -2))}"


def _cells(series: Series, figure: Figure, sizes: list[float]) -> list[str]:
    line, found = fit(figure.points), dict(medians(figure.points))
    return [
        f"{figure.name}, {figure.unit}",
        *(number(found[size]) if size in found else "" for size in sizes),
        amount(line.slope * series.step, figure.unit),
        number(line.intercept),
        f"{100 * line.worst:.0f} %",
        number(line.at(series.target)),
    ]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _place(where: dict[str, str]) -> str:
    told = ("date", "commit", "cores", "processor", "RAM", "kernel", "Python", "rsync")
    return (
        "Measured: " + ", ".join(f"{name} {where[name]}" for name in told if name in where) + "."
    )
