"""Which rsync and ssh options a settings file may add, and why others are refused.

An allow list: shardsync promises what a run means (what is compared, what is
deleted, what is printed), and an option that it does not know may change that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from shardsync.config.problems import Refusal
from shardsync.config.settings import TargetKind

ALLOWED_LETTERS = frozenset("zAXHSWycUEgopDs46BO")
"""Short options that may be clustered (`-zAX`); -B takes its number in the same word."""

ALLOWED = frozenset({
    "compress", "compress-choice", "zc", "compress-level", "zl", "skip-compress",
    "new-compress", "old-compress", "no-compress", "bwlimit", "chmod", "chown", "usermap",
    "groupmap", "numeric-ids", "acls", "xattrs", "hard-links", "rsync-path", "timeout",
    "contimeout", "sparse", "preallocate", "whole-file", "no-whole-file", "no-W", "fuzzy",
    "checksum", "checksum-choice", "cc", "checksum-seed", "atimes", "executability",
    "owner", "no-owner", "no-o", "group", "no-group", "no-g", "perms", "no-perms", "no-p",
    "devices", "no-devices", "specials", "no-specials", "no-D", "omit-dir-times",
    "no-omit-dir-times", "super", "no-super", "fake-super", "secluded-args", "protect-args",
    "no-secluded-args", "no-protect-args", "ipv4", "ipv6", "address", "sockopts", "block-size",
    "fsync", "max-alloc", "blocking-io", "no-blocking-io",
})  # fmt: skip

WITH_VALUE = frozenset({
    "compress-choice", "zc", "compress-level", "zl", "skip-compress", "bwlimit", "chmod", "chown",
    "usermap", "groupmap", "rsync-path", "timeout", "contimeout", "checksum-choice", "cc",
    "checksum-seed", "address", "sockopts", "block-size", "max-alloc", "remote-option",
})  # fmt: skip

_DELETION = "shardsync decides itself what is deleted, by name, after looking"
_USE_DELETE = "leave it out; see delete and max_delete"
_OUTPUT = "shardsync reads what rsync prints, and this changes it"
_LEAVE = "leave it out"
_FILTER = "shardsync must know the patterns too"
_USE_EXCLUDE = "write the pattern into exclude, include or only"
_LIST = "shardsync hands rsync its list of paths"
_SAFE_WRITE = "a reader on the Node could see half a file, or an old one spoiled"
_DRY = "nothing would be sent, and shardsync would believe it was"
_BATCH = "another run's recording gives wrong content on another basis"
_SKIP = "Changes would silently stay away from the Node"
_LINKS = "a Node holds the Tree as it is, symlinks included"
_RSH = "ssh is started by shardsync"
_USE_SSH = 'write ssh_options = ["-p", "2222"]'
_TEMP = "shardsync sweeps what a killed rsync leaves where the files go, and nowhere else"

REFUSED: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("del", "ignore-errors", "max-delete", "force", "force-delete", "prune-empty-dirs", "m"),
        (_DELETION, _USE_DELETE),
    ),
    **dict.fromkeys(
        (
            "files-from",
            "from0",
            "0",
            "r",
            "recursive",
            "a",
            "archive",
            "d",
            "dirs",
            "R",
            "relative",
            "no-relative",
            "no-R",
            "no-implied-dirs",
            "old-args",
            "one-file-system",
            "x",
        ),
        (_LIST, _LEAVE),
    ),
    **dict.fromkeys(
        ("remove-source-files", "remove-sent-files"), ("it deletes the Tree's own files", _LEAVE)
    ),
    **dict.fromkeys(("n", "dry-run", "list-only"), (_DRY, "try `shardsync replay --dry-run`")),
    **dict.fromkeys(
        (
            "inplace",
            "append",
            "append-verify",
            "write-devices",
            "partial",
            "partial-dir",
            "P",
            "delay-updates",
        ),
        (_SAFE_WRITE, _LEAVE),
    ),
    **dict.fromkeys(("write-batch", "only-write-batch", "read-batch"), (_BATCH, _LEAVE)),
    **dict.fromkeys(
        (
            "out-format",
            "log-format",
            "v",
            "verbose",
            "q",
            "quiet",
            "i",
            "itemize-changes",
            "stats",
            "progress",
            "info",
            "debug",
            "h",
            "human-readable",
            "8",
            "8-bit-output",
            "msgs2stderr",
            "stderr",
            "outbuf",
            "log-file",
            "log-file-format",
            "help",
            "version",
            "V",
            "motd",
        ),
        (_OUTPUT, _LEAVE),
    ),
    **dict.fromkeys(
        (
            "existing",
            "ignore-non-existing",
            "ignore-existing",
            "u",
            "update",
            "max-size",
            "min-size",
            "size-only",
            "I",
            "ignore-times",
            "t",
            "no-times",
            "no-t",
            "modify-window",
            "stop-after",
            "stop-at",
            "time-limit",
            "ignore-missing-args",
            "delete-missing-args",
        ),
        (_SKIP, "leave it out; exclude keeps paths away"),
    ),
    **dict.fromkeys(
        (
            "exclude",
            "exclude-from",
            "include",
            "include-from",
            "filter",
            "f",
            "F",
            "C",
            "cvs-exclude",
        ),
        (_FILTER, _USE_EXCLUDE),
    ),
    **dict.fromkeys(
        (
            "l",
            "links",
            "no-links",
            "no-l",
            "L",
            "copy-links",
            "k",
            "copy-dirlinks",
            "K",
            "keep-dirlinks",
            "copy-unsafe-links",
            "safe-links",
            "munge-links",
            "copy-devices",
        ),
        (_LINKS, _LEAVE),
    ),
    **dict.fromkeys(("e", "rsh"), (_RSH, _USE_SSH)),
    **dict.fromkeys(("T", "temp-dir"), (_TEMP, _LEAVE)),
    **dict.fromkeys(
        ("b", "backup", "backup-dir", "suffix", "link-dest", "copy-dest", "compare-dest"),
        ("it leaves or links files that shardsync does not know", _LEAVE),
    ),
    "iconv": ("names are bytes, the same on each Node", _LEAVE),
    "port": ("the port belongs to the target", 'write "rsync://host:PORT/module"'),
    "password-file": ("each Node has its own", 'write password_file = "/path" for the Node'),
}

_LONG = re.compile(r"--(?P<name>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>.*))?", re.DOTALL)
_SSH_REFUSED = {
    "-n": "rsync speaks through ssh's standard input",
    "-f": "ssh would go to the background and rsync lose it",
    "-N": "rsync must be run on the other side",
    "-t": "a terminal spoils rsync's protocol",
    "-tt": "a terminal spoils rsync's protocol",
    "-G": "ssh would print its settings instead of connecting",
    "-V": "ssh would print its version instead of connecting",
}


def check_rsync_options(options: Iterable[str], kind: TargetKind | None) -> list[Refusal]:
    """What is wrong with `options` for Nodes of this kind, or, None, of all kinds."""
    return [refusal for option in options if (refusal := _rsync_refusal(option, kind))]


def check_ssh_options(options: Iterable[str]) -> list[Refusal]:
    """What is wrong with `options` for ssh."""
    return [refusal for option in options if (refusal := _ssh_refusal(option))]


def _rsync_refusal(option: str, kind: TargetKind | None) -> Refusal | None:
    if _has_control(option):
        return Refusal(f"{option!r} holds a control character", "write it without")
    if option.startswith("-M") and len(option) > 2:
        option = "--remote-option=" + option[2:].removeprefix("=")
    if option.startswith("--"):
        return _long_refusal(option, kind)
    if option.startswith("-") and len(option) > 1:
        return _letters_refusal(option)
    return Refusal(
        f"{option} is no option, rsync would take it for a path",
        'write an option and its value as one text: "--bwlimit=5m"',
    )


def _long_refusal(option: str, kind: TargetKind | None) -> Refusal | None:
    found = _LONG.fullmatch(option)
    name, value = (found["name"], found["value"]) if found else (option[2:], None)
    if name == "remote-option" and value:
        return _rsync_refusal(value, kind)
    if name not in ALLOWED:
        return _unfit(f"--{name}", name)
    if name in WITH_VALUE and not value:
        return Refusal(f"--{name} lacks its value", f'write it in the same text: "--{name}=VALUE"')
    if name == "contimeout" and kind not in {None, TargetKind.DAEMON}:
        return Refusal("--contimeout is for rsync daemons alone", "set it on the daemons' Nodes")
    return None


def _letters_refusal(option: str) -> Refusal | None:
    if re.fullmatch(r"-B=?\d+", option):
        return None
    for letter in option[1:]:
        if letter not in ALLOWED_LETTERS or letter == "B":
            return _unfit(f"-{letter}", letter)
    return None


def _unfit(shown: str, name: str) -> Refusal:
    if name.startswith("delete"):
        return Refusal(f"{shown}: {_DELETION}", _USE_DELETE)
    if name in REFUSED:
        reason, remedy = REFUSED[name]
        return Refusal(f"{shown}: {reason}", remedy)
    return Refusal(
        f"{shown} is not among the options whose effect shardsync knows",
        "leave it out; docs/settings.md lists what may be added",
    )


def _ssh_refusal(option: str) -> Refusal | None:
    if not option or _has_control(option):
        return Refusal(f"{option!r} is empty or holds a control character", "write it without")
    if option in _SSH_REFUSED:
        return Refusal(f"{option}: {_SSH_REFUSED[option]}", "leave it out")
    return None


def _has_control(text: str) -> bool:
    return any(ord(char) < 0x20 or ord(char) == 0x7F for char in text)
