"""Memory cgroups: a process that asks for more than it may have is killed by the kernel."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_CGROUPS = Path("/sys/fs/cgroup")
_MADE = (  # (where groups are made, the file of the limit): the second version, the first
    (_CGROUPS, "memory.max"),
    (_CGROUPS / "memory", "memory.limit_in_bytes"),
)


@contextlib.contextmanager
def memory_limit(pid: int, *, limit_bytes: int) -> Iterator[None]:
    """`pid` and what it starts may have so much more; skips where there are no such groups."""
    group, file = _made()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        file.write_text(str(limit_bytes))
        yield
    finally:
        file.write_text("-1" if file.name != "memory.max" else "max")
        for left in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(left)
        group.rmdir()


def _made() -> tuple[Path, Path]:
    for parent, name in _MADE:
        group = parent / f"shardsync-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / name).exists():
                return group, group / name
            group.rmdir()
    pytest.skip("no memory cgroups here")
