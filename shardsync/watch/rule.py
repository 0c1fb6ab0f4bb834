"""What a scan is to do, where, and what it found beside Changes: values, no more."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shardsync.journal.writer import DirectoryRow

COARSE_US = 100_000
"""ctime is read from a clock that ticks every 4-10 ms: what is 0.1 s older is surely older."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a scan journals of what it finds. Times in Unix microseconds.

    `everything`: each entry, for a directory that was made just now. Otherwise
    what has a ctime of `since_us` or later. `unknown`: the directories below
    were never seen, so they are remembered without asking. `whole`: go below
    directories that are watched already. `explained_until_us`: after a clean
    stop, when a directory's new ctime is explained by Changes of its entries.
    `only_directories`: files are not looked at, for a Shard without a past:
    no Node is compared before all is watched, and then with all of it.
    `counts_links`: the file system counts a directory's subdirectories.
    `was_refused`: nobody knows what happened in it while it could not be entered,
    so once it can, all of it is journaled.
    """

    since_us: int = 0
    everything: bool = False
    unknown: bool = False
    whole: bool = False
    watched: bool = True
    explained_until_us: int = 0
    only_directories: bool = False
    sub_root: int = 0
    device: int = 0
    counts_links: bool = False
    was_refused: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One directory to scan. `parent` is its parent's watch, or TOP with `name` the whole path."""

    parent: int
    parent_inode: int
    name: bytes
    path: bytes
    rule: Rule


@dataclass(frozen=True, slots=True)
class Refused:
    """A directory that could not be entered, the error's number, its watch (0: none)."""

    task: Task
    number: int
    wd: int = 0


@dataclass(slots=True)
class Found:
    """What a scan brought besides Changes; the Watcher takes it with each commit.

    `suspects`: directories that changed under the scan, to be listed again;
    `unwatched`: where watches ran out, the topmost; `appeared`: files of new
    directories, to be journaled unless still being written; `refused`: what
    cannot be entered (no permission, a path too long); `forgotten`:
    (sub-root, inode) of those, which no memory tells anything of any more;
    `has_news`: something that nobody had told of.
    """

    directories: list[DirectoryRow] = field(default_factory=list)
    suspects: set[int] = field(default_factory=set)
    unwatched: dict[bytes, Task] = field(default_factory=dict)
    appeared: list[bytes] = field(default_factory=list)
    refused: dict[bytes, Refused] = field(default_factory=dict)
    forgotten: list[tuple[int, int]] = field(default_factory=list)
    has_news: bool = False


def with_files(task: Task) -> Task:
    """To be taken up again later, when what is not watched must be looked at in full."""
    return replace(task, rule=replace(task.rule, only_directories=False))


def refused(task: Task) -> Task:
    """To be taken up again later, when it could not be entered."""
    return replace(task, rule=replace(task.rule, only_directories=False, was_refused=True))
