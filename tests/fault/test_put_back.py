"""Old copies and immutable files: somebody puts back what was, or forbids what should be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shardsync.journal.requests import RequestKind
from tests.support.compare import differences
from tests.support.immutable import immutable
from tests.support.nodes import local_node
from tests.support.shipping import KEY, ask, fill, newest, row_of
from tests.support.sync import Instance, run, running
from tests.support.watching import Watching


@pytest.mark.fault("old-copy-of-state")
def test_an_old_state_db_put_back_misses_nothing(tmp_path: Path) -> None:
    """Its Cursors are older than what the Nodes have: what came since is shipped once more."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    instance.nodes = [local_node(node)]
    state = instance.state_dir.state_db

    async def following(*names: str) -> None:
        async with running(instance) as sync:
            fill(tree, dict.fromkeys(names, " ".join(names)))
            instance.changed(*names)
            await sync.followed()

    run(lambda: following("a", "b"))
    shutil.copy(state, tmp_path / "old.db")
    run(lambda: following("b", "c"))
    (tree / "a").unlink()
    instance.changed("a")
    shutil.copy(tmp_path / "old.db", state)
    run(lambda: following("d"))
    assert differences(tree, node) == []


@pytest.mark.fault("old-copy-of-state")
def test_an_old_journal_put_back_hides_no_change(tmp_path: Path) -> None:
    """What it does not hold is found by its Watermark; no Position is handed out again."""
    watching = Watching(tmp_path).start()
    (watching.root / "a").touch()
    watching.quiet()
    watching.stop()
    journal = watching.state.journal(watching.shard.id)
    shutil.copy(journal, tmp_path / "old.db")
    watching.start()
    (watching.root / "b").touch()
    (watching.root / "a").unlink()
    watching.quiet()
    highest = watching.progress().last_position
    watching.stop()
    shutil.copy(tmp_path / "old.db", journal)
    watching._after = highest
    watching.start()
    seen = watching.seen()
    assert ("entry", b"b") in seen
    assert ("listing", b"") in seen or ("tree", b"") in seen
    watching.close()


@pytest.mark.root
@pytest.mark.fault("node-closed")
def test_an_immutable_file_of_a_node_waits_alone(tmp_path: Path) -> None:
    """What else changes in its directory arrives; once it may be changed it is."""
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"d/fixed": "1", "d/other": "1", "d/gone": "1"})
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            with immutable(node / "d/fixed"):
                fill(tree, {"d/fixed": "22", "d/other": "22"})
                (tree / "d/gone").unlink()
                instance.changed("d/fixed", "d/other", "d/gone")
                await sync.until(lambda: bool(sync.state.read.work(KEY)))
                await sync.until(lambda: (node / "d/other").read_text() == "22")
                assert not (node / "d/gone").exists()
                assert [item.path for item in sync.state.read.work(KEY)] == [b"d/fixed"]
                assert "d/fixed" in row_of(sync).last_error
            answer = await ask(sync, RequestKind.FLUSH, positions=newest(instance))
            assert answer.exit_code == 0
            assert differences(tree, node) == []

    run(work)
