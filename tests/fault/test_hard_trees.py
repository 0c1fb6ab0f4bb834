"""What trees do: storms, specials, writes that no event tells of, paths without an end."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.compare import differences
from tests.support.instances import Instance, eventually, instance

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _EXCHANGE = -100, 2


def exchange(one: Path, other: Path) -> None:
    """Both keep what they are and take each other's name, renameat2(2)."""
    names = os.fsencode(one), os.fsencode(other)
    if _LIBC.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


@pytest.mark.root
@pytest.mark.fault(
    "rename-storm", "names-swapped", "specials", "held-open", "mapped", "written-outside",
    "path-too-long",
)  # fmt: skip
def test_the_node_follows_whatever_the_tree_does(tmp_path: Path) -> None:
    """What no event tells of is found by a reconcile; a path that cannot be sent waits alone."""
    with instance(tmp_path, shards=2) as made:
        for number in range(20):
            (made.root / f"d{number}").mkdir()
            (made.root / f"d{number}/f").write_text(f"{number}")
        made.lifecycle().up(made.settings())
        eventually(made.is_in_step)

        storm(made.root)
        eventually(made.is_in_step)

        specials(made.root / "specials")
        eventually(made.is_in_step)
        assert stat.S_ISSOCK((made.node / "specials/socket").lstat().st_mode)

        with (made.root / "log").open("w", buffering=1) as log:
            log.write("a line of a log that is never closed\n")
            eventually(made.is_in_step)

        with mapped(made.root / "mapped") as view:
            eventually(made.is_in_step)
            view[:3] = b"new"
            assert found_by_reconcile_alone(made, "mapped", b"new")

        outside = tmp_path / "outside"
        os.link(made.root / "d0/f", outside)
        eventually(made.is_in_step)
        outside.write_text("written under another name")
        assert found_by_reconcile_alone(made, "d0/f", b"written under another name")

        top = endless(made.root)
        (made.root / "beside").write_text("goes on")
        made.shardsync("flush", "--timeout", "2s")
        assert (made.node / "beside").read_text() == "goes on"
        (made.root / "beside").write_text("goes on still")
        eventually(lambda: (made.node / "beside").read_text() == "goes on still")
        shutil.rmtree(top)
        eventually(made.is_in_step)


def storm(root: Path) -> None:
    """10,000 renames of files and directories, 500 exchanges between directories."""
    for turn in range(10_000):
        number = turn % 20
        if turn % 10:
            os.rename(root / f"d{number}/f", root / f"d{number}/g")
            os.rename(root / f"d{number}/g", root / f"d{number}/f")
        else:
            os.rename(root / f"d{number}", root / "other")
            os.rename(root / "other", root / f"d{number}")
        if not turn % 20:
            exchange(root / f"d{turn // 20 % 20}", root / f"d{turn // 20 * 7 % 20 or 1}")
        if not turn % 40:
            exchange(root / f"d{turn // 40 % 20}/f", root / f"d{(turn // 40 + 1) % 20}/f")


def specials(folder: Path) -> None:
    """A fifo, a socket, a device, symlinks that lead to each other."""
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    here = os.getcwd()
    os.chdir(folder)  # a socket's path has 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
    finally:
        os.chdir(here)
    os.mknod(folder / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (folder / "here").symlink_to("there")
    (folder / "there").symlink_to("here")
    (folder / "itself").symlink_to(".")


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as view:
        yield view


def found_by_reconcile_alone(made: Instance, name: str, begin: bytes) -> bool:
    """Whether a flush leaves the Node's file as it was, and a reconcile sends it."""
    assert made.shardsync("flush").returncode == 0
    assert not (made.node / name).read_bytes().startswith(begin)
    assert made.shardsync("reconcile").returncode == 0
    return (made.node / name).read_bytes().startswith(begin) and not differences(
        made.root, made.node
    )


def endless(root: Path) -> Path:
    """Directories below each other whose path has more bytes than the kernel takes."""
    top = root / "endless"
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(18):
        os.mkdir("n" * 250, dir_fd=descriptor)
        below = os.open("n" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    return top
