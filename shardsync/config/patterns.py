"""Which paths the settings exclude, told as rsync would tell it.

Used on both ends of the data's way: the Watcher journals nothing excluded, the
Syncer ships and deletes nothing excluded. All of it pure; paths are bytes
relative to the Tree's root, b"" being the root itself, which nothing excludes.

Where rsync itself filters (a recursive run), `rsync_arguments` say the same.
In a run with --files-from rsync applies filter rules to the listed entries
alone: one below an excluded directory is sent all the same (tried with 3.5.0).
So a list must be filtered here, before rsync sees it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from shardsync.config.problems import Refusal
from shardsync.config.settings import SAFE_ORDER, NodeSettings, TreeSettings
from shardsync.config.wildmatch import Malformed, Pattern

_CACHED_DIRECTORIES = 8192
_LONGEST = 4095
"""rsync silently discards what is longer (MAXPATHLEN)."""


def check_pattern(text: str) -> Refusal | None:
    """What is wrong with `text` as a pattern, None if nothing."""
    if not text.strip("/"):
        return Refusal("is empty, it would match nothing", 'write a pattern: "*.tmp", "/cache/"')
    if "\0" in text:
        return Refusal("holds a NUL, which no name does", "write the pattern without it")
    if len(os.fsencode(text)) > _LONGEST:
        return Refusal("is longer than any path", f"write at most {_LONGEST} bytes")
    names = text.strip("/").split("/")
    if {"", ".", ".."} & set(names):
        clean = "/".join(name for name in names if name not in {"", ".", ".."})
        return Refusal(
            'holds an empty name, "." or "..", which no path of the Tree does',
            f'write "/{clean}", from the Tree\'s root' if clean else "leave it out",
        )
    try:
        Pattern.parse(os.fsencode(text))
    except Malformed as error:
        return Refusal(
            f"can never match: {error}", "for the character itself write a \\ before it"
        )
    return None


def tree_filter(tree: TreeSettings) -> PathFilter:
    """What a Tree's Watchers leave alone."""
    return PathFilter.compile(exclude=tree.exclude, include=tree.include)


def node_filter(node: NodeSettings) -> PathFilter:
    """What is not mirrored to a Node; for paths relative to the Tree's root, whatever its subtree.

    For an rsync whose source is ROOT/subtree/: `node_filter(node).rebased(subtree)`.
    """
    return PathFilter.compile(exclude=node.exclude, include=node.include, only=node.only)


def first_filter(node: NodeSettings) -> PathFilter | None:
    """What is sent before all else, for paths relative to the Tree's root: all it lets through.

    None where a Node has no order. Beside `only` rsync cannot be told of it.
    """
    if node.order != SAFE_ORDER or not node.order_first:
        return None
    return PathFilter.compile(only=node.order_first)


class PathFilter:
    """Excludes paths: a path is out if one of its directories is, or if it is itself.

    A name is judged by `include` first (it stays), then `exclude` (it goes).
    Where `only` is given it must also be named there, lie below what is named
    there, or be a directory on the way to it.
    """

    def __init__(
        self, *, include: _Group, exclude: _Group, only: _Group | None, trivial: bool
    ) -> None:
        self._include = include
        self._exclude = exclude
        self._only = only
        self._trivial = trivial
        self._judges_paths = only is not None or exclude.judges_paths
        self._any_name = exclude.any_name
        self._directories: dict[bytes, bool] = {}

    @classmethod
    def compile(
        cls,
        *,
        exclude: Iterable[str] = (),
        include: Iterable[str] = (),
        only: Iterable[str] = (),
    ) -> PathFilter:
        """The filter of these patterns. Raises Malformed where `check_pattern` refuses."""
        wanted = _parsed(only)
        return cls._of(
            include=_parsed(include),
            exclude=_parsed(exclude),
            only=[rule for pattern in wanted for rule in _only_rules(pattern)] if wanted else None,
        )

    @classmethod
    def _of(
        cls, *, include: list[Pattern], exclude: list[Pattern], only: list[Pattern] | None
    ) -> PathFilter:
        return cls(
            include=_Group.compile(include),
            exclude=_Group.compile(exclude),
            only=None if only is None else _Group.compile(only),
            trivial=not exclude and only is None,
        )

    def suspects(self, name: bytes) -> bool:
        """Whether a path of this last name may be excluded for it: False is certain, True is not.

        For loops over millions of entries: patterns that judge names alone,
        as the default excludes, are asked here at 0.3 us, without the path.
        """
        return self._judges_paths or bool(
            self._any_name is not None and self._any_name.fullmatch(name)
        )

    @property
    def is_exact(self) -> bool:
        """Whether `rsync_arguments` say all of it.

        rsync's one list cannot join two conditions: with `only` and `include`
        together its run is wider, and what it names must be asked of `excludes`.
        """
        return self._only is None or not self._overriding()

    def excludes(self, path: bytes, is_dir: bool) -> bool:  # noqa: FBT001 (hot: a million calls)
        """Whether `path`, or a directory that it lies in, is excluded."""
        if self._trivial or not path:
            return False
        if is_dir:
            return self._excludes_directory(path)
        cut = path.rfind(b"/")
        if cut >= 0 and self._excludes_directory(path[:cut]):
            return True
        return self._judge_file(path, path[cut + 1 :])

    def rebased(self, subtree: bytes) -> PathFilter:
        """The same filter for paths relative to the folder `subtree` of the Tree.

        Anchored patterns mean the Tree's root still: `/news/x` becomes `/x`
        below `news`, and `/other/` nothing.
        """
        folder = subtree.strip(b"/")
        if not folder:
            return self
        if self.excludes(folder, is_dir=True):
            return PathFilter._of(include=[], exclude=[], only=[])
        only = self._only
        return PathFilter._of(
            include=_rebased(self._include.patterns, folder),
            exclude=_rebased(self._exclude.patterns, folder),
            only=None if only is None else _rebased(only.patterns, folder),
        )

    def rsync_arguments(self) -> list[str]:
        """Filter options for a recursive rsync from the same directory; see `is_exact`.

        With --delete they also protect what is excluded on the receiving side.
        The rule's own prefix keeps a pattern like `- x` or `!` from being taken for one.
        """
        only = [] if self._only is None else [*_rules("+", self._only.patterns), "--filter=- *"]
        return [
            *_rules("+", self._overriding()),
            *_rules("-", self._exclude.patterns),
            *only,
        ]

    def _overriding(self) -> list[Pattern]:
        """`include`, as far as there is something for it to win over."""
        return self._include.patterns if self._exclude.patterns else []

    def _excludes_directory(self, path: bytes) -> bool:
        known = self._directories
        found = known.get(path)
        if found is not None:
            return found
        if len(known) >= _CACHED_DIRECTORIES:
            known.clear()
        # From the top: an excluded directory excludes all below it, whatever its name.
        verdict = False
        end = 0
        while end < len(path) and not verdict:
            start = end + 1 if end else 0
            end = path.find(b"/", start)
            end = len(path) if end < 0 else end
            directory = path[:end]
            cached = known.get(directory)
            verdict = (
                self._judge_directory(directory, path[start:end]) if cached is None else cached
            )
            known[directory] = verdict
        known[path] = verdict
        return verdict

    def _judge_file(self, path: bytes, name: bytes) -> bool:
        full = b"/" + path
        if self._exclude.takes_file(full, name) and not self._include.takes_file(full, name):
            return True
        return self._only is not None and not self._only.takes_file(full, name)

    def _judge_directory(self, path: bytes, name: bytes) -> bool:
        full = b"/" + path + b"/"
        if self._exclude.takes_directory(full, name) and not self._include.takes_directory(
            full, name
        ):
            return True
        return self._only is not None and not self._only.takes_directory(full, name)


