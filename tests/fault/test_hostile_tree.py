"""Who writes in the tree swaps directories for symlinks: nothing from outside reaches a Node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.cli.main import run
from shardsync.clock import SystemClock
from shardsync.ship.command import Purpose
from shardsync.ship.outcome import Outcome
from shardsync.ship.root import RootGuard
from shardsync.ship.sealed import seal, sealed
from shardsync.ship.transport import NodeTransport
from tests.support.clock import FakeClock
from tests.support.compare import differences
from tests.support.instance import START, HandMade, change
from tests.support.instances import instance
from tests.support.mounting import Mounts
from tests.support.nodes import local_node
from tests.support.old_rsync import old_rsync
from tests.support.swapping import swapping
from tests.support.transports import SECONDS, transport

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount"),
]
STRANGER = 65534
CANARY = "what only root may read"
FILES = 40
RUNS = 15


def texts(node: Path) -> set[str]:
    """What the files on a Node hold, no symlink followed; they may go meanwhile."""
    found = set()
    for parent, _, names in os.walk(node):
        for name in names:
            with contextlib.suppress(OSError):
                descriptor = os.open(Path(parent, name), os.O_RDONLY | os.O_NOFOLLOW)
                with os.fdopen(descriptor, encoding="utf-8") as file:
                    found.add(file.read())
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What `fill` makes."""
    folder = tmp_path / "tree"
    fill(folder, tmp_path / "outside")
    return folder


@pytest.mark.parametrize("purpose", [Purpose.BATCH, Purpose.TREE])
@pytest.mark.parametrize("age", ["old", "present"])
def test_a_directory_swapped_for_a_symlink_leads_nowhere(
    tree: Path, tmp_path: Path, age: str, purpose: Purpose
) -> None:
    """However the swaps fall between rsync's looks, no outside file is ever on the Node.

    Without the mount that follows no symlink, rsync 3.2.7 sent some in 9 of 10 runs.
    """
    node = tmp_path / "node"
    program = old_rsync() if age == "old" else "rsync"
    flat = [b"d/f%d" % number for number in range(FILES)]
    found: set[str] = set()

    async def ship() -> None:
        route = transport(local_node(node), tree, program=program)
        for _ in range(RUNS):
            node.mkdir()
            await route.ship(
                flat if purpose is Purpose.BATCH else [b"d"],
                purpose=purpose,
                deadline_seconds=SECONDS,
            )
            found.update(texts(node))
            shutil.rmtree(node)
        await route.close()

    with swapping(tree / "d", tree / "link"):
        asyncio.run(ship())
    assert found <= {"inside"}


def fill(folder: Path, outside: Path) -> None:
    """A stranger's tree: a directory, and a symlink to where only root may read."""
    (folder / "d").mkdir(parents=True)
    outside.mkdir(mode=0o700)
    for number in range(FILES):
        (folder / "d" / f"f{number}").write_text("inside")
        (outside / f"f{number}").write_text(CANARY)
    (folder / "link").symlink_to(outside)
    for path in (folder, folder / "d", folder / "link"):
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def test_a_whole_instance_sends_nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watchers and all, with files that change meanwhile; after the swaps the Node is right."""
    found = set()
    with tempfile.TemporaryDirectory(prefix="sec.") as name, instance(Path(name)) as made:
        made.root.rmdir()
        fill(made.root, made.folder / "outside")
        (made.folder / "bin").mkdir()
        (made.folder / "bin" / "rsync").symlink_to(old_rsync())
        monkeypatch.setenv("PATH", str(made.folder / "bin"), prepend=":")
        monkeypatch.setenv("SHARDSYNC_CONFIG", str(made.config))
        inside = os.open(made.root / "d", os.O_RDONLY | os.O_DIRECTORY)
        assert run(["up"]) == 0
        with swapping(made.root / "d", made.root / "link"):
            for number in range(20):
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                with os.fdopen(os.open(f"f{number}", flags, dir_fd=inside), "w") as file:
                    file.write("inside")
                time.sleep(0.05)
                found |= texts(made.node)
        os.close(inside)
        assert run(["flush", "--timeout", "60s"]) == 0
        assert differences(made.root, made.node) == []
        assert (found | texts(made.node)) - {""} == {"inside"}
        run(["down"])


@pytest.mark.parametrize("age", ["old", "present"])
def test_the_files_beside_a_refused_symlink_arrive(tree: Path, tmp_path: Path, age: str) -> None:
    """A path that leads through a symlink fails by itself, not the Batch that it is in."""
    node = tmp_path / "node"
    node.mkdir()
    program = old_rsync() if age == "old" else "rsync"

    async def ship() -> None:
        route = transport(local_node(node), tree, program=program)
        result = await route.ship([b"d/f0", b"link/f0"], deadline_seconds=SECONDS)
        assert (result.outcome, set(result.failed)) == (Outcome.PARTIAL, {b"link/f0"})
        await route.close()

    asyncio.run(ship())
    assert (node / "d" / "f0").read_text() == "inside"
    assert texts(node) == {"inside"}


def test_through_a_sealed_directory_the_kernel_follows_no_symlink(
    tree: Path, tmp_path: Path
) -> None:
    """Files, symlinks themselves and mounts below are there; what a symlink leads to is not."""
    mounts = Mounts()
    mounts.tmpfs(tree / "mounted")
    descriptor = -1
    try:
        (tree / "mounted" / "f").write_text("on the mount")
        descriptor = sealed(os.open(tree, os.O_PATH | os.O_DIRECTORY))
        there = Path(f"/proc/self/fd/{descriptor}")
        assert (there / "d" / "f0").read_text() == "inside"
        assert (there / "mounted" / "f").read_text() == "on the mount"
        assert os.readlink(there / "link") == str(tmp_path / "outside")
        with pytest.raises(OSError, match="symbolic links"):
            (there / "link" / "f0").read_text()
        with pytest.raises(OSError, match="Read-only"):
            (there / "new").write_text("")
    finally:
        os.close(descriptor)
        mounts.undo()


def test_without_the_right_to_mount_the_directory_is_handed_over_as_it_is(tree: Path) -> None:
    """An ordinary user's rsync reads what its user may read; that is no trouble."""
    lines = (
        "import os",
        "from shardsync.ship.sealed import seal, sealed",
        f"folder = os.open({os.fspath(tree)!r}, os.O_PATH | os.O_DIRECTORY)",
        "try:",
        "    seal(folder)",
        "except PermissionError:",
        "    print('refused')",
        "print(open(f'/proc/self/fd/{sealed(folder)}/d/f0').read())",
    )
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.decode().split() == ["refused", "inside"]


