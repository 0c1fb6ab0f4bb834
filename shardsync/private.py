"""Folders that are ours alone: made so, and refused where another user has a hand in them.

Programs write there with their own rights, and follow what they find: a symlink that
somebody else put there would have root truncate what it leads to.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from shardsync.errors import StateUnusable

FOLDER_MODE = 0o700
_SAYS_NOTHING = frozenset({"lost+found", "logs"})
"""In a file system that was just made for it, also where the logs are to have their own."""


def make_private(folder: Path, *, sign: str = "") -> int:
    """Make the folder if need be, and make it ours alone; the mode that it had. Idempotent.

    `sign`: what is in it if it is one of ours; one that is not, and that others use, is left
    as it is. Raises OSError, and StateUnusable for such a one, or where the folder, or anything
    directly in it, belongs to another user.
    """
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if folder.is_symlink():
        _refuse_stranger(folder, os.lstat(folder), allowed={0, os.geteuid()})
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        _refuse_stranger(folder, found, allowed={os.geteuid()})
        mode = stat.S_IMODE(found.st_mode)
        if mode != FOLDER_MODE:
            if sign:
                _refuse_other_use(folder, os.listdir(descriptor), mode=mode, sign=sign)
            os.fchmod(descriptor, FOLDER_MODE)
        # From here on nobody else can put anything there.
        _refuse_planted(folder, descriptor)
    finally:
        os.close(descriptor)
    return mode


def _refuse_other_use(folder: Path, names: list[str], *, mode: int, sign: str) -> None:
    """Whoever wrote `dir = "/etc"` by mistake must not lose the machine by it."""
    others = set(names) - _SAYS_NOTHING
    if others and sign not in names:
        raise StateUnusable(
            f"{folder} is used for something else: its mode is {mode:04o}, and it holds"
            f" {min(others)}",
            hint="name another state.dir; if this one is for shardsync alone, chmod 0700 it",
        )


def _refuse_planted(folder: Path, descriptor: int) -> None:
    for name in os.listdir(descriptor):
        try:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a program of ours that runs took it away
        _refuse_stranger(folder / name, found, allowed={os.geteuid()})


def _refuse_stranger(path: Path, found: os.stat_result, *, allowed: set[int]) -> None:
    if found.st_uid in allowed:
        return
    raise StateUnusable(
        f"{path} belongs to user {user_name(found.st_uid)}, and shardsync runs as"
        f" {user_name(os.geteuid())}",
        hint="run it as that user, or, if you trust what is in there, give the whole state"
        " directory to this one (chown -R)",
    )


def user_name(uid: int) -> str:
    """The user's name, or the number of one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
