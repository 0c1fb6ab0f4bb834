"""What a reboot changes of a root, and what it must not: device numbers count within one boot."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shardsync.journal.requests import RequestKind
from shardsync.journal.state_writer import StateWriter
from shardsync.model import NodeState
from shardsync.ship.root import RootGuard, RootIdentity, RootTroubleKind
from shardsync.ship.subroots import SeenBelow, SubRoot, trouble_below
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import ask, fill, row_of
from tests.support.sync import Instance, run, running

Edit = Callable[[RootIdentity], RootIdentity]


def _rebooted(known: RootIdentity) -> RootIdentity:
    return dataclasses.replace(known, boot_id="another boot", device=known.device + 1)


def _moved_disk(known: RootIdentity) -> RootIdentity:
    return dataclasses.replace(_rebooted(known), inode=known.inode + 1)


def _other_disk(known: RootIdentity) -> RootIdentity:
    return dataclasses.replace(_rebooted(known), filesystem="uuid:another")


def _known(root: Path) -> RootIdentity:
    held = RootGuard(path=os.fsencode(root))
    assert held.pin() is None
    held.release()
    assert held.identity is not None
    return held.identity


def test_a_reboot_that_changed_device_numbers_is_no_other_root(tmp_path: Path) -> None:
    """The same root on the same file system, whatever its number now; that one counts next."""
    fill(tmp_path, {"a": "1"})
    known = _known(tmp_path)
    guard = RootGuard(path=os.fsencode(tmp_path), known=_rebooted(known))
    assert guard.pin() is None
    assert guard.identity == known
    guard.release()


@pytest.mark.parametrize("edit", [_moved_disk, _other_disk])
def test_another_disk_after_a_reboot_is_another_root(tmp_path: Path, edit: Edit) -> None:
    """Another inode, or another file system: nothing is held."""
    fill(tmp_path, {"a": "1"})
    guard = RootGuard(path=os.fsencode(tmp_path), known=edit(_known(tmp_path)))
    trouble = guard.pin()
    assert trouble is not None
    assert trouble.kind is RootTroubleKind.REPLACED
    assert not guard.is_pinned


def test_within_one_boot_a_device_number_counts() -> None:
    """Two tmpfs are called the same and have the same inodes: the number tells them apart."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        fill(Path(folder), {"a": "1"})
        known = _known(Path(folder))
        assert known.filesystem.startswith("tmpfs:")
        other = dataclasses.replace(known, device=known.device + 1)
        guard = RootGuard(path=os.fsencode(folder), known=other)
        trouble = guard.pin()
        assert trouble is not None
        assert trouble.kind is RootTroubleKind.REPLACED


def test_mounts_below_are_told_apart_as_the_root_is() -> None:
    """A file system with a UUID by that; another by its number, within one boot only."""
    before = SubRoot(point=b"vol", filesystem="tmpfs:x", inode=1, device=7, had_entries=True)
    now = SeenBelow(found=(dataclasses.replace(before, device=8),), unreadable=frozenset(), ids=())
    assert trouble_below([before], now, same_boot=False) is None
    assert trouble_below([before], now, same_boot=True) is not None
    by_uuid = dataclasses.replace(before, filesystem="uuid:1")
    now = SeenBelow(
        found=(dataclasses.replace(by_uuid, device=8),), unreadable=frozenset(), ids=()
    )
    assert trouble_below([by_uuid], now, same_boot=True) is None
    gone = SeenBelow(found=(), unreadable=frozenset(), ids=())
    sick = SeenBelow(found=(), unreadable=frozenset({b"vol"}), ids=())
    assert trouble_below([before], gone, same_boot=True) is not None
    assert trouble_below([before], sick, same_boot=True) is None


@pytest.mark.parametrize(("edit", "halts"), [(_rebooted, False), (_moved_disk, True)])
def test_a_root_after_a_reboot_is_known_or_accepted(
    tmp_path: Path, edit: Edit, *, halts: bool
) -> None:
    """With other device numbers all goes on; a root that was copied to another place waits for
    `resume --accept-root`, and deletes nothing before.
    """
    instance = Instance(tmp_path)
    tree, node = instance.tree, tmp_path / "node"
    fill(tree, {"a": "1", "b": "1"})
    instance.nodes = [local_node(node)]

    async def before() -> None:
        async with running(instance) as sync:
            await sync.followed()
            await sync.until(lambda: bool(sync.state.read.root_identity("main")))

    async def after() -> None:
        async with running(instance) as sync:
            os.unlink(tree / "b")
            fill(tree, {"a": "22"})
            instance.changed("a", "b")
            if halts:
                await sync.until(lambda: row_of(sync).state is NodeState.HALTED)
                assert (node / "b").exists()
                answer = await ask(sync, RequestKind.RESUME, tree="main", accept_root=True)
                assert answer.exit_code == 0
            await sync.followed()
            assert differences(tree, node) == []

    run(before)
    state = StateWriter.open(instance.state_dir.state_db, clock=instance.clock)
    known = RootIdentity.from_json(json.loads(state.read.root_identity("main")))
    state.set_tree("main", identity=json.dumps(edit(known).to_json()))
    state.close()
    run(after)
