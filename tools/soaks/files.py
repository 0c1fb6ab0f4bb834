"""What happens to files: written, appended to, replaced, renamed, linked, held open, mapped."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import socket
import stat

from tools.soaks.ground import Ground, is_dir

_HELD_OPEN = 6
_SPARSE_BYTES = 3_000_000
_BIG_BYTES = 4_000_000
FROZEN = 1_600_000_000_000_000_000
"""A time that many files share, in nanoseconds."""


def create(ground: Ground) -> None:
    """A new file, or an old one written over."""
    path = ground.directory() + b"/" + ground.name()
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise IsADirectoryError(errno.EISDIR, "no plain file", path)
    ground.write(path, ground.some_bytes())


def rewrite(ground: Ground) -> None:
    """Other bytes; sometimes of the same size, sometimes with the time it had."""
    path = ground.file()
    before = os.lstat(path)
    if ground.dice.random() < 0.5:
        ground.write(path, ground.dice.randbytes(min(before.st_size, _BIG_BYTES)))
    else:
        ground.write(path, ground.some_bytes())
    if ground.dice.random() < 0.1:  # the old time put back, as rsync -t and cp -p do
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))


def append(ground: Ground) -> None:
    """A line more, as logs get."""
    ground.write(ground.file(), b"x" * 100, os.O_APPEND)


def truncate(ground: Ground) -> None:
    """Without its being opened."""
    os.truncate(ground.file(), ground.dice.randrange(300))


def replace(ground: Ground) -> None:
    """As deployments do: a temporary file, renamed over the old one; some with a frozen time."""
    folder = ground.directory()
    temporary = folder + b"/.tmp%d" % ground.count
    ground.write(temporary, ground.some_bytes())
    if ground.dice.random() < 0.2:
        os.utime(temporary, ns=(FROZEN, FROZEN))
    target = folder + b"/" + ground.name()
    try:
        os.rename(temporary, target)
    except OSError:
        os.unlink(temporary)
        raise


def rename(ground: Ground) -> None:
    """Anything but a directory, to anywhere, over whatever is there."""
    path = ground.any()
    if is_dir(path):
        raise IsADirectoryError(errno.EISDIR, "a directory", path)
    os.rename(path, ground.directory() + b"/" + ground.name())


def unlink(ground: Ground) -> None:
    """Anything but a directory."""
    os.unlink(ground.any())


def copy(ground: Ground) -> None:
    """As `cp -p`: other inode, same bytes, same time."""
    source = ground.file()
    target = ground.directory() + b"/" + ground.name() + b"c"
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "there already", target)
    shutil.copy2(source, target, follow_symlinks=False)


def link(ground: Ground) -> None:
    """One more name within the tree."""
    os.link(ground.file(), ground.directory() + b"/" + ground.name() + b"l")


def hold_open(ground: Ground) -> None:
    """A writer that stays."""
    if len(ground.held) >= _HELD_OPEN:
        let_go(ground)
    path = ground.directory() + b"/held%d" % ground.dice.randrange(4)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    ground.held.append(os.open(path, flags, 0o644))
    os.write(ground.held[-1], ground.some_bytes())


def write_held(ground: Ground) -> None:
    """A writer that stays writes on, whatever became of the name."""
    if not ground.held:
        raise FileNotFoundError(errno.ENOENT, "nothing is held open")
    os.write(ground.dice.choice(ground.held), b"one more line\n")


def let_go(ground: Ground) -> None:
    """A writer ends, mostly with some last words."""
    if not ground.held:
        raise FileNotFoundError(errno.ENOENT, "nothing is held open")
    descriptor = ground.held.pop(ground.dice.randrange(len(ground.held)))
    try:
        if ground.dice.random() < 0.7:
            os.write(descriptor, b"last words\n")
    finally:
        os.close(descriptor)


def sparse(ground: Ground) -> None:
    """A file that is mostly a hole."""
    if ground.is_heavy:
        raise OSError(errno.ENOSPC, "the tree is heavy enough")
    path = ground.directory() + b"/" + ground.name() + b"s"
    ground.write(path, b"begin")
    os.truncate(path, _SPARSE_BYTES)


def big(ground: Ground) -> None:
    """A file that is sent beside the Batches."""
    if ground.is_heavy:
        raise OSError(errno.ENOSPC, "the tree is heavy enough")
    path = ground.directory() + b"/" + ground.name() + b"b"
    ground.write(path, ground.dice.randbytes(_BIG_BYTES))


def map_and_write(ground: Ground) -> None:
    """Through a mapping; the file is closed after it was written."""
    path = ground.file()
    size = os.lstat(path).st_size
    if not size:
        raise OSError(errno.EINVAL, "an empty file cannot be mapped", path)
    with open(path, "r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        at = ground.dice.randrange(size)
        mapped[at : at + 1] = ground.dice.randbytes(1)


def map_and_hold(ground: Ground) -> None:
    """A mapping that stays: nobody hears of a write before it ends."""
    path = ground.file()
    size = os.lstat(path).st_size
    if not size or len(ground.mapped) >= _HELD_OPEN:
        raise OSError(errno.EINVAL, "empty, or enough is mapped", path)
    with open(path, "r+b") as stream:
        ground.mapped.append(mmap.mmap(stream.fileno(), 0))
    ground.mapped[-1][0:1] = ground.dice.randbytes(1)


def unmap(ground: Ground) -> None:
    """The end of a mapping, which closes the file."""
    if not ground.mapped:
        raise FileNotFoundError(errno.ENOENT, "nothing is mapped")
    ground.mapped.pop(ground.dice.randrange(len(ground.mapped))).close()


def nameless(ground: Ground) -> None:
    """O_TMPFILE, written, then given a name by linkat(2)."""
    folder = ground.directory()
    path = folder + b"/" + ground.name() + b"t"
    descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o644)
    above = os.open(b"/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.write(descriptor, ground.some_bytes())
        # Only with a directory given does Python call linkat(2), which follows the link.
        os.link(b"%d" % descriptor, path, src_dir_fd=above, follow_symlinks=True)
    finally:
        os.close(above)
        os.close(descriptor)


def link_out(ground: Ground) -> None:
    """A name outside the tree, through which the file can be changed without a word."""
    os.link(ground.file(), ground.names + b"/%d" % ground.count)


def write_outside(ground: Ground) -> None:
    """A change through a name outside the tree: inotify tells nobody."""
    names = sorted(os.listdir(ground.names), key=int)
    if not names:
        raise FileNotFoundError(errno.ENOENT, "no name is outside", ground.names)
    path = ground.names + b"/" + ground.dice.choice(names)
    ground.write(path, b"from outside %d" % ground.count, os.O_APPEND)
    status = os.lstat(path)
    if status.st_nlink > 1:
        ground.blind.add((status.st_dev, status.st_ino))


def symlink(ground: Ground) -> None:
    """Dangling, a loop, or to a directory beside it."""
    folder = ground.directory()
    path = folder + b"/" + ground.name() + b"y"
    beside = [name for name in ground.listed(folder) if is_dir(folder + b"/" + name)]
    to = [b"nowhere", os.path.basename(path), b"../gone/x", b"/nonexistent", *beside[:2]]
    os.symlink(ground.dice.choice(to), path)


def special(ground: Ground) -> None:
    """A fifo or a socket: never opened by anybody."""
    folder, name = ground.directory(), ground.name() + b"p"
    if ground.dice.random() < 0.5 or len(name) > 80:
        os.mkfifo(folder + b"/" + name)
        return
    # A socket's path has at most 107 bytes, whatever the folder's has.
    above = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(b"/proc/self/fd/%d/" % above + name)
    finally:
        os.close(above)
