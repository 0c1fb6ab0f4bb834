from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.beneath import open_stepwise
from shardsync.ship.look import Look, Looker, LookKind
from shardsync.ship.root import RootGuard, RootIdentity, RootTroubleKind
from tests.support.sickly import SicklyMount
from tests.support.transports import ODD_NAMES


def guard(root: Path) -> RootGuard:
    made = RootGuard(path=os.fsencode(root))
    assert made.pin() is None
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small tree."""
    folder = tmp_path / "root"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "f").write_text("12345")
    os.symlink("a", folder / "link")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.fixture(params=["openat2", "stepwise"])
def looker(request: pytest.FixtureRequest, root: Path) -> Iterator[Looker]:
    """A Looker, on a new kernel and on one without openat2."""
    held = guard(root)
    made = Looker(
        root_fd=held.descriptor,
        open_directory=open_stepwise if request.param == "stepwise" else None,
    )
    yield made
    made.close()
    held.release()


def test_each_kind_is_told(looker: Looker) -> None:
    """Files, directories, symlinks and the rest are told apart; figures come with them."""
    assert looker.look(b"").kind is LookKind.DIRECTORY
    assert looker.look(b"a").kind is LookKind.DIRECTORY
    assert looker.look(b"link").kind is LookKind.SYMLINK
    assert looker.look(b"fifo").kind is LookKind.OTHER
    seen = looker.look(b"a/b/f")
    assert (seen.kind, seen.size, seen.links) == (LookKind.FILE, 5, 1)


def test_missing_tells_the_shallowest_ancestor(looker: Looker) -> None:
    """A missing path names the shallowest missing ancestor, and one that is no directory."""
    assert looker.look(b"a/none") == Look(kind=LookKind.MISSING)
    assert looker.look(b"none") == Look(kind=LookKind.MISSING)
    gone = Look(kind=LookKind.MISSING_ANCESTOR, ancestor=b"a/x")
    assert [looker.look(b"a/x/y/z"), looker.look(b"a/x/q")] == [gone, gone]
    blocked = Look(kind=LookKind.NOT_DIRECTORY_ANCESTOR, ancestor=b"a/b/f")
    assert [looker.look(b"a/b/f/x"), looker.look(b"a/b/f/y/z")] == [blocked, blocked]


def test_symlinks_are_never_followed(looker: Looker) -> None:
    """A symlink on the way blocks, though what it leads to exists."""
    assert looker.look(b"link/b/f") == Look(kind=LookKind.NOT_DIRECTORY_ANCESTOR, ancestor=b"link")


def test_paths_that_leave_the_tree_are_refused(looker: Looker) -> None:
    """`..`, absolute and malformed paths are a bug of the caller's, not a missing file."""
    for path in (b"..", b"a/../../x", b"/etc/passwd", b"a//b", b"a/", b"./a", b"a\0b"):
        with pytest.raises(ValueError, match="clean"):
            looker.look(path)


def test_a_moved_directory_is_not_believed_missing(looker: Looker, root: Path) -> None:
    """A directory swapped during a Batch: the kept one is not trusted for what it lacks."""
    assert looker.look(b"a/b/f").kind is LookKind.FILE
    (root / "a" / "b").rename(root / "away")
    (root / "a" / "b").mkdir()
    (root / "a" / "b" / "new").write_text("1")
    assert looker.look(b"a/b/new").kind is LookKind.FILE
    assert looker.look(b"a/b/f").kind is LookKind.MISSING


def test_many_directories_need_few_descriptors(looker: Looker, root: Path) -> None:
    """Looks through a thousand directories hold a bounded number of them open."""
    for number in range(1_000):
        (root / f"d{number}").mkdir()
        (root / f"d{number}" / "f").write_text("")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1_000):
        assert looker.look(b"d%d/f" % number).kind is LookKind.FILE
    assert len(os.listdir("/proc/self/fd")) - before <= 130


def test_odd_names_are_seen(looker: Looker, root: Path) -> None:
    """Names of any bytes are found."""
    for name in ODD_NAMES:
        with open(os.fsencode(root) + b"/a/" + name, "wb"):
            pass
        assert looker.look(b"a/" + name).kind is LookKind.FILE


