"""Random operations on a tree, as sites, editors, deployments and attackers do them.

Everything follows from the seed and from what the tree holds, which nobody else
changes: the same seed does the same again. Nothing is ever opened through a
symlink, and links point to nothing that exists.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import shutil
import socket
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

_NASTY = (
    b"#a", b";b", b"-rf", b"--rsh=x", b"$(id)", b"h:x", b"a\nb", b"\xff\xfe", b"sp ace", b"[x]*?",
    b"back\\slash", b".hid", b"\x1b[31m", b"%n %f", b"n" * 255,
)  # fmt: skip
_PLAIN = tuple(b"n%d" % number for number in range(24))
_DEEPEST = 7
_HELD_OPEN = 6
_FROZEN = 1_600_000_000_000_000_000
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Done:
    """What was done: how often each operation, how often one met an error, the last ones."""

    operations: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    blind: set[bytes] = field(default_factory=set)
    """Paths that changed in a way that the kernel tells nobody of."""


class Churn:
    """`step()` does one operation. `outside`: a folder beside the tree, on its file system."""

    def __init__(
        self,
        *,
        root: bytes,
        outside: bytes,
        seed: int,
        say: Callable[[str], None] | None = None,
        blind: bool = False,
    ) -> None:
        self.done = Done()
        self._root = root
        self._outside = outside
        self._dice = random.Random(seed)  # noqa: S311 (to be repeatable)
        self._say = say or (lambda _: None)
        self._held: list[int] = []
        self._count = 0
        self._operations: dict[str, tuple[int, Callable[[], None]]] = {
            "create": (20, self._create),
            "rewrite": (12, self._rewrite),
            "append": (10, self._append),
            "truncate": (3, self._truncate),
            "replace": (10, self._replace),
            "rename": (8, self._rename),
            "rename directory": (8, self._rename_directory),
            "exchange": (2, self._exchange),
            "move out": (2, self._move_out),
            "move in": (3, self._move_in),
            "unlink": (9, self._unlink),
            "mkdir -p": (8, self._make_deep),
            "rmtree": (4, self._remove_tree),
            "change type": (5, self._change_type),
            "hard link": (3, self._link),
            "symlink": (3, self._symlink),
            "chmod": (4, self._chmod),
            "utime": (4, self._utime),
            "hold open": (2, self._hold_open),
            "let go": (3, self._let_go),
            "sparse": (1, self._sparse),
            "special": (1, self._special),
            **({"mmap": (2, self._mmap)} if blind else {}),
        }

    def step(self) -> None:
        """One operation; one that the file system refuses is counted as refused."""
        names = list(self._operations)
        weights = [weight for weight, _ in self._operations.values()]
        name = self._dice.choices(names, weights)[0]
        self._count += 1
        try:
            self._operations[name][1]()
        except OSError as error:
            self.done.refused[name] += 1
            self._say(f"{self._count} {name}: {errno.errorcode.get(error.errno or 0)}")
        else:
            self.done.operations[name] += 1
            self._say(f"{self._count} {name}")

    def end(self) -> None:
        """Let go of every file that is held open."""
        while self._held:
            os.close(self._held.pop())

    # Choosing.

    def _directory(self) -> bytes:
        path = self._root
        while self._dice.random() < 0.75:
            below = [name for name in sorted(os.listdir(path)) if _is_dir(path + b"/" + name)]
            if not below:
                break
            path += b"/" + self._dice.choice(below)
        return path

    def _name(self) -> bytes:
        return self._dice.choice(_NASTY if self._dice.random() < 0.12 else _PLAIN)

    def _any(self) -> bytes:
        """Something that is there; raises FileNotFoundError in an empty directory."""
        folder = self._directory()
        names = sorted(os.listdir(folder))
        if not names:
            raise FileNotFoundError(errno.ENOENT, "nothing there", folder)
        return folder + b"/" + self._dice.choice(names)

    def _file(self) -> bytes:
        path = self._any()
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, "no plain file", path)
        return path

    def _bytes(self) -> bytes:
        return self._dice.randbytes(self._dice.choice((0, 10, 100, 3_000, 40_000)))

    def _write(self, path: bytes, text: bytes, flags: int = 0) -> None:
        plain = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, plain | (flags or os.O_TRUNC), 0o644)
        try:
            os.write(descriptor, text)
        finally:
            os.close(descriptor)

    # Files.

    def _create(self) -> None:
        path = self._directory() + b"/" + self._name()
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, "no plain file", path)
        self._write(path, self._bytes())

    def _rewrite(self) -> None:
        path = self._file()
        before = os.lstat(path)
        if self._dice.random() < 0.5:
            self._write(path, self._dice.randbytes(before.st_size))
        else:
            self._write(path, self._bytes())
        if self._dice.random() < 0.1:  # the old time put back, as rsync -t and cp -p do
            os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))

    def _append(self) -> None:
        self._write(self._file(), b"x" * 100, os.O_APPEND)

    def _truncate(self) -> None:
        os.truncate(self._file(), self._dice.randrange(300))

    def _replace(self) -> None:
        folder = self._directory()
        temporary = folder + b"/.tmp%d" % self._count
        self._write(temporary, self._bytes())
        if self._dice.random() < 0.2:
            os.utime(temporary, ns=(_FROZEN, _FROZEN))
        target = folder + b"/" + self._name()
        try:
            os.rename(temporary, target)
        except OSError:
            os.unlink(temporary)
            raise

    def _rename(self) -> None:
        path = self._any()
        if _is_dir(path):
            raise IsADirectoryError(errno.EISDIR, "a directory", path)
        os.rename(path, self._directory() + b"/" + self._name())

    def _unlink(self) -> None:
        os.unlink(self._any())

    def _link(self) -> None:
        os.link(self._file(), self._directory() + b"/" + self._name() + b"l")

    def _hold_open(self) -> None:
        if len(self._held) >= _HELD_OPEN:
            self._let_go()
        path = self._directory() + b"/held%d" % self._dice.randrange(4)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        self._held.append(os.open(path, flags, 0o644))
        os.write(self._held[-1], self._bytes())

    def _let_go(self) -> None:
        if not self._held:
            raise FileNotFoundError(errno.ENOENT, "nothing is held open")
        descriptor = self._held.pop(self._dice.randrange(len(self._held)))
        try:
            if self._dice.random() < 0.7:
                os.write(descriptor, b"last words\n")
        finally:
            os.close(descriptor)

    def _sparse(self) -> None:
        path = self._directory() + b"/" + self._name() + b"s"
        self._write(path, b"begin")
        os.truncate(path, 3_000_000)

    def _mmap(self) -> None:
        path = self._file()
        if not os.lstat(path).st_size:
            raise OSError(errno.EINVAL, "an empty file cannot be mapped", path)
        with open(path, "r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
            mapped[0:1] = self._dice.randbytes(1)
        self.done.blind.add(os.path.relpath(path, self._root))

    # Directories.

    def _make_deep(self) -> None:
        path = self._directory()
        if path.count(b"/") - self._root.count(b"/") > _DEEPEST:
            raise OSError(errno.ENAMETOOLONG, "deep enough", path)
        path += b"/" + self._name() + b"m/" + self._name() + b"/" + self._name()
        os.makedirs(path)
        self._write(path + b"/f", b"hello")
        self._write(os.path.dirname(path) + b"/g", b"g")

    def _directory_below(self) -> bytes:
        path = self._directory()
        if path == self._root:
            raise OSError(errno.EBUSY, "the root stays", path)
        return path

    def _rename_directory(self) -> None:
        source = self._directory_below()
        target = self._directory() + b"/" + self._name() + b"d"
        if self._dice.random() < 0.3 and os.path.lexists(target) and not _holds(target, source):
            _remove(target)
        os.rename(source, target)
        if self._dice.random() < 0.4:
            self._write(target + b"/after", b"after the move")
        if self._dice.random() < 0.2:
            os.rename(target, target + b"2")

    def _exchange(self) -> None:
        one, other = self._any(), self._any()
        if _holds(one, other) or _holds(other, one):
            raise OSError(errno.EINVAL, "one within the other", one)
        words = (ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(one))
        others = (ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(other))
        if _LIBC.renameat2(*words, *others, ctypes.c_uint(_RENAME_EXCHANGE)) != 0:
            raise OSError(ctypes.get_errno(), "renameat2", one)

    def _move_out(self) -> None:
        os.rename(self._directory_below(), self._outside + b"/%d" % self._count)

    def _move_in(self) -> None:
        stored = sorted(os.listdir(self._outside), key=int)
        if not stored:
            raise FileNotFoundError(errno.ENOENT, "nothing is outside", self._outside)
        target = self._directory() + b"/" + self._name() + b"i"
        source = self._outside + b"/" + self._dice.choice(stored)
        if self._dice.random() < 0.3:
            self._write(source + b"/made-outside", self._bytes())
        os.rename(source, target)

    def _remove_tree(self) -> None:
        path = self._directory_below()
        if self._dice.random() < 0.5:
            raise OSError(errno.EBUSY, "kept, or little would grow", path)
        shutil.rmtree(path)
        if self._dice.random() < 0.5:
            os.makedirs(path)
            self._write(path + b"/new", b"1")

    def _change_type(self) -> None:
        path = self._any()
        if path.count(b"/") == self._root.count(b"/") + 1 and self._dice.random() < 0.9:
            raise OSError(errno.EBUSY, "too much would go", path)
        _remove(path)
        match self._dice.randrange(3):
            case 0:
                self._write(path, b"file")
            case 1:
                os.mkdir(path)
                self._write(path + b"/in", b"in")
            case _:
                os.symlink(b"nowhere%d" % self._count, path)

    # The rest.

    def _symlink(self) -> None:
        path = self._directory() + b"/" + self._name() + b"y"
        to = self._dice.choice((b"nowhere", os.path.basename(path), b"../gone/x", b"/nonexistent"))
        os.symlink(to, path)

    def _chmod(self) -> None:
        path = self._any()
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, "a symlink", path)
        modes = (0o700, 0o755, 0o750) if stat.S_ISDIR(mode) else (0o600, 0o644, 0o640, 0o755)
        os.chmod(path, self._dice.choice(modes))

    def _utime(self) -> None:
        when = self._dice.choice((_FROZEN, 10**18 + self._dice.randrange(10**17)))
        os.utime(self._any(), ns=(when, when), follow_symlinks=False)

    def _special(self) -> None:
        path = self._directory() + b"/" + self._name() + b"p"
        if self._dice.random() < 0.5 or len(path) > 100:
            os.mkfifo(path)
            return
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path)


def _is_dir(path: bytes) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _holds(above: bytes, path: bytes) -> bool:
    return (path + b"/").startswith(above + b"/")


def _remove(path: bytes) -> None:
    if _is_dir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
