"""What the bench makes of its figures: medians, ratios, tables, pages. No process runs here."""

from __future__ import annotations

import json

from tools.benches import report, table
from tools.benches.cases import CASES
from tools.benches.cases.changed import Made, verdict
from tools.benches.model import Part, part_of, ratio, rotated
from tools.benches.trees import SCALES


def part(case: str = "warm-start", scale: str = "10k") -> Part:
    made = Part(case=case, scale=scale, about="What is timed.")
    for value in (3.0, 1.0, 2.0):
        made.add("shardsync", "start to watching", value)
        made.add("lsyncd", "start to watching", 2 * value)
    return made


def test_every_program_comes_first_in_its_turn() -> None:
    """Rounds rotate the order and leave nobody out."""
    assert rotated(["a", "b", "c"], 0) == ["a", "b", "c"]
    assert rotated(["a", "b", "c"], 4) == ["b", "c", "a"]
    assert rotated([], 1) == []


def test_a_row_is_summed_up_by_its_median_and_its_ends() -> None:
    """The table shows the median, min, max, the number of rounds, and our part of a peer's."""
    ours, theirs = table.cells(part().rows)
    assert ours == ("start to watching", "shardsync", "2 s", "1", "3", "3", "")
    assert theirs == ("start to watching", "lsyncd", "4 s", "2", "6", "3", "0.50")


def test_nothing_is_compared_with_nothing() -> None:
    """A peer's figure that we do not have, or that is 0, has no ratio."""
    made = part()
    made.add("lsyncd", "of its own", 3)
    made.add("shardsync", "runs", 1, "")
    made.add("rsync", "runs", 0, "")
    by_name = {(row.program, row.figure): row for row in made.rows}
    assert ratio(made.rows, by_name["lsyncd", "of its own"]) is None
    assert ratio(made.rows, by_name["rsync", "runs"]) is None
    assert ratio(made.rows, by_name["shardsync", "start to watching"]) is None


def test_figures_keep_three_digits_that_tell() -> None:
    """Large numbers are grouped, small ones not rounded to nothing."""
    numbers = (0, 12_345.6, 123.456, 12.345, 1.2345, 0.01234)
    assert [table.number(n) for n in numbers] == ["0", "12,346", "123", "12.3", "1.23", "0.012"]


def test_a_check_that_once_failed_is_shown_as_failed() -> None:
    """A later round does not cover up an earlier one, and the run is not well."""
    made = part()
    for is_met in (True, False, True):
        made.check("no Change was journaled", is_met, "0" if is_met else "7")
    assert not made.is_well
    assert "NOT no Change was journaled (7)" in table.text(made)
    assert "no Change was journaled (0)" not in table.text(made)


def test_a_part_survives_json() -> None:
    """What was written is what is read."""
    made = part()
    made.check("is so", True, "because")
    made.note("a word")
    assert part_of(json.loads(json.dumps(made.document()))) == made


def test_a_run_replaces_only_what_it_measured() -> None:
    """Parts of other cases and scales stay, with where they were made."""
    old = report.document([part(), part("idle"), part(scale="1m")], {"date": "then"})
    new = report.document([part()], {"date": "now"})
    store = report.merged(old, new)
    places = {(p["scale"], p["case"]): p["where"]["date"] for p in store["parts"]}
    assert places == {
        ("1m", "warm-start"): "then",
        ("10k", "warm-start"): "now",
        ("10k", "idle"): "then",
    }


def test_the_readme_tells_the_largest_scale_that_was_measured() -> None:
    """And gets its figures between its marks, all else untouched."""
    store = report.merged(
        {"parts": []}, report.document([part(), part(scale="1m")], {"date": "now"})
    )
    block = report.figures(store)
    assert "| 1,001,011 | 2 s | lsyncd 4 s | 0.50 |" in block
    readme = f"before\n{report.BEGIN}old\n{report.END}after\n"
    assert (
        report.with_figures(readme, block) == f"before\n{report.BEGIN}{block}{report.END}after\n"
    )
    assert report.with_figures("no marks\n", block) == "no marks\n"


def test_the_scales_are_those_that_are_promised() -> None:
    """1m is 1,001,011 directories and 1,000,000 files."""
    sizes = {name: (scale.directories, scale.files) for name, scale in SCALES.items()}
    assert sizes["1m"] == (1_001_011, 1_000_000)
    assert sizes["100k"] == (100_111, 100_000)
    assert sizes["10k"] == (10_111, 10_000)
    assert SCALES["1m"].leaf(999_999) == "d09/s099/p0999"


def test_every_case_says_what_it_measures() -> None:
    """A figure nobody can read is no figure."""
    for name, case in CASES.items():
        assert case.about.endswith("."), name


MADE = Made(rewritten=("a/f",), deleted=("b/f",), moved_in=("c/in-1",), renamed={"big-0": "big-1"})


def test_what_is_not_journaled_is_missed() -> None:
    """A rewrite by its path, a deletion by its path or its directory's."""
    everything = [b"a/f", b"b", b"c/in-1", b"big-1"]
    assert verdict(MADE, everything) == ([], [])
    assert verdict(MADE, [b"a/f", b"b/f", b"c/in-1", b"big-1"]) == ([], [])
    assert verdict(MADE, everything[1:])[0] == [b"a/f"]
    assert verdict(MADE, [b"a/f", b"c/in-1", b"big-1"])[0] == [b"b/f"]


def test_what_did_not_change_is_beyond() -> None:
    """Directories that lost or gained a name are not; their other children are."""
    told = [b"a/f", b"b", b"c/in-1", b"big-1", b"", b"c", b"big-0"]
    assert verdict(MADE, [*told, b"a", b"big-1/f0"]) == ([], [b"a", b"big-1/f0"])
