"""Processes of one state directory, found by their command lines in /proc, and their end.

Needed for what supervisord no longer knows: a killed supervisord leaves its
children running. Only a process whose argv names our module and this very
state directory is ever signalled, through a descriptor, so never a reused pid.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shardsync.control.programs import MODULES
from shardsync.layout import StateDirectory

SUPERVISORD = "supervisord"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A living process of ours. `module`: what it runs, or `supervisord`."""

    pid: int
    module: str


def find(state: StateDirectory) -> tuple[Found, ...]:
    """All processes of this state directory but ourselves, supervisord first."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        module = _module_of(_argv(int(name)), state)
        if module is not None:
            found.append(Found(pid=int(name), module=module))
    return tuple(sorted(found, key=lambda process: (process.module != SUPERVISORD, process.pid)))


def state_of_settings(settings: Path) -> Path | None:
    """The state directory of living processes that were started with this settings file.

    For a file that no longer tells it. Only processes of our own user, or of root, count.
    """
    for name in os.listdir("/proc"):
        if not name.isdigit() or _owner(name) not in {0, os.geteuid()}:
            continue
        pairs = list(itertools.pairwise(_argv(int(name))))
        is_ours = any(("-m", module) in pairs for module in MODULES)
        if is_ours and ("--settings", str(settings)) in pairs:
            return next((Path(state) for word, state in pairs if word == "--state"), None)
    return None


def end(
    processes: Iterable[Found], state: StateDirectory, *, term_seconds: float = 30.0
) -> tuple[Found, ...]:
    """Have processes end: SIGTERM, and SIGKILL for what lives on. Returns those that ended.

    Idempotent; one that has ended meanwhile counts as ended. One that another
    user owns is left out.
    """
    with contextlib.ExitStack() as opened:
        descriptors: dict[int, Found] = {}
        ended = []
        for process in processes:
            descriptor = _open(process.pid, opened)
            # Looked at again now that the descriptor pins the process, not the number.
            if descriptor is None or _module_of(_argv(process.pid), state) != process.module:
                ended.append(process)
            else:
                descriptors[descriptor] = process
        for number, seconds in ((signal.SIGTERM, term_seconds), (signal.SIGKILL, 5.0)):
            for descriptor in descriptors:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(descriptor, number)
            ended.extend(descriptors.pop(descriptor) for descriptor in _wait(descriptors, seconds))
    return tuple(ended)


def wait_for_end(pid: int, *, seconds: float) -> bool:
    """Whether the process has ended within `seconds`."""
    with contextlib.ExitStack() as opened:
        descriptor = _open(pid, opened)
        return descriptor is None or bool(_wait({descriptor: None}, seconds))


def _open(pid: int, opened: contextlib.ExitStack) -> int | None:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    opened.callback(os.close, descriptor)
    return descriptor


def _wait(descriptors: Iterable[int], seconds: float) -> list[int]:
    """Those whose process ended, once all did or the time is up."""
    waiting = set(descriptors)
    ended: list[int] = []
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    # Each turn either sees an end or is the whole time; the sum is bounded by their number.
    while waiting:
        ready = [descriptor for descriptor, _ in poll.poll(seconds * 1000)]
        if not ready:
            break
        for descriptor in ready:
            poll.unregister(descriptor)
            waiting.discard(descriptor)
            ended.append(descriptor)
    return ended


def _owner(name: str) -> int | None:
    try:
        return os.stat(f"/proc/{name}").st_uid
    except OSError:
        return None


def _argv(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return [os.fsdecode(word) for word in stream.read().split(b"\0")]
    except OSError:
        return []


def _module_of(argv: list[str], state: StateDirectory) -> str | None:
    pairs = set(itertools.pairwise(argv))
    if ("-m", "supervisor.supervisord") in pairs:
        return SUPERVISORD if ("-c", str(state.supervisord_conf)) in pairs else None
    if ("--state", str(state.path)) not in pairs:
        return None
    return next((module for module in MODULES if ("-m", module) in pairs), None)
