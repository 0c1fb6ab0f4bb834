"""Which file system lies where: what tells a root apart from an empty mount point."""

from __future__ import annotations

import os
import stat


def file_system(device: int) -> str:
    """Type and source of the file system of a st_dev, as stable across boots as they are.

    A st_dev counts only within one boot; where mountinfo does not know it
    (btrfs subvolumes) it has to do.
    """
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        # As bytes: a text's lines and words end at more than what the kernel escapes in a path.
        with open("/proc/self/mountinfo", "rb") as stream:
            for line in stream:
                fields = os.fsdecode(line.rstrip(b"\n")).split(" ")
                if fields[2] == wanted:
                    after = fields.index("-")
                    kind, source = fields[after + 1 : after + 3]
                    # All tmpfs mounts are called tmpfs: only their place tells them apart.
                    place = "" if source.startswith("/") else f" {fields[4]}"
                    return f"{kind} {source}{place}"
    except OSError:
        pass
    return f"device {wanted}"


def look_at(path: bytes) -> os.stat_result | None:
    """The directory at `path` itself, None where there is none or it is something else."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found if stat.S_ISDIR(found.st_mode) else None
