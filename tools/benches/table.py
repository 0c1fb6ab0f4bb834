"""Parts as text for a terminal and as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tools.benches.model import Check, Part, Row, by_figure, ratio

HEADINGS = ("figure", "program", "median", "min", "max", "rounds", "ours by it")


def number(value: float) -> str:
    """Three significant figures, and all digits of what is whole or large."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def amount(value: float, unit: str) -> str:
    """With its unit."""
    return f"{number(value)} {unit}".strip()


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each row, under HEADINGS."""
    return [_line(rows, row) for row in by_figure(rows)]


def _line(rows: Sequence[Row], row: Row) -> tuple[str, ...]:
    quotient = ratio(rows, row)
    return (
        row.figure,
        row.program,
        amount(row.median, row.unit),
        number(min(row.values)),
        number(max(row.values)),
        str(len(row.values)),
        "" if quotient is None else f"{quotient:.2f}",
    )


def text(part: Part) -> str:
    """For a terminal."""
    return "\n".join(
        [f"{part.case} at {part.scale}: {part.about}", *_aligned(part), *_words(part)]
    )


def _aligned(part: Part) -> Iterator[str]:
    lines = [HEADINGS, *cells(part.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    for line in lines:
        left = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        yield "  " + "  ".join([*left, *right]).rstrip()


def _words(part: Part) -> Iterator[str]:
    for check in together(part.checks):
        yield f"  {'ok  ' if check.is_met else 'NOT '}{check.what}" + (
            f" ({check.detail})" if check.detail else ""
        )
    for note in part.notes:
        yield f"  {note}"


def together(checks: Sequence[Check]) -> list[Check]:
    """One of each kind: the first that was not met, else the last."""
    kept: dict[str, Check] = {}
    for check in checks:
        if check.what not in kept or kept[check.what].is_met:
            kept[check.what] = check
    return list(kept.values())


def markdown(part: Part) -> str:
    """A section's body: what is timed, the table, the checks, the notes."""
    lines = [part.about, ""]
    if part.rows:
        lines += [_row(HEADINGS), _row(("---",) * len(HEADINGS))]
        lines += [_row(line) for line in cells(part.rows)]
    words = [word.strip() for word in _words(part)]
    if words:
        lines += ["", *(f"* {_escaped(word)}" for word in words)]
    return "\n".join(lines)


def _row(line: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in line) + " |"


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|").replace("\n", " ")
