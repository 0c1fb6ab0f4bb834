"""What a run of rsync achieved: exit code and messages made into a verdict. Pure.

Neither an exit code nor an output line proves a path alone. Exit 0 or 24: the
whole list is shipped. 23 or 25: all but the paths that messages name, or nothing where a
message cannot be laid at a listed path's door. Any other code: nothing.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shardsync.escape import printable
from shardsync.ship.command import FLAT, Purpose
from shardsync.ship.messages import Failure, FailureKind, Messages, failure_kind, temporary_stem


class Outcome(enum.Enum):
    """How much of the list is on the Node now."""

    SHIPPED = "shipped"
    """All of it."""
    PARTIAL = "partial"
    """All but `failed`."""
    NOTHING = "nothing"
    """Some of it, perhaps; none of it may be counted on."""


class Trouble(enum.Enum):
    """Why a run achieved less than it should; what to do about it is the Syncer's."""

    INVOCATION = "invocation"
    """We, or `rsync_options`, asked for what rsync or the daemon does not do (1 to 4)."""
    MISSING_ARGS = "missing_args"
    """The receiver dies of --delete-missing-args: use the fallback."""
    AUTHENTICATION = "authentication"
    BUSY = "busy"
    """The daemon, or rrsync, has as many connections as it takes."""
    UNREACHABLE = "unreachable"
    DISK_FULL = "disk_full"
    DESTINATION = "destination"
    """The target folder cannot be made or written as a whole."""
    PROTOCOL = "protocol"
    TIMEOUT = "timeout"
    SSH = "ssh"
    RSYNC_MISSING = "rsync_missing"
    KILLED = "killed"
    DEADLINE = "deadline"
    """We ended it: too long, too silent or too talkative."""
    SOURCE = "source"
    """Our own root or subtree cannot be opened."""
    STALE = "stale"
    """A directory in the list became something else while it was read: look again."""
    MOVED_ON = "moved_on"
    """A directory in the list was renamed, or went, before it was read: the Changes will tell."""
    UNATTRIBUTED = "unattributed"
    """It failed for some paths and does not tell which."""
    PATHS = "paths"
    """Some paths failed for reasons of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """One run of rsync, ended. Paths are relative to the Node's root.

    `exit_code`: negative for a signal, None where rsync was never started. `listed`:
    length of the list. `sent`, `deleted`: lines of rsync's report. `bytes_sent`: what rsync
    says it put on the wire, 0 if it died. `files`, `file_bytes`: all that it looked at here.
    `failed`: what has to be tried again.
    `made_target`: the target's folder was not there; `made`: nor were these directories, which
    are not in the list but above what is.
    `vanished`: gone while it ran (a Change of their own will come). `warm`: it had been
    started ahead. `cut_off`: an rsync before it died with the same list in hand, and may
    have left a file of ours. `message`: for `last_error`, "" if all went well.
    """

    exit_code: int | None
    outcome: Outcome
    trouble: Trouble | None = None
    message: str = ""
    listed: int = 0
    sent: int = 0
    deleted: int = 0
    bytes_sent: int = 0
    files: int = 0
    file_bytes: int = 0
    failed: Mapping[bytes, Failure] = field(default_factory=dict)
    vanished: tuple[bytes, ...] = ()
    unattributed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stopped_deletions: bool = False
    made_target: bool = False
    made: tuple[bytes, ...] = ()
    seconds: float = 0.0
    warm: bool = False
    cut_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement alone, without the figures."""

    outcome: Outcome
    trouble: Trouble | None
    message: str
    failed: Mapping[bytes, Failure]


_TROUBLES = {
    **dict.fromkeys((1, 2, 3, 4, 6), Trouble.INVOCATION),
    5: Trouble.AUTHENTICATION,
    10: Trouble.UNREACHABLE,
    11: Trouble.DESTINATION,
    **dict.fromkeys((12, 13, 14, 21, 22), Trouble.PROTOCOL),
    **dict.fromkeys((19, 20), Trouble.KILLED),
    **dict.fromkeys((30, 35), Trouble.TIMEOUT),
    **dict.fromkeys((124, 125, 255), Trouble.SSH),
    **dict.fromkeys((126, 127), Trouble.RSYNC_MISSING),
}


