"""Where operations happen: the tree, the folder beside it, and what is chosen there.

All choices follow from the seed and from what the tree holds, which nobody else
changes. Nothing is ever opened through a symlink.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import stat

NASTY = (
    b"#a", b";b", b"-rf", b"--rsh=x", b"$(id)", b"h:x", b"a\nb", b"\xff\xfe", b"sp ace", b"[x]*?",
    b"back\\slash", b".hid", b"\x1b[31m", b"%n %f", b"x~", b"n" * 255,
)  # fmt: skip
PLAIN = tuple(b"n%d" % number for number in range(24))
STILL = b"still"
"""Directories at the top whose names begin so are never touched."""
_NASTY_SHARE = 0.12
_DEEPER_SHARE = 0.75


class Ground:
    """`root`: the tree. `outside`: a folder on the same file system, beside it.

    `chosen`: what the operation under way chose, for the log. `blind`: (device, inode) of files
    that changed in a way that the kernel tells nobody of.
    """

    def __init__(self, *, root: bytes, outside: bytes, dice: random.Random) -> None:
        self.root = root
        self.stored = outside + b"/stored"
        self.names = outside + b"/names"
        self.dice = dice
        self.count = 0
        self.held: list[int] = []
        self.mapped: list[mmap.mmap] = []
        self.blind: set[tuple[int, int]] = set()
        self.chosen: list[bytes] = []
        self.is_crowded = False
        self.is_heavy = False
        for folder in (self.stored, self.names):
            os.makedirs(folder, exist_ok=True)

    def let_all_go(self) -> None:
        """Close whatever is held open."""
        while self.held:
            os.close(self.held.pop())
        while self.mapped:
            self.mapped.pop().close()

    # Choosing.

    def listed(self, folder: bytes) -> list[bytes]:
        """The names in a directory that may be touched."""
        names = sorted(os.listdir(folder))
        if folder == self.root:
            return [name for name in names if not name.startswith(STILL)]
        return names

    def directory(self) -> bytes:
        """The root, or a directory below it."""
        path = self._directory()
        self.chosen.append(os.path.relpath(path, self.root))
        return path

    def _directory(self) -> bytes:
        path = self.root
        while self.dice.random() < _DEEPER_SHARE:
            below = [name for name in self.listed(path) if is_dir(path + b"/" + name)]
            if not below:
                break
            path += b"/" + self.dice.choice(below)
        return path

    def directory_below(self) -> bytes:
        """A directory that is not the root. Raises OSError where there is none."""
        path = self.directory()
        if path == self.root:
            raise OSError(errno.EBUSY, "the root stays", path)
        return path

    def name(self) -> bytes:
        """A new name, or one that is there already."""
        self.chosen.append(self.dice.choice(NASTY if self.dice.random() < _NASTY_SHARE else PLAIN))
        return self.chosen[-1]

    def any(self) -> bytes:
        """Something that is there; raises FileNotFoundError in an empty directory."""
        folder = self._directory()
        names = self.listed(folder)
        if not names:
            raise FileNotFoundError(errno.ENOENT, "nothing there", folder)
        path = folder + b"/" + self.dice.choice(names)
        self.chosen.append(os.path.relpath(path, self.root))
        return path

    def file(self) -> bytes:
        """A regular file. Raises OSError where the choice fell on something else."""
        path = self.any()
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, "no plain file", path)
        return path

    def depth(self, path: bytes) -> int:
        """How many directories lie between the root and `path`."""
        return path.count(b"/") - self.root.count(b"/")

    # Writing.

    def some_bytes(self) -> bytes:
        """What a file gets: of any of the usual sizes."""
        return self.dice.randbytes(self.dice.choice((0, 10, 100, 3_000, 40_000)))

    def write(self, path: bytes, text: bytes, flags: int = 0) -> None:
        """Open without following, write, close."""
        plain = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, plain | (flags or os.O_TRUNC), 0o644)
        try:
            os.write(descriptor, text)
        finally:
            os.close(descriptor)


def is_dir(path: bytes) -> bool:
    """Whether it is a directory itself, not a link to one."""
    return stat.S_ISDIR(os.lstat(path).st_mode)


def holds(above: bytes, path: bytes) -> bool:
    """Whether `path` is `above` or lies below it."""
    return (path + b"/").startswith(above + b"/")


def remove(path: bytes) -> None:
    """Whatever it is."""
    if is_dir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
