"""`shardsync reload` of a whole instance under a real supervisord."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from shardsync.control.supervisord import ProgramState
from shardsync.journal.plan import read_plan
from shardsync.journal.reader import JournalReader
from tests.support.instances import Instance, eventually, instance
from tests.support.shipping import fill, names_below

_NODE = '[[node]]\nname = "{name}"\ntarget = "{target}"\n{more}\n'


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Instance]:
    """Two Shards, some folders, everything up."""
    with instance(tmp_path) as yielded:
        fill(yielded.root, {f"d{number}/page": str(number) for number in range(4)})
        _write(yielded, web1=yielded.node)
        assert yielded.lifecycle().up(yielded.settings()) is not None
        eventually(lambda: names_below(yielded.node) == names_below(yielded.root))
        yield yielded


def _write(
    made: Instance, *, tree: str = "", more: str = "", node_more: str = "", **nodes: Path
) -> None:
    """Settings with these Nodes. `tree`, `more`: further lines of [tree], of the file."""
    text = (
        f'[tree]\nname = "main"\nroot = "{made.root}"\n{tree}\n'
        f'[state]\ndir = "{made.state.path}"\n[shards]\ncount = 2\n'
        f'[metrics]\nlisten = ""\n{more}\n'
    )
    for name, target in nodes.items():
        text += _NODE.format(name=name, target=target, more=node_more)
    made.config.write_text(text)


def _reload(made: Instance) -> tuple[int, str]:
    return _command(made, "reload")


def _command(made: Instance, *words: str) -> tuple[int, str]:
    """(exit code, all that it printed)."""
    done = subprocess.run(
        [sys.executable, "-m", "shardsync.cli.main", "--config", made.config, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout


def _pids(made: Instance) -> dict[str, int | None]:
    return {program.name: program.pid for program in made.client.programs()}


def _has_refused(log: Path) -> bool:
    return "settings.refused" in log.read_text()


def _inodes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_ino for name in names_below(folder)}


@pytest.mark.timeout(180)
def test_nodes_come_get_another_name_and_go_while_all_programs_run_on(made: Instance) -> None:
    """A new Node is filled, a renamed one keeps what it has, a removed one is left alone."""
    two = made.folder / "two"
    pids, before = _pids(made), _inodes(made.node)
    _write(made, www1=made.node, web2=two)
    assert "settings were changed" in _command(made, "status")[1]
    code, said = _reload(made)
    assert (code, said.partition(" in ")[0]) == (0, "reloaded")
    assert "settings were changed" not in _command(made, "status")[1]
    eventually(lambda: names_below(two) == names_below(made.root))
    assert _inodes(made.node) == before
    fill(made.root, {"d0/page": "again", "d1/new": "1"})
    eventually(lambda: (two / "d1/new").exists() and (made.node / "d1/new").exists())
    _write(made, web2=two)
    assert _reload(made)[0] == 0
    fill(made.root, {"d2/more": "1"})
    eventually((two / "d2/more").exists)
    assert not (made.node / "d2/more").exists()
    assert _pids(made) == pids


@pytest.mark.timeout(180)
def test_the_trees_excludes_change_in_watchers_and_nodes(made: Instance) -> None:
    """Newly excluded stays where it was and is followed no more; what changed meanwhile comes
    when it is taken in again.
    """
    fill(made.root, {"d0/kept.tmp": "1", "d1/x/deep.tmp": "1"})
    eventually(lambda: names_below(made.node) == names_below(made.root))
    pids = _pids(made)
    _write(made, tree='exclude = ["*.tmp", "/d3/"]', web1=made.node)
    assert _reload(made)[0] == 0
    fill(
        made.root, {"d0/kept.tmp": "22", "d0/new.tmp": "2", "d3/sub/page": "3", "d0/page": "last"}
    )
    eventually(lambda: (made.node / "d0/page").read_text() == "last")
    assert (made.node / "d0/kept.tmp").read_text() == "1"
    assert not (made.node / "d3/sub").exists()
    _write(made, web1=made.node)
    assert _reload(made)[0] == 0
    eventually(lambda: names_below(made.node) == names_below(made.root))
    eventually(lambda: (made.node / "d0/kept.tmp").read_text() == "22")
    fill(made.root, {"d3/sub/page": "4", "d1/x/deep.tmp": "5"})
    eventually(lambda: (made.node / "d3/sub/page").read_text() == "4")
    eventually(lambda: (made.node / "d1/x/deep.tmp").read_text() == "5")
    assert _pids(made) == pids


@pytest.mark.timeout(180)
def test_watchers_watch_what_the_tree_takes_in_and_no_more(tmp_path: Path) -> None:
    """Started without a folder they have no watch in it; taken in, its Changes come; and back."""
    with instance(tmp_path) as made:
        fill(made.root, {"d0/page": "1", **{f"d1/{number}/page": "1" for number in range(20)}})
        _write(made, tree='exclude = ["/d1/"]', web1=made.node)
        assert made.lifecycle().up(made.settings()) is not None
        eventually((made.node / "d0/page").exists)
        eventually(lambda: _directories(made) == 2)
        _write(made, web1=made.node)
        assert _reload(made)[0] == 0
        eventually(lambda: names_below(made.node) == names_below(made.root))
        eventually(lambda: _directories(made) == 23)
        fill(made.root, {"d1/7/page": "22"})
        eventually(lambda: (made.node / "d1/7/page").read_text() == "22")
        _write(made, tree='exclude = ["/d1/"]', web1=made.node)
        assert _reload(made)[0] == 0
        eventually(lambda: _directories(made) == 2)


def _directories(made: Instance) -> int:
    """How many directories the Watchers watch, all together."""
    plan = read_plan(made.state.plan)
    total = 0
    for shard in plan.observing() if plan else ():
        with contextlib.closing(JournalReader(made.state.journal(shard.id))) as reader:
            total += reader.progress().directories
    return total


@pytest.mark.fault("reload-wrong")
@pytest.mark.timeout(180)
def test_a_wrong_file_changes_nothing_and_says_why(made: Instance) -> None:
    """By `reload`: exit 10 with key and remedy. By SIGHUP: each program says so and goes on."""
    good, pids = made.config.read_text(), _pids(made)
    made.config.write_text(good.replace("target =", "tarket ="))
    code, said = _reload(made)
    assert code == 10
    assert 'node.web1.tarket: is no known key\n    did you mean "target"?' in said
    made.supervisorctl("signal", "HUP", "shardsync:*")
    for log in ("sync", "coordinator", "watcher-00"):
        eventually(partial(_has_refused, made.state.logs / f"{log}.log"))
    made.config.write_text(good.replace(str(made.state.path), str(made.folder / "elsewhere")))
    code, said = _reload(made)
    assert code == 10
    assert "cannot move while they run" in said
    made.config.write_text(good.replace(f'"{made.root}"', f'"{made.folder / "no-tree"}"'))
    code, said = _reload(made)
    assert code == 10
    assert f"tree main: root {made.folder / 'no-tree'}: No such file or directory" in said
    assert "create it, mount it, or correct the path" in said
    fill(made.root, {"d0/after": "1"})
    eventually((made.node / "d0/after").exists)
    assert _pids(made) == pids


@pytest.mark.timeout(180)
def test_more_shards_than_there_are_slots_are_told_of(made: Instance) -> None:
    """The Plan stays, with what to do, until it is done or the wish is taken back."""
    told = (
        "the shards of tree main stay as they are: the plan needs 7 free Watcher slots, has 2:"
        " `shardsync down`, then `shardsync up`, which makes more"
    )
    few = made.config.read_text()
    made.config.write_text(few.replace("count = 2", "count = 9"))
    code, said = _reload(made)
    assert (code, told in said) == (0, True)
    code, said = _command(made, "status")
    assert (code, told in said) == (0, True)
    made.config.write_text(few)
    code, said = _reload(made)
    assert (code, "stay as they are" in said) == (0, False)


@pytest.mark.timeout(180)
def test_what_an_operator_stopped_stays_stopped(made: Instance) -> None:
    """`reload` does not wait for it; SIGHUP to all has the others take the file up."""
    two = made.folder / "two"
    made.client.stop("shardsync:watcher-01")
    eventually(lambda: made.program("watcher-01").state is ProgramState.STOPPED)
    _write(made, web1=made.node, web2=two, tree='exclude = ["*.tmp"]')
    assert _reload(made)[0] == 0
    assert made.program("watcher-01").state is ProgramState.STOPPED
    made.client.start("shardsync:watcher-01")
    eventually(lambda: names_below(two) == names_below(made.root))
    _write(made, web1=made.node, web2=two, web3=made.folder / "three", tree='exclude = ["*.tmp"]')
    made.supervisorctl("signal", "HUP", "shardsync:*")
    eventually(lambda: names_below(made.folder / "three") == names_below(made.root))


@pytest.mark.timeout(180)
def test_a_tree_comes_and_goes(made: Instance) -> None:
    """The Plan gains its Shards, its Node is filled; without it all of that is let go."""
    docs, node = made.folder / "docs", made.folder / "docs-node"
    fill(docs, {"a/page": "1"})
    good = made.config.read_text()
    made.config.write_text(
        good.replace("[tree]", "[[tree]]").replace('name = "web1"', 'name = "web1"\ntree = "main"')
        + f'[[tree]]\nname = "docs"\nroot = "{docs}"\n'
        + _NODE.format(name="docs1", target=node, more='tree = "docs"')
    )
    code, said = _reload(made)
    assert code == 0, said
    eventually(lambda: names_below(node) == names_below(docs))
    made.config.write_text(good)
    code, said = _reload(made)
    assert code == 0, said
    fill(made.root, {"d0/after": "1"})
    fill(docs, {"a/after": "1"})
    eventually((made.node / "d0/after").exists)
    assert not (node / "a/after").exists()


@pytest.mark.timeout(180)
def test_a_window_comes_and_goes_by_reload(made: Instance) -> None:
    """Within its hours the Node pauses and status says so; without it the Node goes on."""
    now = time.localtime()
    hours = {"from": f"{now.tm_hour:02d}:00", "to": f"{(now.tm_hour + 2) % 24:02d}:00"}
    window = "windows = [{ " + ", ".join(f'{k} = "{v}"' for k, v in hours.items())
    _write(made, web1=made.node, node_more=window + ", paused = true }]")
    assert _reload(made)[0] == 0
    fill(made.root, {"d0/later": "1"})
    eventually(
        lambda: f"window {hours['from']}-{hours['to']} paused" in _command(made, "status")[1]
    )
    eventually(lambda: "node main/web1 paused" in _command(made, "status")[1])
    assert not (made.node / "d0/later").exists()
    code, said = _command(made, "flush")
    assert (code, "not done: web1 (paused)" in said) == (14, True)
    _write(made, web1=made.node)
    assert _reload(made)[0] == 0
    eventually((made.node / "d0/later").exists)


def test_where_nothing_runs_there_is_nothing_to_reload(tmp_path: Path) -> None:
    """Exit 16, with what to do."""
    with instance(tmp_path) as made:
        _write(made, web1=made.node)
        code, said = _reload(made)
    assert code == 16
    assert "shardsync up" in said
