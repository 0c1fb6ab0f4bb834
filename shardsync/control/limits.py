"""What Trees of a given size need of the machine, what it has, and where it falls short.

`needed`, `shortfalls` and `recommended` are pure; `present` reads /proc and
the control groups. Nobody is refused for lack of anything: directories
without a watch are polled, and `check`, `plan` and `status` tell.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from shardsync.units import human_bytes

FREE_WATCHES = 64
"""Left to the user's other programs by every Watcher."""

WATCHES = "fs.inotify.max_user_watches"
INSTANCES = "fs.inotify.max_user_instances"
QUEUED_EVENTS = "fs.inotify.max_queued_events"
OPEN_FILES = "open files"
MEMORY = "memory"
NAMESPACE_KEYS = {WATCHES: "user.max_inotify_watches", INSTANCES: "user.max_inotify_instances"}
"""What a user namespace allows beside; outside of them it is the same value, namespaces(7)."""

# A Watcher has one instance with one watch on the cookies; the sync process one with two.
_SYNC_WATCHES = 2
_OTHER_INSTANCES = 32
"""Of the same user's other programs: systemd, a desktop, editors, `tail -f`."""

KERNEL_WATCH_BYTES = 1280
"""Of kernel memory, never swapped out: a mark of 80 bytes and its connector of 24 (measured,
Linux 6.18), 8 in an index, and the inode that the watch pins (ext4: 1,128)."""

DIRECTORY_BYTES = 60
"""Of a Watcher's memory for each directory: arrays of 21 bytes, the name, room to grow."""

# Measured as VmRSS on Python 3.11 with a few directories; rsync 3.5.0 beside its receiver.
_SUPERVISORD_BYTES = 20 << 20
_COORDINATOR_BYTES = 36 << 20
_SYNC_BYTES = 42 << 20
_NODE_BYTES = 1 << 20
_WARM_RSYNC_BYTES = 8 << 20
_RUNNING_RSYNC_BYTES = 16 << 20
_WATCHER_BYTES = 30 << 20
_FREE_SLOT_BYTES = 10 << 20

# Counted in /proc/PID/fd: the sync process held 37 with 4 Nodes, a Watcher 11 without a scan.
_SYNC_FILES = 32
_NODE_FILES = 8
_RSYNC_FILES = 8
_SUPERVISORD_FILES = 16
_PROGRAM_FILES = 4
_WATCHER_FILES = 32
_SCAN_FILES = 64
"""Directories that a scan holds open at most."""
_LEAST_OPEN_FILES = 1024
"""What every Linux gives: never told as needed less, so that nobody lowers it."""

LEAST_QUEUED_EVENTS = 16384
"""The kernel's own default; an overflow costs a scan and loses nothing."""

_LEAST_WATCHES = 1 << 19
"""Nobody has to come back for a Tree that grows to this; nothing is taken until it is used."""

_EVENTS_A_SECOND = 4 * 22_000
"""Files that a C program creates on ext4 in a second, with four events each."""
_STALL_SECONDS = 3
"""For which a disk may hold a Watcher up without an overflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one instance takes. Watches and instances are those of one user.

    `open_files`: of the process that holds the most. `memory_bytes`: of all
    processes together. `kernel_bytes`: for the watches, beside it.
    """

    directories: int
    watches: int
    instances: int
    queued_events: int
    open_files: int
    memory_bytes: int
    kernel_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the machine gives to this user and these processes. None: nobody says.

    `settings`: each sysctl that was read -> its value. `open_files`: what the
    daemons can have, the hard limit. `memory_bytes`: what is free for use,
    of the machine or of the control group, whichever is less.
    """

    settings: dict[str, int] = field(default_factory=dict)
    open_files: int | None = None
    memory_bytes: int | None = None

    def least(self, key: str) -> tuple[str, int] | None:
        """Of a sysctl and its namespace's namesake the one that is met first, with its value."""
        keys = [name for name in (key, NAMESPACE_KEYS.get(key)) if name in self.settings]
        found = [(self.settings[name], name) for name in keys if name is not None]
        if not found:
            return None
        # Equal outside of user namespaces: both names are one value there. fs.* is the known one.
        value, name = min(found, key=lambda pair: (pair[0], pair[1] != key))
        return name, value


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """One thing that there is too little of.

    `what`: a sysctl's name, "open files" or "memory". `effect`: what happens
    if nobody does anything. `remedy`: the command that mends it.
    """

    what: str
    needed: int
    present: int
    effect: str
    remedy: str

    def __str__(self) -> str:
        is_bytes = self.what == MEMORY
        present, needed = (
            human_bytes(figure) if is_bytes else f"{figure:,}"
            for figure in (self.present, self.needed)
        )
        return f"{self.what}: {present}, where {needed} are needed: {self.effect}; {self.remedy}"