@pytest.mark.fault("path-too-long")
def test_paths_beyond_path_max_are_seen(looker: Looker, root: Path) -> None:
    """A path longer than 4,096 bytes is found name by name, and one missing there is missing."""
    name = b"d" * 250
    current = os.open(root, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(name, dir_fd=current)
        deeper = os.open(name, os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = deeper
    os.mkdir(b"end", dir_fd=current)
    os.close(current)
    deep = b"/".join([name] * 20)
    try:
        assert looker.look(deep + b"/end").kind is LookKind.DIRECTORY
        assert looker.look(deep + b"/none").kind is LookKind.MISSING
        assert looker.look(b"x" * 300).error == errno.ENAMETOOLONG
    finally:
        looker.close()
        shutil.rmtree(root / os.fsdecode(name))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_forbidden_is_not_missing(root: Path) -> None:
    """A directory that may not be searched is unreadable (EACCES), never missing."""
    (root / "secret").mkdir(mode=0o700)
    for folder in (*list(root.parents)[:-1], root):
        with contextlib.suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o055)
    held = guard(root)
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        found = held.look(b"secret/file")
        os._exit(0 if (found.kind, found.error) == (LookKind.UNREADABLE, errno.EACCES) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.fault("disk-sick")
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("failure", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES])
def test_an_error_is_told_as_it_is(root: Path, tmp_path: Path, failure: int) -> None:
    """A disk that answers with an error: unreadable, by that very error, at it and below."""
    back = tmp_path / "back"
    (back / "sub").mkdir(parents=True)
    (back / "sub" / "f").write_text("1")
    with SicklyMount(back=back, point=root / "vol") as disk:
        held = guard(root)
        assert held.look(b"vol/sub/f").kind is LookKind.FILE
        disk.fails[b"sub"] = failure
        for path in (b"vol/sub", b"vol/sub/f", b"vol/sub/none", b"vol/sub/none/deeper"):
            assert held.look(path) == Look(kind=LookKind.UNREADABLE, error=failure)
        disk.fails.clear()
        assert held.look(b"vol/sub/none").kind is LookKind.MISSING
        held.release()


def test_a_healthy_root_stays_untroubled(root: Path) -> None:
    """Ordinary life in the tree raises no alarm."""
    held = guard(root)
    (root / "more").mkdir()
    shutil.rmtree(root / "a")
    assert held.check() is None


def test_lost_roots_are_told(root: Path) -> None:
    """A root that is moved away, replaced, or swapped for a file is told, each by its name."""
    held = guard(root)
    away = root.with_name("away")
    root.rename(away)
    trouble = held.check()
    assert trouble is not None
    assert trouble.kind is RootTroubleKind.MISSING
    root.mkdir()
    (root / "x").write_text("1")
    trouble = held.check()
    assert trouble is not None
    assert trouble.kind is RootTroubleKind.REPLACED
    # What was pinned is still the old one: nothing seems to be missing in it.
    assert held.look(b"a/b/f").kind is LookKind.FILE
    shutil.rmtree(root)
    root.write_text("a file")
    trouble = held.check()
    assert trouble is not None
    assert trouble.kind is RootTroubleKind.MISSING
    root.unlink()
    away.rename(root)
    assert held.check() is None


def test_an_emptied_root_is_told_until_accepted(root: Path) -> None:
    """A root that had entries and has none raises an alarm; the operator may accept it."""
    held = guard(root)
    shutil.rmtree(root / "a")
    (root / "link").unlink()
    (root / "fifo").unlink()
    trouble = held.check()
    assert trouble is not None
    assert trouble.kind is RootTroubleKind.EMPTY
    assert held.accept() is None
    assert held.check() is None


def test_the_marker_must_be_there(root: Path) -> None:
    """Without its marker file a root is not taken hold of, and later checks tell its loss."""
    marked = RootGuard(path=os.fsencode(root), marker="marker")
    trouble = marked.pin()
    assert trouble is not None
    assert trouble.kind is RootTroubleKind.MARKER_GONE
    assert not marked.is_pinned
    (root / "marker").write_text("")
    assert marked.pin() is None
    (root / "marker").unlink()
    trouble = marked.check()
    assert trouble is not None
    assert trouble.kind is RootTroubleKind.MARKER_GONE


def test_identity_survives_json_and_finds_the_root_again(root: Path) -> None:
    """A stored identity recognizes the same root, and refuses another one at its path."""
    held = guard(root)
    assert held.identity is not None
    stored = RootIdentity.from_json(json.loads(json.dumps(held.identity.to_json())))
    assert stored == held.identity
    held.release()
    again = RootGuard(path=os.fsencode(root), known=stored)
    assert again.pin() is None
    again.release()
    root.rename(root.with_name("old"))
    root.mkdir()
    (root / "x").write_text("1")
    other = RootGuard(path=os.fsencode(root), known=stored)
    trouble = other.pin()
    assert trouble is not None
    assert trouble.kind is RootTroubleKind.REPLACED
    assert not other.is_pinned
    assert other.accept() is None
    assert other.is_pinned


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_mounts_that_go_or_cover_are_told(root: Path) -> None:
    """A lazy umount, an overmount and a lost mount below are told; the pinned root stays."""
    mount(root)
    try:
        (root / "f").write_text("1")
        (root / "sub").mkdir()
        held = guard(root)
        mount(root / "sub")
        trouble = held.check()
        assert trouble is not None
        assert trouble.kind is RootTroubleKind.MOUNT_EMPTY
        (root / "sub" / "f").write_text("1")
        assert held.check() is None
        umount(root / "sub")
        trouble = held.check()
        assert trouble is not None
        assert trouble.kind is RootTroubleKind.MOUNT_LOST
        assert held.accept() is None
        mount(root)
        trouble = held.check()
        assert trouble is not None
        assert trouble.kind is RootTroubleKind.UNMOUNTED
        assert held.look(b"f").kind is LookKind.FILE
        umount(root)
        assert held.check() is None
        umount(root)
        trouble = held.check()
        assert trouble is not None
        assert trouble.kind is RootTroubleKind.UNMOUNTED
        assert held.look(b"f").kind is LookKind.FILE
        held.release()
    finally:
        subprocess.run(["umount", "-lR", str(root)], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("name", ["a b\n\t\\#", "a\rb", "a\x0bb\x0c\x1c\x85", "a (deleted)"])
def test_a_mount_at_an_odd_name_is_guarded(root: Path, name: str) -> None:
    """Also below a root of that name which is reached by a symlink: the kernel escapes in its
    table what separates its fields, and nothing else.
    """
    odd = root / name
    point = odd / name
    point.mkdir(parents=True)
    link = root / "way"
    link.symlink_to(name)
    try:
        mount(point)
        (point / "f").write_text("1")
        held = guard(link)
        assert [number[0] for number in held.mount_numbers] == [os.fsencode(name)]
        umount(point)
        trouble = held.check()
        assert trouble is not None
        assert trouble.kind is RootTroubleKind.MOUNT_LOST
        held.release()
    finally:
        subprocess.run(["umount", "-lR", point], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_release_lets_a_plain_umount_through(root: Path) -> None:
    """A pinned root keeps its mount busy, a released one does not."""
    mount(root)
    try:
        (root / "f").write_text("1")
        held = guard(root)
        plain = ["umount", str(root)]
        assert subprocess.run(plain, check=False, stderr=subprocess.DEVNULL).returncode != 0
        held.release()
        assert subprocess.run(plain, check=False).returncode == 0
        trouble = held.pin()
        assert trouble is not None
        assert trouble.kind is RootTroubleKind.REPLACED
    finally:
        subprocess.run(["umount", "-lR", str(root)], check=False, stderr=subprocess.DEVNULL)


def mount(path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "test", str(path)], check=True)


def umount(path: Path) -> None:
    subprocess.run(["umount", "-l", str(path)], check=True)
