"""What a run of the bench yields, as values: figures, checks, notes. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

US = "shardsync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of one program: the values of all rounds. `unit`: "s", "MiB", "events/s"..."""

    program: str
    figure: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something that a case found to be so, or not."""

    what: str
    is_met: bool
    detail: str


@dataclass(slots=True, kw_only=True)
class Part:
    """One case at one scale, as far as it came."""

    case: str
    scale: str
    about: str
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, program: str, figure: str, value: float, unit: str = "s") -> None:
        """One more value, of the next round."""
        for number, row in enumerate(self.rows):
            if (row.program, row.figure) == (program, figure):
                self.rows[number] = Row(
                    program=program, figure=figure, unit=unit, values=(*row.values, value)
                )
                return
        self.rows.append(Row(program=program, figure=figure, unit=unit, values=(value,)))

    def check(self, what: str, is_met: bool, detail: str = "") -> None:  # noqa: FBT001 (the very thing)
        """Something was found to be so, or not; each round says it anew."""
        self.checks.append(Check(what=what, is_met=is_met, detail=detail))

    def note(self, text: str) -> None:
        """A word for the reader, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def is_well(self) -> bool:
        """Whether all that was checked was so."""
        return all(check.is_met for check in self.checks)

    def document(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def part_of(document: dict[str, Any]) -> Part:
    """The Part that `Part.document` wrote."""
    return Part(
        case=document["case"],
        scale=document["scale"],
        about=document["about"],
        rows=[Row(**{**row, "values": tuple(row["values"])}) for row in document["rows"]],
        checks=[Check(**check) for check in document["checks"]],
        notes=list(document["notes"]),
    )


def ratio(rows: Sequence[Row], row: Row) -> float | None:
    """Our median by this one's, of the same figure; None where there is nothing to compare.

    Below 1: ours is less.
    """
    ours = [other for other in rows if other.program == US and other.figure == row.figure]
    if row.program == US or not ours or not row.median:
        return None
    return ours[0].median / row.median


def by_figure(rows: Iterable[Row]) -> list[Row]:
    """Rows of one figure side by side, ours first; figures in the order in which they came."""
    figures = list(dict.fromkeys(row.figure for row in rows))
    return sorted(rows, key=lambda row: (figures.index(row.figure), row.program != US))


def rotated(names: Sequence[str], number: int) -> list[str]:
    """The order for round `number`, from 0: each program comes first in its turn."""
    shift = number % len(names) if names else 0
    return [*names[shift:], *names[:shift]]
