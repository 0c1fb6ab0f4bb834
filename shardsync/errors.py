"""Every error an operator can meet: one class tree, each class with its exit code and hint.

Adapters translate foreign exceptions into these with `from`; only `cli` and
the service loops catch them. Exit codes are part of the outside contract.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class ShardsyncError(Exception):
    """Base of all errors of ours: `str()` names the thing and the value, `remedy` what to do."""

    exit_code: ClassVar[int] = 1
    hint: ClassVar[str] = "this is a bug: please report it with the log"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.remedy = self.hint if hint is None else hint


class UsageError(ShardsyncError):
    """The command line does not fit."""

    exit_code = 2
    hint = "see `shardsync COMMAND --help`"


class DifferencesFound(ShardsyncError):
    """Verify found Nodes that differ from the Tree."""

    exit_code = 3
    hint = "`shardsync flush` first if changes are pending, else `shardsync reconcile --node NODE`"


class SettingsError(ShardsyncError):
    """The settings file is missing, malformed or dangerous."""

    exit_code = 10
    hint = "correct the settings file, then `shardsync check`"


class AlreadyRunning(ShardsyncError):
    """Another process holds the lock on the state directory, a Tree's root or a Journal."""

    exit_code = 11
    hint = "`shardsync status` shows what runs; `shardsync down` stops it"


class StateUnusable(ShardsyncError):
    """A Journal or the state database cannot be opened, read or written."""

    exit_code = 12
    hint = "look at the state directory's disk space, owner and mode, then start again"


class StateDamaged(StateUnusable):
    """What is on the disk at `path` is no sound database: it is set aside and made anew."""

    def __init__(self, message: str, *, path: Path) -> None:
        super().__init__(message)
        self.path = path


class MadeByNewer(StateUnusable):
    """A newer shardsync made the file: this one cannot know what is in it."""

    hint = "run the newer version, or move the file away to start over"


class NodeUnreachable(ShardsyncError):
    """A Node does not answer, or refuses us."""

    exit_code = 13
    hint = "`shardsync check` tries every Node and shows what it answers"


class NodesFailed(ShardsyncError):
    """Some Nodes failed, a Tree is halted, or a flush timed out."""

    exit_code = 14
    hint = "`shardsync status` names the Nodes and their last error"


class SinceTooOld(ShardsyncError):
    """A replay was asked for a time that the Journal no longer holds."""

    exit_code = 15
    hint = "`shardsync reconcile --node NODE` compares everything instead"


class NotRunning(ShardsyncError):
    """The command needs the daemons, and they are down."""

    exit_code = 16
    hint = "start them with `shardsync up`"
