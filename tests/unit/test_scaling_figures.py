"""What `tools/bench scaling` makes of its figures: lines, tables, pages. No process runs here."""

from __future__ import annotations

import json

import pytest

from tools.benches.scaling import page
from tools.benches.scaling.__main__ import SERIES
from tools.benches.scaling.model import Series, fit, medians, series_of


def measured() -> Series:
    """10 s, and 2 s more by each thousand; the second round of the largest is slow."""
    made = Series(
        name="directories", variable="directories", about="What is done.", step=1000, target=50_000
    )
    for size, seconds in ((1000, 12), (2000, 14), (3000, 16)):
        made.add("start", size, seconds, "s")
    return made


def test_a_line_goes_through_what_lies_on_one() -> None:
    """Slope and intercept are those that the points were made with, and nothing is off."""
    line = fit([(1000, 12), (2000, 14), (3000, 16)])
    assert (round(line.slope, 9), round(line.intercept, 9)) == (0.002, 10)
    assert line.at(50_000) == pytest.approx(110)
    assert line.worst == pytest.approx(0)


def test_what_lies_off_the_line_is_told() -> None:
    """How far the size lies off that lies off most, as a share of the largest figure."""
    line = fit([(0, 0), (1, 4), (2, 2)])
    assert line.slope == pytest.approx(1)
    assert line.intercept == pytest.approx(1)
    assert line.worst == pytest.approx(0.5)


def test_every_round_counts_for_the_line_and_the_median_is_shown() -> None:
    """One slow round moves the line less than a slow size."""
    made = measured()
    made.add("start", 3000, 20, "s")
    (figure,) = made.figures
    assert medians(figure.points) == [(1000, 12), (2000, 14), (3000, 18)]
    assert 0.002 < fit(figure.points).slope < 0.004


def test_a_table_tells_sizes_slope_intercept_and_where_it_leads() -> None:
    """A row for each figure."""
    made = measured()
    made.note("A word.")
    assert page.table(made).splitlines() == [
        "What is done.",
        "",
        (
            "| directories | 1,000 | 2,000 | 3,000 | each 1,000 more | at none | off the line |"
            " 50,000, by the line |"
        ),
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| start, s | 12 | 14 | 16 | 2 s | 10 | 0 % | 110 |",
        "",
        "* A word.",
    ]


def test_where_a_line_fills_a_core_is_told() -> None:
    """Of what is measured in percent of a core, and grows."""
    made = measured()
    for size in (1000, 2000, 3000):
        made.add("CPU, Watchers", size, 10 + size / 100, "%")
        made.add("CPU, the rest", size, 10 - size / 1000, "%")
    assert page.table(made).splitlines()[-2:] == [
        "",
        "* CPU, Watchers: by the line a whole core at 9,000",
    ]


def test_a_series_survives_json() -> None:
    """What is read back is what was measured."""
    made = measured()
    assert series_of(json.loads(json.dumps(made.document()))) == made


def test_a_run_replaces_only_what_it_measured() -> None:
    """The other tables stay, and so does the text around them."""
    store = page.document([measured()], {"date": "then", "Python": "3.11"})
    text = "".join(
        f"Of {name}.\n<!-- {name}: made by tools/bench scaling -->\nold\n<!-- /{name} -->\n"
        for name in ("directories", "nodes")
    )
    made = page.with_tables(text, store)
    assert made.startswith(
        "Of directories.\n<!-- directories: made by tools/bench scaling -->\nWh"
    )
    assert "| start, s |" in made
    assert "Measured: date then, Python 3.11.\n<!-- /directories -->\nOf nodes.\n" in made
    assert made.endswith("scaling -->\nold\n<!-- /nodes -->\n")
    other = Series(name="nodes", variable="Nodes", about="", step=1, target=200)
    both = page.merged(store, page.document([other], {}))
    assert [series["name"] for series in both["series"]] == ["directories", "nodes"]


def test_all_that_is_promised_is_measured() -> None:
    """Directories, Changes, Nodes and bytes."""
    assert SERIES == ("directories", "changes", "nodes", "bytes")
