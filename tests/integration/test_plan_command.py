"""`shardsync plan`: what it shows before a start is what `up` makes, and nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardsync.cli.plan import plan_document
from shardsync.clock import SystemClock
from shardsync.control.journals import JournalFolder
from shardsync.control.limits import WATCHES, Limits, shortfalls
from shardsync.control.preview import preview
from shardsync.journal.plan import Plan, PlanState, read_plan
from tests.support.instances import Instance, eventually, instance


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Instance]:
    """Three Shards over twelve folders of ten, one of them with a name that is not UTF-8."""
    for number in range(12):
        folder = os.fsencode(tmp_path / "tree") + b"/d\xff%02d" % number
        for below in range(10):
            os.makedirs(folder + b"/%d" % below)
    with instance(tmp_path, shards=3) as yielded:
        yield yielded


def shardsync(made: Instance, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "shardsync.cli.main", *words, "--config", str(made.config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(made: Instance) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(shardsync(made, "plan", "--json"))
    return document


def owned(document: dict[str, Any]) -> dict[str, list[object]]:
    return {shard["id"]: shard["prefixes"] for shard in document["shards"]}


def test_what_is_shown_before_is_what_up_makes(made: Instance) -> None:
    """Not even the state directory is made; then the same Shards have the same prefixes."""
    before = shown(made)
    assert not made.state.path.exists()
    assert (before["source"], before["directories"]) == ("planned", 133)
    assert [shard["is_estimate"] for shard in before["shards"]] == [True] * 3
    made.lifecycle().up(made.settings())
    eventually(lambda: not any(shard["is_estimate"] for shard in shown(made)["shards"]))
    after = shown(made)
    assert owned(after) == owned(before)
    assert (after["source"], after["directories"]) == ("running", 133)
    assert [shard["state"] for shard in after["shards"]] == ["active"] * 3
    for folder in list(made.root.iterdir()):
        shutil.rmtree(folder)
    # Shards that are left without a directory are known to be.
    eventually(lambda: shown(made)["directories"] == 1)
    made.lifecycle().down()
    assert shown(made)["source"] == "saved"


def test_the_document_has_the_shape_that_the_docs_tell(made: Instance) -> None:
    """Every key, and prefixes of any bytes exactly."""
    document = shown(made)
    assert list(document) == ["source", "notes", "shards", "directories", "limits"]
    assert list(document["shards"][0]) == [
        "id", "tree", "program", "state", "prefixes", "directories", "is_estimate", "watches",
        "memory_bytes",
    ]  # fmt: skip
    assert document["shards"][0]["prefixes"] == [{"path": ""}]
    assert document["shards"][1]["prefixes"][0] == {"path": "d\\xff00", "path_b64": "ZP8wMA=="}
    assert [list(limit) for limit in document["limits"]] == [
        ["what", "needed", "present", "remedy"]
    ] * 5
    documented = Path(__file__).parents[2].joinpath("docs/planning.md").read_text()
    for key in (*document, *document["shards"][0], *document["limits"][0]):
        assert f"`{key}`" in documented, key


def test_it_is_shown_in_words(made: Instance) -> None:
    """A line a Shard, its prefixes below, a line a limit."""
    lines = shardsync(made, "plan").splitlines()
    assert lines[0] == "plan: planned by `up`; nothing is started"
    assert lines[1].startswith("shard main-00 planned shardsync:watcher-00: about ")
    assert lines[2] == "  all that no other shard lists"
    assert "d\\xff00" in lines[4]
    assert sum(line.startswith("limit ") for line in lines) == 5


def test_one_tree_of_several_is_shown_by_its_name(made: Instance) -> None:
    """The Shards of that one; what the machine needs is what both need together."""
    docs = made.folder / "docs"
    (docs / "a").mkdir(parents=True)
    several = made.config.read_text().replace("[tree]", "[[tree]]")
    several = several.replace('name = "web1"', 'name = "web1"\ntree = "main"')
    made.config.write_text(f'{several}[[tree]]\nname = "docs"\nroot = "{docs}"\n')
    document = json.loads(shardsync(made, "plan", "--json", "--tree", "docs"))
    assert {shard["tree"] for shard in document["shards"]} == {"docs"}
    assert document["directories"] == 135
    lines = shardsync(made, "plan", "--tree", "docs").splitlines()
    assert [line.split()[1] for line in lines if line.startswith("shard ")] == [
        shard["id"] for shard in document["shards"]
    ]


def test_a_limit_that_is_too_low_comes_with_its_remedy(made: Instance) -> None:
    """And only that one."""
    found = preview(
        made.settings(),
        journals=JournalFolder(state=made.state, clock=SystemClock()),
        clock=SystemClock(),
        is_running=False,
        processors=1,
    )
    limits = Limits(settings={WATCHES: 100}, open_files=4096, memory_bytes=8 << 30)
    document = plan_document(found, limits, shortfalls(found.need, limits))
    told = {limit["what"]: limit for limit in document["limits"]}  # type: ignore[attr-defined]
    assert told[WATCHES]["present"] == 100
    assert "tune --apply" in told[WATCHES]["remedy"]
    assert told["memory"]["remedy"] is None


def test_a_change_of_the_count_is_announced(made: Instance) -> None:
    """While stopped: the Plan on disk, and what becomes of it."""
    made.lifecycle().up(made.settings())
    eventually(lambda: _states(made) == [PlanState.ACTIVE] * 3)
    made.lifecycle().down()
    made.write_settings(shards=2)
    (note,) = shown(made)["notes"]
    assert note == (
        "made for 3 shards: main; once all Watchers follow, planned anew for 2 shards: main"
    )


def _states(made: Instance) -> list[PlanState]:
    plan = read_plan(made.state.plan) or Plan()
    return [shard.state for shard in plan.observing()]
