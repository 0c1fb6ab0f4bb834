r"""What rsync says, read back into paths: out-format lines, errors and notes. Pure.

rsync prints unprintable bytes as `\#ooo` and escapes a backslash that would look like
one, so every line is one message and every name can be had back exactly. The
paths it prints are relative to our source descriptor, to the destination's path or
to the daemon's module; all come back relative to the Node's own root. A line that
cannot be read is never guessed at: it is kept as unattributed, and after exit 23 the
whole run then counts for nothing (ship.outcome).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace

from shardsync.config.settings import Target, TargetKind
from shardsync.ship.look import is_clean

_OCTAL = re.compile(rb"\\#([0-7]{3})")
_OUT = re.compile(
    rb"@(?P<operation>[a-z.]+)\|(?P<item>[^|]*)\|(?P<length>\d+)\|(?P<moved>\d+)\|(?P<name>.+)",
    re.DOTALL,
)
_WHO = rb"rsync: (?:\[[A-Za-z]+\] )?"
_IN = rb"(?: \(in (?P<module>[^()]*)\))?"

_FAILED = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        _WHO + rb'rename failed for "(?P<quoted>.*)"' + _IN + rb" \(from .*\): (?P<why>.*)",
        _WHO
        + rb'(?:symlink|link) "(?P<quoted>.*?)"'
        + _IN
        + rb" (?:->|=>) .* failed: (?P<why>.*)",
        _WHO + rb"delete_file: [a-z]+\((?P<plain>.*)\) failed: (?P<why>.*)",
        # lsetxattr("FILE","NAME"); the name of an attribute has no quotes.
        _WHO
        + rb'(?:[a-z_]+: )?[a-z]+xattr\("(?P<quoted>.*)"'
        + _IN
        + rb',"[^"]*"[^"]*\)(?: failed)?: (?P<why>.*)',
        _WHO + rb"set_acl: [a-z_]+\((?P<plain>.*), ACL_TYPE_[A-Z]+\): (?P<why>.*)",
        _WHO + rb'(?P<verb>[A-Za-z_]+)\("(?P<quoted>.*)"' + _IN + rb"\)(?: failed)?: (?P<why>.*)",
        _WHO
        + rb'(?:[a-z_]+: )?(?P<verb>[a-z_#0-9]+ (?:failed to open )?)"(?P<quoted>.*)"'
        + _IN
        + rb"(?: failed)?: (?P<why>.*)",
        _WHO
        + rb'(?:[a-z_]+: )?(?:[a-z_]+ )?failed (?:to [a-z ]+?|on|for) "(?P<quoted>.*)"'
        + _IN
        + rb": (?P<why>.*)",
        _WHO + rb'read errors mapping "(?P<quoted>.*)"' + _IN + rb": (?P<why>.*)",
        rb"(?P<why>could not make way for [a-z -]+): (?P<plain>.*)",
        rb"(?P<why>cannot delete (?:non-empty directory|mount point)): (?P<plain>.*)",
        rb'ERROR: (?P<why>daemon refused to receive [a-z]+) "(?P<plain>.*)"',
        rb"ERROR: (?P<plain>.*) (?P<why>failed verification) -- update discarded.*",
        rb"(?P<why>temporary filename too long|skipping overly long name): (?P<plain>.*)",
    )
)
_RENAMED = re.compile(
    _WHO + rb'(?:rename|copy) "(?P<pair>.*)"(?: failed)?: (?P<why>[^"]*)', re.DOTALL
)
"""rename "DIR/.x.AbCdEf" -> "d/x", in quotes and with the module for what is no file; which is
which of names that hold quotes, their likeness tells."""
_TO = re.compile(rb'"' + _IN.replace(b"?P<module>", b"") + rb' -> "')
_OPENING_ALONE = re.compile(_WHO + rb'failed to open ".*"' + _IN + rb", continuing: .*", re.DOTALL)
"""A basis that the receiver may not read: the file is sent whole."""
_QUOTED = re.compile(rb'"(?P<quoted>.*)"' + _IN, re.DOTALL)
_VANISHED = re.compile(rb'(?:IO error: )?file has vanished: "(?P<quoted>.*)"' + _IN, re.DOTALL)
_ALL_BELOW = (b"opendir", b"mkdir", b"change_dir", b"readdir")
_SKIPPING_BELOW = b"*** Skipping any contents from this failed directory ***"
_STOPPED = (b"Deletions stopped due to --max-delete", b"IO error encountered -- skipping file del")
_HARMLESS = (
    b"rsync error: some files",
    b"rsync error: the --max-delete limit",
    b"rsync warning: some files vanished",
    b"WARNING: parent dir is absent in the file list",
    b"skipping non-regular file ",
    # ssh could not share a connection and made one of its own.
    b"mux_client_",
    # 3.5.0 says so beside the failure, which names the path.
    b"refusing to follow a symlink owned by an untrusted user",
    b"Control socket connect(",
)
_MADE_TARGET = re.compile(rb"created (?:directory|\d+ director(?:y|ies) for) ")
_TEMPORARY = re.compile(rb"\.(?P<stem>.*?)\.?[A-Za-z0-9]{6}", re.DOTALL)
_STATISTICS = re.compile(
    rb"(?:Number of |Total |Literal data|Matched data|File list |sent [\d,]+ bytes"
    rb"|total size is|$)"
)
_FIGURES = (
    (re.compile(rb"Total bytes sent: ([\d,.]+)"), "bytes_sent"),
    (re.compile(rb"Number of files: ([\d,.]+)"), "files"),
    (re.compile(rb"Total file size: ([\d,.]+)"), "file_bytes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutLine:
    """One path of rsync's own report, made before the effect: figures, never proof.

    `operation`: send, recv or `del.`. `item`: the itemized difference (rsync(1)).
    `is_directory`: its name was printed with a slash at the end.
    """

    operation: str
    item: str
    length: int
    moved_bytes: int
    path: bytes
    is_directory: bool


class FailureKind(enum.Enum):
    """What kind of obstacle a path met, as far as it matters for what to do next."""

    NOT_EMPTY = "not_empty"
    """A directory that is gone holds something on the Node that may not be deleted (excludes)."""
    NO_SPACE = "no_space"
    STOPPED = "stopped"
    """Not even tried: rsync stopped deleting."""
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a path is not shipped. `below`: nothing below it is either."""

    reason: str
    kind: FailureKind = FailureKind.OTHER
    below: bool = False


