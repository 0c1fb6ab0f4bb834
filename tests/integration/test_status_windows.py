"""`status` names the window of a Node that holds at this hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardsync.cli.main import run
from shardsync.journal.records import Cursor
from shardsync.model import NodeState, ShardState
from tests.support.clock import FakeClock
from tests.support.instance import HandMade


def test_status_names_the_window_that_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the hour: one of these two holds."""
    made = HandMade(folder=tmp_path, clock=FakeClock())
    monkeypatch.chdir(tmp_path)
    made.make()
    made.write_settings(
        more="[node_defaults]\nwindows = [\n"
        '{ from = "00:00", to = "12:00", bandwidth = "3MiB" },\n'
        '{ from = "12:00", to = "24:00", bandwidth = "3MiB" }]\n'
    )
    made.add_shard().commit(progress={"state": ShardState.FOLLOWING})
    state = made.open_state()
    state.know_node(("main", "web1"))
    state.set_node(("main", "web1"), state=NodeState.FOLLOWING, contacted=True)
    state.set_cursors(("main", "web1"), {"main-00": Cursor(journal_id="id-main-00", position=0)})
    made.hold("instance", "sync", "journal-main-00")
    run(["status"])
    made.close()
    (line,) = (text for text in capsys.readouterr().out.splitlines() if text.startswith("node"))
    assert "window 00:00-12:00 3MiB" in line or "window 12:00-00:00 3MiB" in line