BUSY_WORDS = "max connections"
"""What a daemon says that has as many connections as it takes."""
_TELLING = (
    ("invalid file mode", Trouble.MISSING_ARGS),
    ("No space left", Trouble.DISK_FULL),
    ("quota exceeded", Trouble.DISK_FULL),
    (BUSY_WORDS, Trouble.BUSY),
    ("Another instance of rrsync", Trouble.BUSY),
    ("invalid path from sender", Trouble.STALE),
)
"""Words that tell more than the exit code."""
_NOT_FOUND = re.compile(
    r"^[^\n]*rsync[^\n]*: (?:(?:command )?not found|No such file)", re.MULTILINE
)
_SSH_SAID = re.compile(
    r"^(?:ssh: |kex_exchange|Host key verification|Connection (?:closed|reset|timed out)"
    r"|[^\n]*: Permission denied \(|banner exchange|Bad owner|Could not resolve)",
    re.MULTILINE,
)


def judge(
    *,
    exit_code: int | None,
    messages: Messages,
    purpose: Purpose,
    paths: Sequence[bytes],
    gone: Sequence[bytes] = (),
    cut_off: str = "",
    stale: str = "",
) -> Verdict:
    """The verdict on a run that was handed `paths` and `gone` (those to be deleted).

    `cut_off`: why we ended it ourselves or could not read all it said, "" if neither. `stale`:
    why, where it was because of what the Tree became under its list.
    """
    if cut_off or stale:
        return _nothing(Trouble.STALE if stale else Trouble.DEADLINE, stale or cut_off)
    if exit_code not in {0, 23, 24, 25}:
        said = [*messages.unattributed, *messages.temporary.values()]
        said += [failure.reason for failure in messages.failed.values()]
        trouble = _trouble(exit_code, said)
        return _nothing(trouble, _message(exit_code, messages))
    if not _has_failures(messages):
        if exit_code in {0, 24}:
            return Verdict(outcome=Outcome.SHIPPED, trouble=None, message="", failed={})
        return _nothing(Trouble.UNATTRIBUTED, _message(exit_code, messages))
    failed, strangers = _attributed(messages, purpose=purpose, paths=paths, gone=gone)
    loose = strangers or (exit_code in {23, 25} and messages.unattributed)
    if loose:
        return _nothing(Trouble.UNATTRIBUTED, _message(exit_code, messages))
    return _partial(failed)


def _partial(failed: dict[bytes, Failure]) -> Verdict:
    full = any(failure.kind is FailureKind.NO_SPACE for failure in failed.values())
    first = next(iter(failed.values())).reason if failed else ""
    return Verdict(
        outcome=Outcome.PARTIAL if failed else Outcome.SHIPPED,
        trouble=(Trouble.DISK_FULL if full else Trouble.PATHS) if failed else None,
        message=f"{len(failed)} paths failed: {first}" if failed else "",
        failed=failed,
    )


def _has_failures(messages: Messages) -> bool:
    return bool(messages.failed or messages.temporary or messages.stopped_deletions)


def _nothing(trouble: Trouble, message: str) -> Verdict:
    return Verdict(outcome=Outcome.NOTHING, trouble=trouble, message=message, failed={})


def _trouble(exit_code: int | None, said: Iterable[str]) -> Trouble:
    if exit_code is None:
        return Trouble.SOURCE
    if exit_code < 0:
        return Trouble.KILLED
    text = "\n".join(said)
    for words, trouble in _TELLING:
        if words in text:
            return trouble
    if exit_code == 12 and "(0 bytes received so far)" in text:
        return _silent_end(text)
    return _TROUBLES.get(exit_code, Trouble.PROTOCOL)


def _silent_end(text: str) -> Trouble:
    """Why the other side never spoke: rsync gives 12 or the shell's code, whichever is first."""
    if _NOT_FOUND.search(text):
        return Trouble.RSYNC_MISSING
    return Trouble.SSH if _SSH_SAID.search(text) else Trouble.PROTOCOL


_BROKEN = "write error: Broken pipe (32)"


