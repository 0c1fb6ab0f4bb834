"""Where figures are kept: docs/benchmarks.json, and what is made of it for readers.

The JSON holds one part for each case and scale, with where it was made; a new
run replaces the parts that it measured. docs/benchmarks.md and the figures in
the README are made from it and from nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.benches import table
from tools.benches.cases import CASES
from tools.benches.model import US, Part, Row, part_of, ratio
from tools.benches.trees import SCALES

REPOSITORY = Path(__file__).resolve().parents[2]
STORE = REPOSITORY / "docs/benchmarks.json"
PAGE = REPOSITORY / "docs/benchmarks.md"
README = REPOSITORY / "README.md"
BEGIN, END = "<!-- figures: made by tools/bench --markdown -->\n", "<!-- /figures -->\n"

Document = dict[str, Any]


def document(parts: Sequence[Part], where: dict[str, str]) -> Document:
    """One run as JSON: its parts, each with where it was made."""
    return {"parts": [{**part.document(), "where": where} for part in parts]}


def merged(old: Document, new: Document) -> Document:
    """`old` with every part that `new` has replaced, in order of scale and case."""
    found = {(part["scale"], part["case"]): part for part in [*old["parts"], *new["parts"]]}
    scales, cases = list(SCALES), list(CASES)
    return {
        "parts": sorted(
            (part for part in found.values() if part["scale"] in scales and part["case"] in cases),
            key=lambda part: (-scales.index(part["scale"]), cases.index(part["case"])),
        )
    }


def merge(parts: Sequence[Part], where: dict[str, str]) -> None:
    """Put a run into the store, and make page and README anew."""
    old = json.loads(STORE.read_text()) if STORE.exists() else {"parts": []}
    store = merged(old, document(parts, where))
    STORE.write_text(json.dumps(store, indent=1) + "\n")
    PAGE.write_text(page(store))
    README.write_text(with_figures(README.read_text(), figures(store)))


def page(store: Document) -> str:
    """docs/benchmarks.md."""
    lines = [_HEAD]
    for scale in dict.fromkeys(part["scale"] for part in store["parts"]):
        size = SCALES[scale]
        lines.append(f"\n## {scale}: {size.directories:,} directories, {size.files:,} files")
        places: list[dict[str, str]] = []
        for part in store["parts"]:
            if part["scale"] != scale:
                continue
            if part["where"] not in places:
                places.append(part["where"])
            run = places.index(part["where"]) + 1
            lines.append(f"\n### {scale}: {part['case']}\n")
            lines.append(table.markdown(part_of(part)) + f"\n\nRun {run}.")
        lines.append(f"\n### {scale}: where it was measured\n")
        for number, where in enumerate(places, start=1):
            words = ", ".join(f"{name} {value}" for name, value in where.items())
            lines.append(f"* Run {number}: {words}.")
    return "\n".join(lines) + "\n"


_HEAD = """\
# Benchmarks

Made by `tools/bench --markdown`; do not edit. Programs run by turns in one run, in an order that
rotates; figures are medians of the rounds, with the least and the greatest. **Ours by it** is
shardsync's median divided by that program's: of a time or a size, below 1 means that shardsync
needs less. Times are for comparing programs within one run, not machines.

Measure on a machine of your own (`10k`, `100k`, `1m`: leaf directories, a file in each):

    tools/bench --scale 100k --case warm-start restart"""


def _asked(store: Document) -> list[tuple[str, Part, str, str]]:
    """(words, part, figure, peer) of what the README tells, at the largest scale that has it."""
    found = []
    for words, case, figure, program, peer in _TOLD:
        for raw in store["parts"]:
            part = part_of(raw)
            if part.case == case and _row_of(part, program, figure) is not None:
                found.append((words, part, figure, peer))
                break
    return found


_TOLD = (
    ("start, until every directory is watched", "warm-start", "start to watching", US, "lsyncd"),
    ("restart with nothing changed, until current", "restart", "start to current", US, "lsyncd"),
    (
        "restart after 1,000 rewrites, 100 deletions and 20 moved directories",
        "restart-changed", "start to current", US, "rsync",
    ),
    ("1,000 scattered files rewritten, until on the Node", "scattered",
     "first write to all on the Node", US, "lsyncd"),
    ("events taken into the Journals by one Watcher", "events", "events", US, "inotifywait"),
    ("memory by watched directory", "memory", "RSS above base", US, "lsyncd"),
    ("CPU while nothing changes", "idle", "CPU of all processes", US, ""),
)  # fmt: skip


def figures(store: Document) -> str:
    """The README's table."""
    lines = [
        "| measured | directories | shardsync | beside it | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for words, part, figure, peer in _asked(store):
        ours, other = _row_of(part, US, figure), _row_of(part, peer, figure)
        assert ours is not None  # noqa: S101 (_asked looked)
        beside = quotient = ""
        if other is not None:
            beside = f"{peer} {table.amount(other.median, other.unit)}"
            quotient = f"{ratio(part.rows, other) or 0:.2f}"
        own = CASES[part.case].has_own_tree
        size = "" if own else f"{SCALES[part.scale].directories:,}"
        cells = (words, size, table.amount(ours.median, ours.unit), beside, quotient)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def with_figures(readme: str, block: str) -> str:
    """The README with the block between its marks replaced."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + begin + block + end + after if begin and end else readme


def _row_of(part: Part, program: str, figure: str) -> Row | None:
    return next((r for r in part.rows if (r.program, r.figure) == (program, figure)), None)
