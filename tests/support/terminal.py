"""A command on a terminal of its own: what a person would see, as text without the colours."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """One running command whose three standard streams are a terminal."""

    def __init__(self, *, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self._process = process
        self._seen = b""

    def wait_for(self, text: str, *, seconds: float = 30.0) -> str:
        """All that was shown, once it has `text` in it; fails the test at the end."""
        deadline = time.monotonic() + seconds
        while text not in self.text() and time.monotonic() < deadline:
            if not self._read():
                break
        assert text in self.text(), self.text()
        return self.text()

    def interrupt(self) -> None:
        """Ctrl-C, as a shell's foreground job gets it."""
        os.killpg(self._process.pid, signal.SIGINT)

    def end(self, *, seconds: float = 30.0) -> int:
        """Wait for the end; the exit code."""
        deadline = time.monotonic() + seconds
        while self._read() and time.monotonic() < deadline:
            continue
        return self._process.wait(timeout=max(1.0, deadline - time.monotonic()))

    def text(self) -> str:
        """All that was shown so far, redrawn parts as often as they were drawn."""
        return _CONTROL.sub(b"", self._seen).decode(errors="replace")

    def _read(self) -> bool:
        """Whether there may be more to come."""
        readable, _, _ = select.select([self._master], [], [], 0.1)
        if readable:
            try:
                found = os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the other end any more
                return False
            self._seen += found
            return bool(found)
        return self._process.poll() is None


@contextmanager
def terminal(
    argv: list[str], *, cwd: Path, env: Mapping[str, str], columns: int = 160
) -> Iterator[Terminal]:
    """Run `argv` on a terminal; it is killed at the end if it still runs."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        argv,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=cwd,
        env={**{k: v for k, v in env.items() if k != "COLUMNS"}, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(master=master, process=process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
