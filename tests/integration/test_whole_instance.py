"""All programs real, under a real supervisord: what is written in the Tree is on the Node."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.control.lifecycle import Started
from shardsync.control.processes import find
from shardsync.control.supervisord import ProgramState
from shardsync.journal.plan import PlanState, read_plan
from tests.support.instances import Instance, eventually, instance


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Instance]:
    """Three Shards over eight folders."""
    for number in range(8):
        folder = tmp_path / "tree" / f"d{number}"
        folder.mkdir(parents=True)
        (folder / "first").write_text(f"first {number}")
    with instance(tmp_path, shards=3) as yielded:
        yield yielded


def up(made: Instance) -> Started:
    started = made.lifecycle().up(made.settings())
    assert started is not None
    return started


def differences(made: Instance) -> list[str]:
    """What rsync would change on the Node, the root's own line aside."""
    done = subprocess.run(
        ["rsync", "-naic", "--delete", f"{made.root}/", f"{made.node}/"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.decode(errors="surrogateescape").splitlines()
    return [line for line in lines if not line.endswith(" ./")]


def in_step(made: Instance) -> bool:
    return not differences(made)


def churn(made: Instance, mark: str) -> None:
    """Something of each kind in every folder: adds, rewrites, moves, deletes, links, folders."""
    for number in range(8):
        folder = made.root / f"d{number}"
        (folder / f"new-{mark}").write_text(mark)
        (folder / "first").write_text(f"rewritten {mark} {number}")
        (folder / f"deep-{mark}" / "er").mkdir(parents=True)
        (folder / f"deep-{mark}" / "er" / "file").write_text(mark)
        (folder / f"link-{mark}").symlink_to("first")
        (folder / f"new-{mark}").rename(made.root / f"d{(number + 1) % 8}" / f"moved-{mark}")
        (folder / f"gone-{mark}").write_text("x")
        (folder / f"gone-{mark}").unlink()


def is_stable(made: Instance, active: int) -> bool:
    plan = read_plan(made.state.plan)
    return plan is not None and [s.state for s in plan.observing()] == [PlanState.ACTIVE] * active


@pytest.mark.fault("watcher-killed", "supervisord-killed")
@pytest.mark.timeout(180)
def test_the_node_follows_through_kills_and_a_replan(made: Instance) -> None:
    """The main job; every program is killed once, supervisord too; two re-plans in between."""
    first = up(made)
    eventually(lambda: in_step(made))
    churn(made, "a")
    eventually(lambda: in_step(made))

    for program in first.programs:
        assert program.pid is not None
        os.kill(program.pid, signal.SIGKILL)
        churn(made, program.name.rpartition(":")[2])
    eventually(lambda: in_step(made))

    eventually(lambda: made.program("coordinator").state is ProgramState.RUNNING)
    made.write_settings(shards=2)
    made.client.signal("shardsync:coordinator", "HUP")
    churn(made, "b")
    eventually(lambda: is_stable(made, 2))
    churn(made, "c")
    eventually(lambda: in_step(made))

    os.kill(first.pid, signal.SIGKILL)
    churn(made, "d")
    up(made)
    churn(made, "e")
    eventually(lambda: in_step(made))

    made.lifecycle().down()
    assert find(made.state) == ()
    churn(made, "f")
    made.write_settings(shards=4)
    up(made)
    churn(made, "g")
    eventually(lambda: is_stable(made, 4))
    churn(made, "h")
    eventually(lambda: in_step(made))
