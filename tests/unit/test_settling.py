"""When `mirror --once` stops waiting for a Node."""

from __future__ import annotations

import pytest

from shardsync.cli.mirror import Settling
from shardsync.model import NodeState
from shardsync.observe.status import NodeStatus, Status
from tests.support.clock import FakeClock


def _status(state: NodeState, *, retries: int = 0, lag: int = 0) -> Status:
    node = NodeStatus(
        tree="main",
        name="web1",
        state=state,
        retry_paths=retries,
        lag_changes=lag,
        last_error="why",
    )
    return Status(nodes=(node,), processes={"sync": 1})


@pytest.mark.parametrize(
    "status",
    [
        _status(NodeState.BACKING_OFF, lag=7),
        _status(NodeState.FOLLOWING, retries=2, lag=2),
    ],
)
def test_a_node_that_fails_for_long_is_given_up(status: Status) -> None:
    """Not at once, but after 15 s of nothing but failures."""
    clock = FakeClock()
    settling = Settling(clock=clock)
    settling.is_over(status)
    assert settling.failed == {}
    clock.advance(15)
    assert settling.is_over(status)
    assert settling.failed == {"web1": "why"}


def test_a_node_that_is_still_sent_things_is_waited_for() -> None:
    """A path that fails does not end the wait for the rest of the backlog."""
    clock = FakeClock()
    settling = Settling(clock=clock)
    for _ in range(3):
        settling.is_over(_status(NodeState.FOLLOWING, retries=1, lag=500))
        clock.advance(15)
    assert settling.failed == {}