def _message(exit_code: int | None, messages: Messages) -> str:
    """The first thing it said, as that names the cause, without rsync's own source lines.

    That the sender cannot write any more is what comes of the cause.
    """
    heard = [line for line in messages.unattributed if not line.startswith("rsync error:")]
    broken = [line for line in heard if line.endswith(_BROKEN)]
    said = [line for line in heard if not line.endswith(_BROKEN)]
    named = [_named(path, failure) for path, failure in messages.failed.items()]
    named += list(messages.temporary.values())
    summary = [line for line in messages.unattributed if line.startswith("rsync error:")]
    first = next(iter([*said, *named, *broken, *summary]), "")
    if exit_code is not None and exit_code < 0:
        return f"rsync was killed by signal {-exit_code}"
    return f"rsync exited {exit_code}: {first}" if first else f"rsync exited {exit_code}"


def _named(path: bytes, failure: Failure) -> str:
    if path:
        return f"{printable(path)}: {failure.reason}"
    is_missing = "No such file" in failure.reason
    return f"the target folder: {failure.reason}" + ("; make its parent" if is_missing else "")


class _Listed:
    """What the list holds, asked only once something failed: which entries a path concerns."""

    def __init__(self, *, paths: Sequence[bytes], gone: Sequence[bytes], flat: bool) -> None:
        self._entries = (*paths, *gone)
        self._known = frozenset(self._entries)
        self._flat = flat
        self._folders: frozenset[bytes] = frozenset(
            folder for entry in self._known for folder in _ancestors(entry)
        )

    def concerned(self, path: bytes, failure: Failure) -> list[bytes]:
        """The paths to try again because `path` failed; none where it is a stranger."""
        if not path:
            return []
        if path in self._known:
            return [path, *self._below(path)] if failure.below and self._flat else [path]
        above = next((folder for folder in _ancestors(path) if folder in self._known), None)
        if above is not None:
            return [above] if self._flat else [path]
        if path in self._folders or b"" in self._known:
            return [path, *self._below(path)] if failure.below else [path]
        return []

    def may_be_temporary(self, path: bytes) -> bool:
        """Whether rsync may have made the name: what is no file gets one, too, and fails by it."""
        name = path.rpartition(b"/")[2]
        return path not in self._known and temporary_stem(name) is not None

    def behind(self, temporary: bytes) -> list[bytes]:
        """The entries that rsync's temporary file may have been made for."""
        folder, _, name = temporary.rpartition(b"/")
        if not self._flat:
            return self.concerned(folder, Failure(reason="", below=True)) if folder else []
        stem = temporary_stem(name)
        if stem is None:
            return []

        prefix = folder + b"/" if folder else b""
        exact = [prefix + name for name in (stem, b"." + stem) if prefix + name in self._known]
        return exact or [
            entry
            for entry in self._entries
            if entry.rpartition(b"/")[0] == folder
            and entry[len(prefix) :].lstrip(b".").startswith(stem)
        ]

    def _below(self, path: bytes) -> list[bytes]:
        return [entry for entry in self._entries if entry.startswith(path + b"/")]


def _attributed(
    messages: Messages, *, purpose: Purpose, paths: Sequence[bytes], gone: Sequence[bytes]
) -> tuple[dict[bytes, Failure], list[bytes]]:
    """(what has to be tried again, what failed but concerns nothing in the list)."""
    listed = _Listed(
        paths=paths, gone=gone, flat=purpose in FLAT or purpose is Purpose.DELETE_FILTERED
    )
    failed: dict[bytes, Failure] = {}
    strangers: list[bytes] = []
    named = [
        *((path, failure, False) for path, failure in messages.failed.items()),
        *((path, _plain_failure(why), True) for path, why in messages.temporary.items()),
    ]
    for path, failure, is_temporary in named:
        concerned = [] if is_temporary else listed.concerned(path, failure)
        if is_temporary or listed.may_be_temporary(path):
            concerned += listed.behind(path)
        for entry in concerned:
            failed.setdefault(entry, failure)
        if not concerned:
            strangers.append(path)
    if messages.stopped_deletions:
        for entry in gone:
            failed.setdefault(entry, _DELETIONS_STOPPED)
    return failed, strangers


_DELETIONS_STOPPED = Failure(reason="rsync stopped deleting", kind=FailureKind.STOPPED)


def _plain_failure(why: str) -> Failure:
    return Failure(reason=why, kind=failure_kind(why))


def _ancestors(path: bytes) -> Iterable[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        if path:
            yield path
