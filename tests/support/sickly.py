"""A real file system that answers with errors when told: FUSE, read-only, shows another folder.

So EIO, ESTALE and their like come from the kernel, to Python and rsync alike. Needs root.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

_LOOKUP, _FORGET, _GETATTR, _READLINK, _OPEN, _READ = 1, 2, 3, 5, 14, 15
_RELEASE, _FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR = 18, 25, 26, 27, 28, 29
_ACCESS, _INTERRUPT, _BATCH_FORGET = 34, 36, 42
_SILENT = frozenset({_FORGET, _INTERRUPT, _BATCH_FORGET})
_HEADER = struct.Struct("<IIQQIIII")
_REPLY = struct.Struct("<IiQ")
_LIBC = ctypes.CDLL(None, use_errno=True)


class SicklyMount:
    """`back` as it is seen at `point`; `fails[path] = errno` makes `path` and all below fail."""

    def __init__(self, *, back: Path, point: Path) -> None:
        self.fails: dict[bytes, int] = {}
        self._back = os.fsencode(back)
        self._point = point
        self._paths: dict[int, bytes] = {1: b""}
        self._numbers: dict[bytes, int] = {b"": 1}
        self._fd = -1
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._answers: Mapping[int, Callable[[bytes, bytes], bytes]] = {
            _LOOKUP: self._lookup,
            _GETATTR: self._getattr,
            _READLINK: lambda path, _: os.readlink(self._real(path)),
            _OPEN: self._open,
            _OPENDIR: self._open,
            _READ: self._read,
            _READDIR: self._readdir,
            _RELEASE: lambda *_: b"",
            _RELEASEDIR: lambda *_: b"",
            _FLUSH: lambda *_: b"",
            _ACCESS: lambda *_: b"",
        }

    def __enter__(self) -> Self:
        self._point.mkdir(exist_ok=True)
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other"
        done = _LIBC.mount(
            b"sickly", os.fsencode(self._point), b"fuse", ctypes.c_ulong(0), options.encode()
        )
        if done != 0:
            raise OSError(ctypes.get_errno(), "mount")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        subprocess.run(["umount", "-l", self._point], check=False, capture_output=True)
        self._thread.join(timeout=10)
        os.close(self._fd)

    def _serve(self) -> None:
        while True:
            try:
                asked = os.read(self._fd, 1 << 18)
            except OSError as error:
                if error.errno in {errno.EINTR, errno.ENOENT, errno.EAGAIN}:
                    continue
                return  # ENODEV: unmounted
            _, code, unique, node, *_ = _HEADER.unpack_from(asked)
            if code in _SILENT:
                continue
            try:
                answer, failed = self._answer(code, node, asked[_HEADER.size :]), 0
            except OSError as error:
                answer, failed = b"", -(error.errno or errno.EIO)
            reply = _REPLY.pack(_REPLY.size + len(answer), failed, unique) + answer
            try:
                os.write(self._fd, reply)
            except OSError:
                continue  # who asked has gone

    def _answer(self, code: int, node: int, rest: bytes) -> bytes:
        if code == _INIT:
            return struct.pack(
                "<IIIIHHIIHHI7I", 7, 31, 4096, 0, 8, 6, 4096, 1, 0, 0, 0, *([0] * 7)
            )
        if code not in self._answers:
            raise OSError(errno.ENOSYS, "not here")
        path = self._paths[node]
        self._fail(path)
        return self._answers[code](path, rest)

    def _fail(self, path: bytes) -> None:
        for start, number in self.fails.items():
            if path == start or path.startswith(start + b"/") or not start:
                raise OSError(number, os.strerror(number))

    def _real(self, path: bytes) -> bytes:
        return self._back + b"/" + path if path else self._back

    def _lookup(self, folder: bytes, rest: bytes) -> bytes:
        name = rest.rstrip(b"\0")
        path = folder + b"/" + name if folder else name
        self._fail(path)
        attributes = self._attributes(path)
        number = self._numbers.setdefault(path, len(self._numbers) + 1)
        self._paths[number] = path
        return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + attributes

    def _getattr(self, path: bytes, _: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._attributes(path)

    def _attributes(self, path: bytes) -> bytes:
        seen = os.lstat(self._real(path))
        seconds = [int(at) for at in (seen.st_atime, seen.st_mtime, seen.st_ctime)]
        fractions = [
            at % 1_000_000_000 for at in (seen.st_atime_ns, seen.st_mtime_ns, seen.st_ctime_ns)
        ]
        return struct.pack(
            "<6Q10I",
            seen.st_ino, seen.st_size, seen.st_blocks, *seconds, *fractions,
            seen.st_mode, seen.st_nlink, seen.st_uid, seen.st_gid, 0, 4096, 0,
        )  # fmt: skip

    def _open(self, path: bytes, _: bytes) -> bytes:
        os.lstat(self._real(path))
        return struct.pack("<QII", 0, 1, 0)  # direct_io: no page cache

    def _read(self, path: bytes, rest: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", rest)
        with open(self._real(path), "rb") as file:
            file.seek(offset)
            return file.read(size)

    def _readdir(self, path: bytes, rest: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", rest)
        out = b""
        names = [b".", b"..", *sorted(os.listdir(self._real(path)))]
        for number, name in enumerate(names[offset:], start=offset + 1):
            mode = os.lstat(self._real(path) + b"/" + name).st_mode
            entry = struct.pack("<QQII", number, number, len(name), stat.S_IFMT(mode) >> 12) + name
            entry += b"\0" * (-len(entry) % 8)
            if len(out) + len(entry) > size:
                break
            out += entry
        return out
