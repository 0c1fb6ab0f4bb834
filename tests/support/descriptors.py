"""Limits on this process's open files, for a while."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


def open_descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd")) - 1  # the listing's own


@contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """Only so many may be opened meanwhile: the lowest free numbers, gaps included."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    limit = 0
    while number >= 0:
        number -= limit not in taken
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit - 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
