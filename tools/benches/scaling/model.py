"""What the measuring yields, as values: figures over sizes, and lines through them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """y = intercept + slope * x. `worst`: how far a median is off it, by the largest one."""

    slope: float
    intercept: float
    worst: float

    def at(self, x: float) -> float:
        """What the line says for `x`."""
        return self.intercept + self.slope * x


def fit(points: Sequence[Point]) -> Line:
    """The line of least squares through all points; at least two sizes."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    slope, intercept = statistics.linear_regression(xs, ys)
    line = Line(slope=slope, intercept=intercept, worst=0.0)
    middles = medians(points)
    largest = max(abs(y) for _, y in middles)
    off = max(abs(y - line.at(x)) for x, y in middles)
    return Line(slope=slope, intercept=intercept, worst=off / largest if largest else 0.0)


def medians(points: Sequence[Point]) -> list[Point]:
    """One point a size, in order of size: the middle of its rounds."""
    return [
        (size, statistics.median(y for x, y in points if x == size))
        for size in sorted({x for x, _ in points})
    ]


@dataclass(slots=True, kw_only=True)
class Figure:
    """One cost over the sizes, all rounds of it."""

    name: str
    unit: str
    points: list[Point] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Series:
    """One thing that grows. `step`: what a slope is told by; `target`: where the line is read."""

    name: str
    variable: str
    about: str
    step: float
    target: float
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, figure: str, size: float, value: float, unit: str) -> None:
        """One more value, of the next round."""
        for known in self.figures:
            if known.name == figure:
                known.points.append((size, value))
                return
        self.figures.append(Figure(name=figure, unit=unit, points=[(size, value)]))

    def note(self, text: str) -> None:
        """A word for the reader, once."""
        if text not in self.notes:
            self.notes.append(text)

    def document(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def series_of(document: dict[str, Any]) -> Series:
    """The Series that `Series.document` wrote; what stands beside it is left out."""
    names = ("name", "variable", "about", "step", "target", "notes")
    return Series(
        **{name: document[name] for name in names},
        figures=[
            Figure(name=one["name"], unit=one["unit"], points=[(x, y) for x, y in one["points"]])
            for one in document["figures"]
        ],
    )
