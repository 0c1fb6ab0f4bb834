"""How far a comparison is, in figures and words."""

from __future__ import annotations

from typing import cast

from shardsync.cli.tables import lines
from shardsync.journal.records import Round
from shardsync.model import NodeState
from shardsync.observe.status import NodeStatus, Status, status_document


def test_the_time_left_goes_by_the_time_spent() -> None:
    """A quarter took 60 s of work, whenever that was: three more are left."""
    found = Round(
        began_at=1,
        is_whole=True,
        pieces=100,
        done=25,
        paths=12_000,
        bytes=3 * 1024**3,
        sent_bytes=20 * 1024**2,
        busy_us=60_000_000,
    )
    assert found.ratio == 0.25
    assert found.eta_seconds == 180.0
    assert found.words == "12,000 paths, 3.0 GiB looked at, 20.0 MiB sent, 3m00s left"


def test_nothing_is_promised_before_the_first_piece() -> None:
    """No figure rather than a wrong one."""
    found = Round(began_at=1, is_whole=True, pieces=100)
    assert found.eta_seconds is None
    assert found.words == "0 paths, 0 B looked at, 0 B sent"


def test_status_tells_it_in_text_and_json() -> None:
    """With since when the Node is verified."""
    found = Round(
        began_at=1_000_000, is_whole=True, pieces=8, done=2, paths=12, bytes=34, sent_bytes=5
    )
    node = NodeStatus(
        tree="main",
        name="web1",
        state=NodeState.FOLLOWING,
        compared=found,
        verified_us=1_700_000_000_000_000,
    )
    status = Status(nodes=(node,))
    (line,) = lines(status)
    assert "verified=2023-11-14T22:13:20.000000Z" in line
    assert "compared 25%: 12 paths, 34 B looked at, 5 B sent, 0.0s left" in line
    nodes = cast("list[dict[str, object]]", status_document(status)["nodes"])
    document = nodes[0]
    assert document["verified_at"] == "2023-11-14T22:13:20.000000Z"
    assert document["progress"] == {
        "began_at": "1970-01-01T00:00:01.000000Z",
        "ratio": 0.25,
        "paths": 12,
        "bytes": 34,
        "sent_bytes": 5,
        "differences": 0,
        "eta_seconds": 0.0,
    }