@dataclass(slots=True)
class Messages:
    """All that a run said beside its report; bounded by `ship.rsync`, which feeds it."""

    failed: dict[bytes, Failure] = field(default_factory=dict)
    vanished: list[bytes] = field(default_factory=list)
    unattributed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    temporary: dict[bytes, str] = field(default_factory=dict)
    """Failures that name a temporary file, still to be traced to its entry."""
    stopped_deletions: bool = False
    made_target: bool = False
    """The target's folder was not there, and was made (in a dry run: would have been)."""
    bytes_sent: int = 0
    files: int = 0
    file_bytes: int = 0


class MessageReader:
    """Reads the lines of one run. `source_fd`: the descriptor that rsync was given as source."""

    def __init__(self, *, source_fd: int, target: Target, max_kept: int = 20_000) -> None:
        self._source = b"/proc/self/fd/%d" % source_fd
        self._target = target
        self._max_kept = max_kept
        self._last_failed: bytes | None = None
        self.messages = Messages()

    def read(self, line: bytes) -> None:
        """Take in one line of stderr, or one of stdout that is no report of a path."""
        line = line.rstrip(b"\r")
        if _STATISTICS.match(line):
            self._read_statistics(line)
        elif line == _SKIPPING_BELOW and self._last_failed is not None:
            self._mark_below(self._last_failed)
        elif line.startswith(_STOPPED):
            self.messages.stopped_deletions = True
            self._note(self.messages.notes, line)
        elif _MADE_TARGET.match(line):
            self.messages.made_target = True
            self._note(self.messages.notes, line)
        elif line.startswith(_HARMLESS) or _OPENING_ALONE.fullmatch(line):
            self._note(self.messages.notes, line)
        elif not self._read_vanished(line) and not self._read_failure(line):
            self._note(self.messages.unattributed, line)

    def _read_statistics(self, line: bytes) -> None:
        for pattern, name in _FIGURES:
            found = pattern.match(line)
            if found is not None:
                setattr(self.messages, name, int(re.sub(rb"[,.]", b"", found[1]) or b"0"))

    def _read_vanished(self, line: bytes) -> bool:
        found = _VANISHED.fullmatch(line)
        path = None if found is None else self._located(found["quoted"], found["module"])
        if path is None or len(self.messages.vanished) >= self._max_kept:
            return False
        self.messages.vanished.append(path)
        return True

    def _read_failure(self, line: bytes) -> bool:
        renamed = _RENAMED.fullmatch(line)
        if renamed is not None:
            return self._read_renamed(renamed["pair"], renamed["why"])
        if line.count(b'" -> "') > 1:
            # A symlink, of which nobody can tell where its name ends and its target begins.
            return False
        for pattern in _FAILED:
            found = pattern.fullmatch(line)
            if found is not None:
                break
        else:
            return False
        groups = found.groupdict()
        plain = groups.get("plain")
        if plain is not None:
            path: bytes | None = unescaped(plain).removesuffix(b"/")
            path = path if not path or is_clean(path) else None
        else:
            path = self._located(groups["quoted"], groups.get("module"))
        if path is None or len(self.messages.failed) >= self._max_kept:
            return False
        verb = (groups.get("verb") or b"").strip()
        below = verb.startswith(_ALL_BELOW)
        if verb == b"mkstemp":
            self.messages.temporary.setdefault(path, _text(found["why"]))
            return True
        why = _text(found["why"])
        self._fail(path, Failure(reason=why, kind=failure_kind(why), below=below))
        return True

    def _read_renamed(self, pair: bytes, why: bytes) -> bool:
        """The name wanted tells more than the temporary one, which it is made from."""
        if len(self.messages.failed) >= self._max_kept:
            return False
        for arrow in _TO.finditer(pair):
            stem = temporary_stem(unescaped(pair[: arrow.start()]).rpartition(b"/")[2])
            path = self._wanted(pair[arrow.end() :])
            if stem is None or path is None or not _is_made_for(stem, path.rpartition(b"/")[2]):
                continue
            self._fail(path, Failure(reason=_text(why), kind=failure_kind(_text(why))))
            return True
        return False

    def _wanted(self, printed: bytes) -> bytes | None:
        """A name relative to the destination, or as other messages have it, in quotes."""
        quoted = _QUOTED.fullmatch(printed)
        if quoted is not None:
            return self._located(quoted["quoted"], quoted["module"])
        path = unescaped(printed)
        return path if is_clean(path) else None

    def _fail(self, path: bytes, failure: Failure) -> None:
        self._last_failed = path
        # The first message about a path names the cause, later ones its consequences.
        self.messages.failed.setdefault(path, failure)

    def _mark_below(self, path: bytes) -> None:
        failure = self.messages.failed[path]
        self.messages.failed[path] = replace(failure, below=True)

    def _note(self, notes: list[str], line: bytes) -> None:
        if len(notes) < 50:
            notes.append(_text(line)[:500])

    def _located(self, printed: bytes, module: bytes | None) -> bytes | None:
        """The path relative to the Node's root, None where it lies elsewhere."""
        path = self._below_root(unescaped(printed), module)
        return path if not path or is_clean(path) else None

    def _below_root(self, path: bytes, module: bytes | None) -> bytes | None:
        for root in self._roots(in_module=module is not None):
            if path in (root, root + b"/"):
                return b""
            if path.startswith(root + b"/"):
                return path[len(root) + 1 :].removesuffix(b"/")
        if not path.startswith(b"/"):
            return path.removesuffix(b"/")
        return self._after_relative_target(path)

    def _roots(self, *, in_module: bool) -> tuple[bytes, ...]:
        target = self._target.path.rstrip("/").encode("utf-8", "surrogateescape")
        if self._target.kind is TargetKind.DAEMON:
            folder = target.partition(b"/")[2]
            in_it = (b"/" + folder).rstrip(b"/")
            return (self._source, in_it) if in_module else (self._source,)
        return (self._source, target) if target.startswith(b"/") else (self._source,)

    def _after_relative_target(self, path: bytes) -> bytes | None:
        """For `host:site`, whose messages begin with a home directory that we do not know."""
        target = self._target.path.strip("/").removeprefix("~/").encode("utf-8", "surrogateescape")
        if self._target.kind is not TargetKind.SSH or self._target.path.startswith("/"):
            return None
        before, found, after = path.partition(b"/" + target + b"/")
        return after.removesuffix(b"/") if found and before and target else None


