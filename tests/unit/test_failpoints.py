"""Failpoints: what strikes when, and where in the package each Point is passed."""

from __future__ import annotations

import ast
import errno
import os
import signal
from pathlib import Path

import pytest

from shardsync import failpoints
from shardsync.failpoints import Failpoints, Point
from tests.support.sources import Source, package_sources, source

HOT = {("watch/scan.py", "_list"), ("watch/events.py", "fold"), ("inotify.py", "decode")}


class Process:
    """One that passes points; `got` is what signals it would have got."""

    def __init__(self, folder: Path) -> None:
        self.got: list[int] = []
        self.points = Failpoints(folder=str(folder), send=self._send)

    def _send(self, pid: int, number: int) -> None:
        assert pid == os.getpid()
        self.got.append(number)

    def passes(self, *points: Point) -> list[int]:
        """The signals that it got on the way."""
        before = len(self.got)
        for point in points:
            self.points.reach(point)
        return self.got[before:]


def passed(module: Source) -> list[str]:
    """Names of the Points that it passes."""
    return [
        inner.attr
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "reach"
        for argument in node.args
        for inner in ast.walk(argument)
        if isinstance(inner, ast.Attribute) and getattr(inner.value, "id", "") == "Point"
    ]


def test_without_the_variable_nothing_is_looked_for() -> None:
    """A process outside of such tests pays a bare call."""
    assert failpoints.VARIABLE not in os.environ
    assert failpoints.reach is failpoints._nothing
    failpoints.reach(Point.WATCH_READ)


def test_it_strikes_at_the_passage_it_names_and_never_again(tmp_path: Path) -> None:
    """Only its own point counts, and the process that comes after is not hit by it."""
    (tmp_path / "watch.read:2:kill").touch()
    process = Process(tmp_path)
    assert process.passes(Point.WATCH_READ, Point.WATCH_SCANNED, Point.WATCH_SCANNED) == []
    assert process.passes(Point.WATCH_READ) == [signal.SIGKILL]
    assert os.listdir(tmp_path) == []
    assert Process(tmp_path).passes(Point.WATCH_READ, Point.WATCH_READ) == []


def test_of_two_processes_one_is_hit(tmp_path: Path) -> None:
    """Whoever is first takes it away."""
    (tmp_path / "watch.read:1:stop").touch()
    first, second = Process(tmp_path), Process(tmp_path)
    assert first.passes(Point.WATCH_READ) == [signal.SIGSTOP]
    assert second.passes(Point.WATCH_READ) == []


def test_a_second_step_waits_for_the_first(tmp_path: Path) -> None:
    """So that a recovery is hit, and not what went before it."""
    (tmp_path / "journal.commit:1:kill,watch.scanning:2:kill").touch()
    process = Process(tmp_path)
    assert process.passes(Point.WATCH_SCANNING, Point.WATCH_SCANNING) == []
    assert process.passes(Point.JOURNAL_COMMIT) == [signal.SIGKILL]
    recovery = Process(tmp_path)
    assert recovery.passes(Point.JOURNAL_COMMIT, Point.WATCH_SCANNING) == []
    assert recovery.passes(Point.WATCH_SCANNING) == [signal.SIGKILL]
    assert os.listdir(tmp_path) == []


def test_an_error_is_raised_as_the_system_would(tmp_path: Path) -> None:
    """With its number, and the point in place of a file's name."""
    (tmp_path / "control.file:1:ENOSPC").touch()
    with pytest.raises(OSError, match=r"control\.file") as caught:
        Process(tmp_path).passes(Point.CONTROL_FILE)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    "name", ["watch.nowhere:1:kill", "watch.read:1:explode", "watch.read", "watch.read:x:kill"]
)
def test_one_that_means_nothing_is_refused(tmp_path: Path, name: str) -> None:
    """A slip of the pen must not make a test that never strikes."""
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"failpoint|Point|int"):
        Process(tmp_path).passes(Point.WATCH_READ)


def test_a_folder_that_went_strikes_nobody(tmp_path: Path) -> None:
    """The test is over."""
    assert Process(tmp_path / "gone").passes(Point.WATCH_READ) == []


def test_each_point_is_passed_at_one_place() -> None:
    """A name that stands nowhere, or at two places, tells nothing."""
    found = sorted(name for module in package_sources() for name in passed(module))
    assert found == sorted(point.name for point in Point)


def test_no_hot_loop_passes_one() -> None:
    """Not even the bare call is to be paid for each event or directory entry."""
    hot = {
        (module.name, node.name): "reach(" in ast.unparse(node)
        for module in package_sources()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef) and (module.name, node.name) in HOT
    }
    assert hot == dict.fromkeys(HOT, False)


def test_the_search_finds_each_way_of_passing() -> None:
    """Also where the point depends on what is done."""
    text = "reach(Point.A)\nreach(Point.B if rows else Point.C)\nother(Point.D)\n"
    assert passed(source("x.py", text)) == ["A", "B", "C"]