def watcher_bytes(directories: int) -> int:
    """Memory of one Watcher that watches so many directories."""
    return _WATCHER_BYTES + directories * DIRECTORY_BYTES


def needed(
    directories: int,
    *,
    shards: int,
    nodes: int = 1,
    max_rsyncs: int = 8,
    slots: int = 0,
    moving: int = 0,
) -> Need:
    """What `directories` of all Trees together need, excluded ones left out.

    `slots`: Watcher slots in all. `moving`: directories that change hands in
    a re-plan under way, and have two watches meanwhile.
    """
    watchers = 2 * shards if moving else shards
    watches = directories + moving + watchers + _SYNC_WATCHES
    rsyncs = min(nodes, max_rsyncs)
    return Need(
        directories=directories,
        watches=watches + FREE_WATCHES,
        instances=watchers + 1 + _OTHER_INSTANCES,
        queued_events=LEAST_QUEUED_EVENTS,
        open_files=max(
            _LEAST_OPEN_FILES,
            _SYNC_FILES + nodes * _NODE_FILES + rsyncs * _RSYNC_FILES,
            _SUPERVISORD_FILES + (2 + max(slots, watchers)) * _PROGRAM_FILES,
            _WATCHER_FILES + _SCAN_FILES,
        ),
        memory_bytes=(
            _SUPERVISORD_BYTES
            + _COORDINATOR_BYTES
            + _SYNC_BYTES
            + nodes * (_NODE_BYTES + _WARM_RSYNC_BYTES)
            + rsyncs * _RUNNING_RSYNC_BYTES
            + watchers * _WATCHER_BYTES
            + max(0, slots - watchers) * _FREE_SLOT_BYTES
            + (directories + moving) * DIRECTORY_BYTES
        ),
        kernel_bytes=watches * KERNEL_WATCH_BYTES,
    )


def recommended(need: Need, limits: Limits | None = None) -> dict[str, int]:
    """The sysctls to set: room to grow, never below what there is.

    Watches for twice the directories: a re-plan watches what it moves twice,
    and a Tree grows. Nothing is taken until it is used.
    """
    has = limits.settings if limits is not None else {}
    wanted = {
        WATCHES: max(_LEAST_WATCHES, _round_up(2 * need.watches)),
        INSTANCES: max(512, _round_up(4 * need.instances)),
        QUEUED_EVENTS: _round_up(max(need.queued_events, _EVENTS_A_SECOND * _STALL_SECONDS)),
    }
    return {key: max(value, has.get(key, 0)) for key, value in wanted.items()}


def shortfalls(need: Need, limits: Limits) -> tuple[Shortfall, ...]:
    """What there is too little of, the worst first."""
    found = [
        _sysctl_shortfall(WATCHES, need.watches, need, limits, _polled(need, limits)),
        _sysctl_shortfall(
            INSTANCES,
            need.instances,
            need,
            limits,
            "Watchers that get none wait, and their Shards are not watched",
        ),
        _files_shortfall(need, limits),
        _memory_shortfall(need, limits),
        _sysctl_shortfall(
            QUEUED_EVENTS,
            need.queued_events,
            need,
            limits,
            "bursts of changes overflow the queue, and each overflow costs a scan",
        ),
    ]
    return tuple(shortfall for shortfall in found if shortfall is not None)


