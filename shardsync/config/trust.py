"""Whose word a settings file is: root believes no file that others may write.

The settings name programs (`ssh_options`, callbacks) and where files go, so whoever
writes them is as good as the user who runs shardsync.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shardsync.config.problems import Refusal
from shardsync.private import user_name


def read_trusted(file: Path) -> bytes:
    """What the file holds. Raises OSError, and Refusal where it must not be believed.

    Judged by its descriptor, so that what is judged is what is read; a fifo is not waited for.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Refusal("is no file", "name a file of settings")
        if os.geteuid() == 0:
            _refuse_strangers(found, file)
        return stream.read()


def _refuse_strangers(found: os.stat_result, file: Path) -> None:
    if found.st_uid not in {0, _sudoer()}:
        raise Refusal(
            f"belongs to user {user_name(found.st_uid)}, and root would run what it says",
            f"chown root {file}",
        )
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid != 0
    if by_group or found.st_mode & stat.S_IWOTH:
        raise Refusal(
            f"others may write it (its mode is {stat.S_IMODE(found.st_mode):04o}), and root would"
            " run what it says",
            f"chmod go-w {file}",
        )


def _sudoer() -> int:
    """Who became root by sudo(8), and may do as root whatever his own file says; else root."""
    uid = os.environ.get("SUDO_UID", "")
    return int(uid) if uid.isascii() and uid.isdigit() else 0