def out_line(line: bytes) -> OutLine | None:
    """The report of one path in our out-format, None where `line` is something else."""
    found = _OUT.fullmatch(line)
    if found is None:
        return None
    name = unescaped(found["name"])
    # `./` is the root itself; a name's own `./` cannot occur.
    path = b"" if name in (b".", b"./") else name.removesuffix(b"/")
    if path and not is_clean(path):
        # A Node names what it deletes, and may name anything: that is no path of the Tree.
        return None
    return OutLine(
        operation=found["operation"].decode("ascii"),
        item=found["item"].decode("ascii", "replace"),
        length=int(found["length"]),
        moved_bytes=int(found["moved"]),
        path=path,
        is_directory=name.endswith(b"/"),
    )


def unescaped(printed: bytes) -> bytes:
    r"""The name that rsync printed: `\#ooo` back to the byte it stands for."""
    if b"\\#" not in printed:
        return printed
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), printed)


def temporary_stem(name: bytes) -> bytes | None:
    """What rsync's temporary file `name` is made from, without its first dot; None for others.

    rsync makes `.NAME.XXXXXX`, one dot for a NAME that has its own, and cuts NAME
    where it would be too long.
    """
    found = _TEMPORARY.fullmatch(name)
    return None if found is None else found["stem"]


def _is_made_for(stem: bytes, name: bytes) -> bool:
    return name.lstrip(b".").startswith(stem.lstrip(b"."))


def failure_kind(why: str) -> FailureKind:
    """The kind that rsync's own words stand for."""
    if "non-empty directory" in why:
        return FailureKind.NOT_EMPTY
    if "No space left" in why or "quota exceeded" in why:
        return FailureKind.NO_SPACE
    return FailureKind.OTHER


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
