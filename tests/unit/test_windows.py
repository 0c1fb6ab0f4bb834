"""Windows by the hour of the day: which holds when, and what a pause by them does."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.config.problems import Refusal, SettingsInvalid
from shardsync.config.window_tables import parse_hours, parse_windows
from shardsync.config.windows import Window, in_force
from shardsync.journal.records import NodeRow
from shardsync.ship.windows import window_columns
from tests.support.settings_files import load_text

_DAYTIME = Window(begin=8 * 60, end=18 * 60, bandwidth="2MiB")
_NIGHT = Window(begin=23 * 60 + 30, end=60, paused=True)


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time with a summer time."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def _us(text: str) -> int:
    """Unix microseconds of a local time."""
    return int(dt.datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("now", "held", "until"),
    [
        ("2026-11-23T07:59:59", None, ""),
        ("2026-11-23T08:00", _DAYTIME, "2026-11-23T18:00"),
        ("2026-11-23T17:59:59", _DAYTIME, "2026-11-23T18:00"),
        ("2026-11-23T18:00", None, ""),
        ("2026-11-23T23:30", _NIGHT, "2026-11-24T01:00"),
        ("2026-11-24T00:00", _NIGHT, "2026-11-24T01:00"),
        ("2026-11-24T00:59:59", _NIGHT, "2026-11-24T01:00"),
        ("2026-11-24T01:00", None, ""),
    ],
)
def test_a_window_holds_from_its_first_minute_to_before_its_last(
    now: str, held: Window | None, until: str
) -> None:
    """By local time, also over midnight."""
    found = in_force((_DAYTIME, _NIGHT), _us(now))
    assert found == (None if held is None else (held, _us(until)))


def test_a_window_ends_by_the_wall_clock_when_summer_time_begins() -> None:
    """02:00 became 03:00 that night (2026-03-29): the window is an hour shorter."""
    window = Window(begin=60, end=4 * 60, paused=True)
    begin = _us("2026-03-29T01:00")
    assert in_force((window,), begin) == (window, begin + 2 * 3600 * 1_000_000)


def test_until_midnight() -> None:
    """24:00 is the midnight at the end of the day."""
    (window,) = parse_windows([{"from": "18:00", "to": "24:00", "bandwidth": "unlimited"}])
    assert in_force((window,), _us("2026-11-23T23:59")) == (window, _us("2026-11-24T00:00"))
    assert in_force((window,), _us("2026-11-24T00:00")) is None
    assert window.bandwidth == ""


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([{"from": "8:00", "to": "18:00", "paused": True}], "entry 1: from is no time of day"),
        ([{"from": "08:00", "to": "24:30", "paused": True}], "entry 1: to is no time of day"),
        ([{"to": "18:00", "paused": True}], "entry 1: from is no time of day"),
        ([{"from": "08:00", "to": "08:00", "paused": True}], "entry 1 begins when it ends"),
        ([{"from": "08:00", "to": "09:00"}], "entry 1 needs either a bandwidth or paused = true"),
        (
            [{"from": "08:00", "to": "09:00", "paused": True, "bandwidth": "1MiB"}],
            "entry 1 needs either a bandwidth or paused = true",
        ),
        ([{"from": "08:00", "to": "09:00", "paused": "yes"}], "paused should be true or false"),
        ([{"from": "08:00", "to": "09:00", "bandwidth": "fast"}], "bandwidth is not a rate"),
        ([{"from": "08:00", "to": "09:00", "bandwidth": 5}], "a rate in quotes"),
        ([{"from": "08:00", "to": "09:00", "rate": "1MiB"}], "entry 1: rate is no known key"),
        (
            [
                {"from": "22:00", "to": "06:00", "bandwidth": "1MiB"},
                {"from": "05:59", "to": "07:00", "paused": True},
            ],
            "entries 1 (22:00-06:00 1MiB) and 2 (05:59-07:00 paused) overlap",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tables: list[dict[str, object]], message: str) -> None:
    """With the entry's number, and what to write."""
    with pytest.raises(Refusal) as refused:
        parse_windows(tables)
    assert message in refused.value.message


def test_a_refused_window_is_told_with_file_and_node(tmp_path: Path) -> None:
    """As every other value; windows of node_defaults hold for Nodes without their own."""
    (tmp_path / "tree").mkdir()
    text = (
        '[tree]\nroot = "$/tree"\n[state]\ndir = "$/state"\n'
        '[node_defaults]\nwindows = [{ from = "08:00", to = "18:00", bandwidth = "2MiB" }]\n'
        '[[node]]\nname = "web1"\ntarget = "$/web1"\n'
        '[[node]]\nname = "web2"\ntarget = "$/web2"\nwindows = []\n'
    )
    text = text.replace("$", str(tmp_path))
    settings = load_text(tmp_path, text)
    assert [node.windows for node in settings.nodes] == [(_DAYTIME,), ()]
    with pytest.raises(SettingsInvalid) as refused:
        load_text(tmp_path, text.replace("windows = []", 'windows = [{ from = "8" }]'))
    assert "node.web2.windows" in str(refused.value)


def _row(**values: object) -> NodeRow:
    return NodeRow(tree="main", name="web1", **values)  # type: ignore[arg-type]  # by name


def test_a_pause_by_the_hour_begins_and_ends() -> None:
    """Begun once; over with its hour, or with the window's going from the settings."""
    end = in_force((_NIGHT,), _us("2026-11-24T00:10"))
    assert end is not None
    paused = {"paused": True, "paused_until": end[1], "window_pause": end[1]}
    now, later = _us("2026-11-24T00:10"), _us("2026-11-24T02:00")
    assert window_columns(_row(), (_NIGHT,), now) == {**paused, "paused": 1}
    assert window_columns(_row(**paused), (_NIGHT,), now) == {}
    over = {"window_pause": 0, "paused": 0, "paused_until": None}
    assert window_columns(_row(**paused), (_NIGHT,), later) == over
    assert window_columns(_row(**paused), (), now) == over
    assert window_columns(_row(), (_DAYTIME,), now) == {}


def test_what_is_done_by_hand_outweighs_the_window() -> None:
    """A resume within it holds; a pause by hand goes on after it."""
    now, later = _us("2026-11-24T00:10"), _us("2026-11-24T02:00")
    end = _us("2026-11-24T01:00")
    assert window_columns(_row(window_pause=end), (_NIGHT,), now) == {}
    assert window_columns(_row(paused=True), (_NIGHT,), now) == {"window_pause": end}
    by_hand = _row(paused=True, window_pause=end)
    assert window_columns(by_hand, (_NIGHT,), later) == {"window_pause": 0}
    longer = _row(paused=True, paused_until=end + 1)
    assert window_columns(longer, (_NIGHT,), now) == {"window_pause": end}
    shorter = _row(paused=True, paused_until=now + 1)
    assert window_columns(shorter, (_NIGHT,), now)["paused_until"] == end


@pytest.mark.parametrize("text", ["22:00", "22:00-", "22-06", "22:00-25:00", "08:00-08:00", "x"])
def test_hours_that_are_none_are_refused(text: str) -> None:
    """`audit_hours` says what to write instead."""
    with pytest.raises(Refusal) as caught:
        parse_hours(text)
    assert caught.value.remedy


def test_hours_are_a_part_of_the_day() -> None:
    """Also over midnight, and none at all."""
    found = parse_hours("22:00-06:00")
    assert found is not None
    assert (found.begin, found.end, found.hours) == (1320, 360, "22:00-06:00")
    assert parse_hours("") is None
