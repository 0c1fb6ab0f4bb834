"""Processes: started and ended by pid, and what the kernel says they use."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_TICKS = os.sysconf("SC_CLK_TCK")
_END_SECONDS = 30.0


class BenchFailed(Exception):
    """A measurement could not be made; the text says what to do."""


@contextlib.contextmanager
def running(
    argv: list[str],
    *,
    output: IO[bytes] | int = subprocess.DEVNULL,
    errors: IO[bytes] | int = subprocess.STDOUT,
    stdin: int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, so that Ctrl-C reaches us alone; ended with the block."""
    process = subprocess.Popen(
        argv, stdin=stdin, stdout=output, stderr=errors, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL to its whole session, and wait. Idempotent."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_END_SECONDS)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def await_true(
    found: Callable[[], bool],
    *,
    seconds: float,
    what: str,
    process: subprocess.Popen[bytes] | None = None,
    every: float = 0.01,
) -> float:
    """Monotonic time at which it was so. Raises BenchFailed after `seconds`, or when it ended."""
    deadline = time.monotonic() + seconds
    while not found():
        if process is not None and process.poll() is not None and not found():
            raise BenchFailed(f"{what}: {process.args!r} ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise BenchFailed(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return time.monotonic()


def holds(log: Path, text: bytes) -> bool:
    """Whether a log says so by now."""
    try:
        return text in log.read_bytes()
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What processes use, summed up: bytes, CPU seconds."""

    rss: int = 0
    pss: int = 0
    cpu: float = 0.0
    written: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            rss=self.rss + other.rss,
            pss=self.pss + other.pss,
            cpu=self.cpu + other.cpu,
            written=self.written + other.written,
        )


def usage(pids: Iterable[int]) -> Usage:
    """Of these processes together; those that ended count nothing."""
    total = Usage()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += _usage(pid)
    return total


def _usage(pid: int) -> Usage:
    rollup = _fields(f"/proc/{pid}/smaps_rollup")
    io = _fields(f"/proc/{pid}/io")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # proc_pid_stat(5): utime, stime, and those of children that were waited for.
    ticks = sum(int(field) for field in fields[11:15])
    return Usage(
        rss=1024 * rollup["Rss"],
        pss=1024 * rollup["Pss"],
        cpu=ticks / _TICKS,
        written=io["write_bytes"],
    )


def _fields(path: str) -> dict[str, int]:
    found = {}
    for line in Path(path).read_text().splitlines():
        name, colon, value = line.partition(":")
        if colon and value.split() and value.split()[0].isdigit():
            found[name] = int(value.split()[0])
    return found


def with_descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in os.listdir(f"/proc/{parent}/task"):
                text = Path(f"/proc/{parent}/task/{task}/children").read_text()
                found.extend(int(child) for child in text.split())
    return found


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    return pid > 0 and os.path.exists(f"/proc/{pid}")
