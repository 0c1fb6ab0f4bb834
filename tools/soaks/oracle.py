"""What two trees differ in, told twice: by rsync, and by a walker that shares no code with us."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess

_FILE_FIELDS = 5
"""Mode, owner, group, time, digest: no other kind has so many."""


def by_rsync(tree: str, node: str) -> list[str]:
    """The lines of `rsync -naic --delete`, the root's own line aside."""
    done = subprocess.run(
        ["rsync", "-naic", "--delete", f"{tree}/", f"{node}/"],
        capture_output=True,
        check=True,
        timeout=600,
    )
    lines = done.stdout.decode(errors="backslashreplace").splitlines()
    return [line for line in lines if not line.endswith(" ./")]


def by_walking(tree: str, node: str) -> list[str]:
    """Paths that are not the same: type, mode, owner, mtime, bytes, target of a symlink."""
    here, there = _seen(os.fsencode(tree)), _seen(os.fsencode(node))
    return [
        f"{path!r}: {here.get(path)} here, {there.get(path)} there"
        for path in sorted(here.keys() | there.keys())
        if here.get(path) != there.get(path)
    ]


def only_bytes_differ(tree: str, node: str) -> list[bytes]:
    """Files of one size and time with other bytes: what only a comparison of all bytes finds."""
    here, there = _seen(os.fsencode(tree)), _seen(os.fsencode(node))
    return [
        path
        for path in sorted(here.keys() & there.keys())
        if here[path] != there[path]
        and here[path][:-1] == there[path][:-1]
        and len(here[path]) == _FILE_FIELDS
        and _size(tree, path) == _size(node, path)
    ]


def _size(root: str, path: bytes) -> int:
    return os.lstat(os.fsencode(root) + b"/" + path).st_size


def _seen(root: bytes) -> dict[bytes, tuple[object, ...]]:
    found: dict[bytes, tuple[object, ...]] = {}
    for folder, directories, files, descriptor in os.fwalk(root, onerror=_raise):
        relative = os.path.relpath(folder, root)
        for name in [*directories, *files]:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            path = os.path.normpath(relative + b"/" + name)
            found[path] = _what(status, name, descriptor)
    return found


def _what(status: os.stat_result, name: bytes, folder: int) -> tuple[object, ...]:
    what: tuple[object, ...] = (oct(status.st_mode), status.st_uid, status.st_gid)
    if stat.S_ISREG(status.st_mode):
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return (*what, status.st_mtime_ns, digest)
    if stat.S_ISLNK(status.st_mode):
        return (*what, os.readlink(name, dir_fd=folder))
    return (*what, status.st_mtime_ns)


def _raise(error: OSError) -> None:
    raise error
