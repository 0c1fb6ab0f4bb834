"""What happens to directories, and to anything: made, moved, exchanged, removed, made another."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat

from tools.soaks.files import FROZEN
from tools.soaks.ground import Ground, holds, is_dir, remove

_DEEPEST = 7
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_LIBC = ctypes.CDLL(None, use_errno=True)


def make_deep(ground: Ground) -> None:
    """`mkdir -p` of three levels, with files written at once."""
    path = ground.directory()
    if ground.depth(path) > _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, "deep enough", path)
    path += b"/" + ground.name() + b"m/" + ground.name() + b"/" + ground.name()
    os.makedirs(path)
    ground.write(path + b"/f", b"hello")
    ground.write(os.path.dirname(path) + b"/g", b"g")


def rename_directory(ground: Ground) -> None:
    """To anywhere, sometimes over what is there, sometimes twice, sometimes written to at once."""
    source = ground.directory_below()
    folder = ground.directory()
    if ground.depth(folder) > _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, "deep enough", folder)
    target = folder + b"/" + ground.name() + b"d"
    if ground.dice.random() < 0.3 and os.path.lexists(target) and not holds(target, source):
        remove(target)
    os.rename(source, target)
    if ground.dice.random() < 0.4:
        ground.write(target + b"/after", b"after the move")
    if ground.dice.random() < 0.2:
        os.rename(target, target + b"2")


def copy_directory(ground: Ground) -> None:
    """As `cp -a`; small ones only."""
    source = ground.directory_below()
    if sum(len(names) for _, *lists in os.walk(source) for names in lists) > 40:
        raise OSError(errno.EFBIG, "too much", source)
    target = ground.directory() + b"/" + ground.name() + b"k"
    if os.path.lexists(target) or holds(source, target):
        raise FileExistsError(errno.EEXIST, "there already, or within itself", target)
    names = os.fsdecode(source), os.fsdecode(target)
    shutil.copytree(*names, symlinks=True, ignore=_specials)


def _specials(folder: str, names: list[str]) -> list[str]:
    """What a copy would hang on: all but files, directories and symlinks."""
    plain = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
    return [
        name for name in names if stat.S_IFMT(os.lstat(f"{folder}/{name}").st_mode) not in plain
    ]


def exchange(ground: Ground) -> None:
    """renameat2(2) with RENAME_EXCHANGE: of any two, also of two kinds."""
    one, other = ground.any(), ground.any()
    if holds(one, other) or holds(other, one):
        raise OSError(errno.EINVAL, "one within the other", one)
    words = (ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(one))
    others = (ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(other))
    if _LIBC.renameat2(*words, *others, ctypes.c_uint(_RENAME_EXCHANGE)) != 0:
        raise OSError(ctypes.get_errno(), "renameat2", one)


def move_out(ground: Ground) -> None:
    """A directory leaves the tree, with all that is held open in it."""
    os.rename(ground.directory_below(), ground.stored + b"/%d" % ground.count)


def move_in(ground: Ground) -> None:
    """One that left comes back, sometimes changed."""
    stored = sorted(os.listdir(ground.stored), key=int)
    if not stored:
        raise FileNotFoundError(errno.ENOENT, "nothing is outside", ground.stored)
    target = ground.directory() + b"/" + ground.name() + b"i"
    source = ground.stored + b"/" + ground.dice.choice(stored)
    if ground.dice.random() < 0.3:
        ground.write(source + b"/made-outside", ground.some_bytes())
    os.rename(source, target)


def remove_tree(ground: Ground) -> None:
    """`rm -rf`, and sometimes `mkdir` of the same name at once."""
    path = ground.directory_below()
    if not ground.is_crowded and ground.dice.random() < 0.5:
        raise OSError(errno.EBUSY, "kept, or little would grow", path)
    shutil.rmtree(path)
    if ground.dice.random() < 0.5:
        os.makedirs(path)
        ground.write(path + b"/new", b"1")


def change_type(ground: Ground) -> None:
    """A file, a directory or a symlink in the place of anything."""
    path = ground.any()
    if ground.depth(path) == 1 and ground.dice.random() < 0.9:
        raise OSError(errno.EBUSY, "too much would go", path)
    remove(path)
    match ground.dice.randrange(3):
        case 0:
            ground.write(path, b"file")
        case 1:
            os.mkdir(path)
            ground.write(path + b"/in", b"in")
        case _:
            os.symlink(b"nowhere%d" % ground.count, path)


def chmod(ground: Ground) -> None:
    """Another mode, of anything but a symlink."""
    path = ground.any()
    if stat.S_ISLNK(os.lstat(path).st_mode):
        raise OSError(errno.ELOOP, "a symlink", path)
    modes = (0o700, 0o755, 0o750) if is_dir(path) else (0o600, 0o644, 0o640, 0o755)
    os.chmod(path, ground.dice.choice(modes))


def utime(ground: Ground) -> None:
    """Another time, of anything; also one in the past."""
    when = ground.dice.choice((FROZEN, 10**18 + ground.dice.randrange(10**17)))
    path = ground.any()
    status = os.lstat(path)
    if (status.st_dev, status.st_ino) in ground.blind:
        # With the time set back by hand no comparison but one of all bytes would find it.
        raise OSError(errno.EPERM, "changed unseen, and still to be found", path)
    os.utime(path, ns=(when, when), follow_symlinks=False)