def present(
    *,
    pids: Iterable[int] = (),
    watches: int = 0,
    proc: Path = Path("/proc"),
    cgroups: Path = Path("/sys/fs/cgroup"),
) -> Limits:
    """What this process, and those that it starts, can have.

    `pids`, `watches`: of an instance that runs; the memory that it has taken
    counts as free.
    """
    names = (WATCHES, INSTANCES, QUEUED_EVENTS, *NAMESPACE_KEYS.values())
    values = ((name, _number(proc.joinpath("sys", *name.split(".")))) for name in names)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    groups = _group_free(proc, cgroups)
    memory = [free for free in (_machine_free(proc), *groups) if free is not None]
    own = watches * KERNEL_WATCH_BYTES + sum(_resident(proc, pid) for pid in pids)
    return Limits(
        settings={name: value for name, value in values if value is not None},
        open_files=None if hard == resource.RLIM_INFINITY else hard,
        memory_bytes=min(memory) + own if memory else None,
    )


def _polled(need: Need, limits: Limits) -> str:
    least = limits.least(WATCHES)
    short = 0 if least is None else min(need.directories, need.watches - least[1])
    return f"about {max(0, short):,} directories are polled once a minute instead"


def _sysctl_shortfall(
    key: str, figure: int, need: Need, limits: Limits, effect: str
) -> Shortfall | None:
    least = limits.least(key)
    if least is None or least[1] >= figure:
        return None
    name, value = least
    remedy = "`sudo shardsync tune --apply`"
    if name != key:
        # A user namespace's own limit: no sysctl.d file of the machine reaches it.
        remedy = f"in this user namespace: `sysctl -w {name}={recommended(need, limits)[key]}`"
    return Shortfall(what=name, needed=figure, present=value, effect=effect, remedy=remedy)


def _files_shortfall(need: Need, limits: Limits) -> Shortfall | None:
    if limits.open_files is None or limits.open_files >= need.open_files:
        return None
    wanted = _round_up(need.open_files)
    return Shortfall(
        what=OPEN_FILES,
        needed=need.open_files,
        present=limits.open_files,
        effect="some Nodes fail at times with `Too many open files`",
        remedy=f"`ulimit -n {wanted}` as root before `shardsync up`, or LimitNOFILE={wanted}"
        " in the systemd unit",
    )


def _memory_shortfall(need: Need, limits: Limits) -> Shortfall | None:
    wanted = need.memory_bytes + need.kernel_bytes
    if limits.memory_bytes is None or limits.memory_bytes >= wanted:
        return None
    return Shortfall(
        what=MEMORY,
        needed=wanted,
        present=limits.memory_bytes,
        effect="the kernel may end processes",
        remedy="give the machine or its container more, or exclude directories",
    )


def _round_up(number: int) -> int:
    """To a power of two: a figure that does not change with every new directory."""
    return 1 << max(0, number - 1).bit_length()


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        # Missing (an old kernel), unreadable, or "max".
        return None


def _machine_free(proc: Path) -> int | None:
    kib = _field(proc / "meminfo", "MemAvailable:")
    return None if kib is None else kib * 1024


def _resident(proc: Path, pid: int) -> int:
    return (_field(proc / str(pid) / "status", "VmRSS:") or 0) * 1024


def _group_free(proc: Path, cgroups: Path) -> Iterable[int | None]:
    """What each control group above this process leaves, cgroups(7): version 2, then 1."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _free_above(cgroups, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            yield from _free_above(
                cgroups / "memory",
                path,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )


def _free_above(top: Path, path: str, limit: str, usage: str, cache: str) -> Iterable[int | None]:
    """Of the group and of those above it; inside a container only `top` may be there."""
    folder = Path(os.path.normpath(f"{top}/{path}"))
    while folder == top or top in folder.parents:
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None:
            # Page cache is given back when memory is asked for.
            yield max(0, most - used + (_field(folder / "memory.stat", cache) or 0))
        folder = folder.parent


def _field(path: Path, name: str) -> int | None:
    """The number behind `name` in a file of such lines."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text("ascii", errors="replace").splitlines():
            words = line.split()
            if words and words[0] == name:
                return int(words[1])
    return None
