"""`verify`: the real rsync says what differs, and nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.cli.main import run
from shardsync.journal.records import BatchRecord, Cursor
from shardsync.model import NodeState, ShardState
from tests.support.clock import FakeClock
from tests.support.instance import HandMade, change

KEY = ("main", "web1")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandMade]:
    instance = HandMade(folder=tmp_path, clock=FakeClock())
    instance.make()
    (instance.root / "a").mkdir()
    (instance.root / "a/page").write_text("page")
    (instance.root / "b").write_text("b")
    (tmp_path / "web1").rmdir()
    shutil.copytree(instance.root, tmp_path / "web1", symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHARDSYNC_CONFIG", raising=False)
    yield instance
    instance.close()


def _verified(capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict[str, object]]]:
    document: dict[str, list[dict[str, object]]] = json.loads(capsys.readouterr().out)
    return document


def test_identical_nodes_are_exit_0(made: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    """A true copy is identical, whatever the daemons do; the root's own times do not count."""
    os.utime(made.folder / "web1", (0, 0))
    assert run(["verify", "--json"]) == 0
    assert _verified(capsys) == {
        "nodes": [{"tree": "main", "name": "web1", "identical": True, "different": []}]
    }
    assert run(["verify"]) == 0
    assert capsys.readouterr().out == "web1: identical\n"


def test_differences_are_told_and_exit_3(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, changed, foreign and odd names: each with its reason; nothing is repaired."""
    os.unlink(made.folder / "web1/b")
    (made.folder / "web1/foreign").write_text("?")
    shutil.copystat(made.root / "a", made.folder / "web1/a")
    (made.root / os.fsdecode(b"x\xff")).write_text("new")
    os.chmod(made.folder / "web1/a/page", 0o600)
    assert run(["verify", "--json"]) == 3
    (node,) = _verified(capsys)["nodes"]
    assert node == {
        "tree": "main",
        "name": "web1",
        "identical": False,
        "different": [
            {"path": "a/page", "why": "attributes differ"},
            {"path": "b", "why": "missing on the node"},
            {"path": "foreign", "why": "not in the tree"},
            {"path": "x\\xff", "path_b64": "eP8=", "why": "missing on the node"},
        ],
    }
    assert sorted(os.listdir(made.folder / "web1")) == ["a", "foreign"]


def test_equal_size_and_time_is_seen_by_checksum_only(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other bytes under the same size and time: `--checksum` finds them."""
    page = made.folder / "web1/a/page"
    page.write_text("gape")
    shutil.copystat(made.root / "a/page", page)
    assert run(["verify"]) == 0
    assert run(["verify", "--checksum"]) == 3
    assert "  a/page: content differs\n" in capsys.readouterr().out


def test_a_node_that_cannot_be_reached_is_exit_13(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unreachable Node is not called identical, and the others are compared all the same."""
    made.write_settings(more='[[node]]\nname = "far"\ntarget = "rsync://127.0.0.1:1/module"\n')
    assert run(["verify", "--json"]) == 13
    nodes = {node["name"]: node for node in _verified(capsys)["nodes"]}
    assert nodes["web1"]["identical"] is True
    assert nodes["far"]["identical"] is False


def test_what_is_on_its_way_is_excused_only_while_it_is_shipped(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pending Change is no difference of a following Node, but is one of a stopped Node."""
    (made.root / "b").write_text("new bytes")
    journal = made.add_shard()
    last = journal.commit([change(b"b")], progress={"state": ShardState.FOLLOWING})
    state = made.open_state()
    state.know_node(KEY)
    state.set_node(KEY, state=NodeState.FOLLOWING)
    cursor = Cursor(journal_id="id-main-00", position=last - 1)
    state.record(KEY, BatchRecord(cursors={"main-00": cursor}))
    assert run(["verify"]) == 3
    made.hold("sync")
    capsys.readouterr()
    assert run(["verify"]) == 0
    assert capsys.readouterr().out == "web1: identical, 1 path on its way\n"


def test_a_missing_root_is_no_empty_tree(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the root nothing is compared: exit 14, or 10 before the first start."""
    made.add_shard()
    made.root.rename(made.folder / "elsewhere")
    assert run(["verify", "--json"]) == 14
    assert capsys.readouterr().out == ""


def test_excluded_paths_and_kept_deletions_are_no_differences(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is excluded is not compared; with `delete = false` leftovers are as they should be."""
    (made.root / "skip.tmp").write_text("x")
    (made.folder / "web1/left.tmp").write_text("x")
    (made.folder / "web1/leftover").write_text("x")
    made.write_settings((), more=(
        f'[[node]]\nname = "web1"\ntarget = "{made.folder / "web1"}"\n'
        'exclude = ["*.tmp"]\ndelete = false\n'
    ))  # fmt: skip
    assert run(["verify"]) == 0


def test_a_subtree_is_compared_with_its_node(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Node of a subtree is compared with that folder; paths are told as the Tree has them."""
    (made.folder / "part").mkdir()
    made.write_settings((), more=(
        f'[[node]]\nname = "part"\ntarget = "{made.folder / "part"}"\nsubtree = "a/"\n'
    ))  # fmt: skip
    assert run(["verify", "--json"]) == 3
    (node,) = _verified(capsys)["nodes"]
    assert node["different"] == [{"path": "a/page", "why": "missing on the node"}]