class _Group:
    """Patterns of one sign, as four expressions: over names and over paths, files and directories.

    A tenth of the time that one expression a pattern takes: with the default
    excludes, a call of PathFilter.excludes takes about a microsecond.
    """

    def __init__(
        self,
        *,
        patterns: list[Pattern],
        file_name: re.Pattern[bytes] | None,
        file_path: re.Pattern[bytes] | None,
        directory_name: re.Pattern[bytes] | None,
        directory_path: re.Pattern[bytes] | None,
    ) -> None:
        self.patterns = patterns
        self._file_name = file_name
        self._file_path = file_path
        self._directory_name = directory_name
        self._directory_path = directory_path

    @classmethod
    def compile(cls, patterns: list[Pattern]) -> _Group:
        names = [pattern for pattern in patterns if pattern.name_only]
        paths = [pattern for pattern in patterns if not pattern.name_only]
        return cls(
            patterns=patterns,
            file_name=_any(item.expression() for item in names if not item.directories_only),
            file_path=_any(item.expression() for item in paths if not item.directories_only),
            directory_name=_any(item.expression() for item in names),
            directory_path=_any(
                item.expression() + (b"" if item.takes_trailing_slash else b"/") for item in paths
            ),
        )

    @property
    def judges_paths(self) -> bool:
        """Whether a name alone does not tell."""
        return self._directory_path is not None or self._file_path is not None

    @property
    def any_name(self) -> re.Pattern[bytes] | None:
        """What takes every name that a name alone tells of."""
        return self._directory_name

    def takes_file(self, full: bytes, name: bytes) -> bool:
        """Whether one of the patterns takes the file `/path`."""
        return bool(
            (self._file_name and self._file_name.fullmatch(name))
            or (self._file_path and self._file_path.fullmatch(full))
        )

    def takes_directory(self, full: bytes, name: bytes) -> bool:
        """Whether one of the patterns takes the directory `/path/`."""
        return bool(
            (self._directory_name and self._directory_name.fullmatch(name))
            or (self._directory_path and self._directory_path.fullmatch(full))
        )


def _parsed(patterns: Iterable[str]) -> list[Pattern]:
    return [Pattern.parse(os.fsencode(text)) for text in dict.fromkeys(patterns)]


def _only_rules(pattern: Pattern) -> list[Pattern]:
    """What `only` lets through: the pattern, all below it, and the directories on the way."""
    return [pattern, pattern.below(), *pattern.parents()]


def _rebased(patterns: list[Pattern], folder: bytes) -> list[Pattern]:
    return [item for pattern in patterns for item in pattern.rebased(folder)]


def _rules(sign: str, patterns: list[Pattern]) -> list[str]:
    spelled = dict.fromkeys(os.fsdecode(pattern.spelled()) for pattern in patterns)
    return [f"--filter={sign} {text}" for text in spelled]


def _any(expressions: Iterable[bytes]) -> re.Pattern[bytes] | None:
    joined = b"|".join(b"(?:" + expression + b")" for expression in expressions)
    return re.compile(joined, re.DOTALL) if joined else None