def test_what_is_mounted_while_rsync_waits_is_sent(tree: Path, tmp_path: Path) -> None:
    """A waiting rsync that cannot see a mount made since is not used: it would delete there."""
    node, other = tmp_path / "node", tmp_path / "other"
    other.mkdir()
    node.mkdir()
    (other / "f").write_text("mounted since")
    mounts = Mounts()

    async def ship() -> None:
        guard = RootGuard(path=os.fsencode(tree))
        assert guard.pin() is None
        route = NodeTransport(
            node=local_node(node), source=guard, clock=SystemClock(), environment=dict(os.environ)
        )
        route.warm_up()
        (tree / "sub").mkdir()
        mounts.bind(other, tree / "sub")
        assert guard.check() is None
        result = await route.ship([b"sub/f"], deadline_seconds=SECONDS)
        assert (result.outcome, result.warm) == (Outcome.SHIPPED, False)
        await route.close()
        guard.release()

    try:
        asyncio.run(ship())
    finally:
        mounts.undo()
    assert (node / "sub" / "f").read_text() == "mounted since"


@pytest.mark.parametrize("subtree", ["", "d"])
def test_below_an_unbindable_mount_nothing_counts_as_missing(
    tree: Path, tmp_path: Path, subtree: str
) -> None:
    """A mount that the kernel copies nowhere has its files sent, not deleted."""
    node = tmp_path / "node"
    (node / "sub").mkdir(parents=True)
    (node / "sub" / "f").write_text("old")
    mounts = Mounts()
    point = tree / subtree / "sub"

    async def ship() -> None:
        guard = RootGuard(path=os.fsencode(tree))
        assert guard.pin() is None
        route = NodeTransport(
            node=replace(local_node(node), subtree=subtree),
            source=guard,
            clock=SystemClock(),
            environment=dict(os.environ),
        )
        result = await route.ship([b"sub/f"], deadline_seconds=SECONDS)
        assert result.outcome is Outcome.SHIPPED, result
        await route.close()
        guard.release()

    try:
        mounts.tmpfs(point)
        subprocess.run(["mount", "--make-unbindable", point], check=True)
        (point / "f").write_text("on the mount")
        asyncio.run(ship())
    finally:
        mounts.undo()
    assert (node / "sub" / "f").read_text() == "on the mount"


def test_a_sealed_directory_keeps_no_mount_busy_once_it_is_closed(tmp_path: Path) -> None:
    """A file system that is let go of can be unmounted at once."""
    mounts = Mounts()
    mounts.tmpfs(tmp_path / "disk")
    try:
        folder = os.open(tmp_path / "disk", os.O_PATH | os.O_DIRECTORY)
        for _ in range(20):
            os.close(seal(folder))
        os.close(folder)
        assert mounts.umount(tmp_path / "disk")
    finally:
        mounts.undo()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandMade]:
    """An instance whose Tree has a symlink to a file outside."""
    instance = HandMade(folder=tmp_path, clock=FakeClock())
    instance.make()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text(CANARY)
    (instance.root / "link").symlink_to(tmp_path / "outside")
    journal = instance.add_shard()
    journal.commit([change(b"link"), change(b"link/f")])
    instance.open_state()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHARDSYNC_CONFIG", raising=False)
    yield instance
    instance.close()


@pytest.mark.parametrize("path", ["../../etc/passwd", "a/../../x", "/etc/passwd", "$/site/../x"])
@pytest.mark.parametrize(
    "words",
    [
        ["trace"],
        ["flush", "--path"],
        ["replay", "--since", f"main-00:{START}", "--dry-run", "--path"],
        ["reconcile", "--path"],
    ],
    ids=lambda words: words[0],
)
def test_a_path_outside_the_tree_is_refused(made: HandMade, words: list[str], path: str) -> None:
    """However it is spelled: exit 2."""
    assert run([*words, path.replace("$", str(made.folder))]) == 2


def test_trace_looks_through_no_symlink(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a symlink on the way leads to does not exist in the tree."""
    assert run(["trace", "link/f", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["modified_at"] is None
    assert run(["trace", "link", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["modified_at"] is not None


def test_verify_looks_through_no_symlink(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Node that holds a copy of what is outside, where the tree has a symlink, differs."""
    shutil.copytree(made.root, made.folder / "web1", dirs_exist_ok=True)
    assert run(["verify", "--json"]) == 3
    different = json.loads(capsys.readouterr().out)["nodes"][0]["different"]
    assert "link" in {found["path"] for found in different}
