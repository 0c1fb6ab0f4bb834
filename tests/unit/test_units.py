"""Durations, sizes and times are read as people write them."""

from __future__ import annotations

import pytest

from shardsync import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("10s", 10), ("1h30m", 5400), ("7d", 604800), ("250ms", 0.25), ("1.5h", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    """A number and a unit, or several in a row."""
    assert units.duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "h", "-3s", "1 h", "10sec"])
def test_bad_durations_say_how_to_write_them(text: str) -> None:
    """A bare number could be anything, so it is refused."""
    with pytest.raises(ValueError, match="is not a duration: write it like"):
        units.duration_seconds(text)


def test_sizes() -> None:
    """Binary and decimal units are told apart."""
    assert units.size_bytes("2GiB") == 2 * 1024**3
    assert units.size_bytes("500 MB") == 500_000_000
    with pytest.raises(ValueError, match="is not a size"):
        units.size_bytes("many")


def test_human_forms() -> None:
    """Two figures are enough for people."""
    assert units.human_duration(0.42) == "0.4s"
    assert units.human_duration(185) == "3m05s"
    assert units.human_duration(7800) == "2h10m"
    assert units.human_duration(4 * 86400 + 7200) == "4d02h"
    assert units.human_bytes(1_500_000) == "1.4 MiB"
