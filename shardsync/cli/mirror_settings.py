"""The settings that `shardsync mirror SRC TARGET...` stands for, as the text of a file."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from shardsync.config.validate import TEMPORARY_SUFFIX_BYTES
from shardsync.errors import UsageError
from shardsync.escape import printable, printable_text
from shardsync.layout import UNIX_SOCKET_PATH_MAX, StateDirectory

_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_DAEMON = re.compile(r"rsync://(?:[^@/]*@)?(?P<host>\[[^\]]*\]|[^:/]+)")
_NAME_LENGTH = 48


def mirror_state(bases: Iterable[Path], source: Path) -> Path:
    """The state directory of one SRC: the same each time, whatever the targets.

    In the first of `bases` whose path leaves room for supervisord's socket, unix(7); in the
    last of them if none does, and the settings will be refused with that reason.
    """
    digest = hashlib.sha256(os.fsencode(source)).hexdigest()[:12]
    path = Path()
    for base in bases:
        path = base / f"mirror-{digest}"
        socket = os.fsencode(StateDirectory(path=path).supervisor_socket)
        if len(socket) + TEMPORARY_SUFFIX_BYTES <= UNIX_SOCKET_PATH_MAX:
            break
    return path


def absolute_target(target: str, cwd: Path) -> str:
    """`target` with a relative local folder made absolute: unlike a file, a command has a cwd.

    Raises UsageError for "": an unset variable of a script never means the folder it runs in.
    """
    if not target:
        raise UsageError("a TARGET is empty", hint="name a folder, host:/path or rsync:// address")
    is_local = ":" not in target.split("/", 1)[0]
    if not is_local or target.startswith(("/", "-")):
        return target
    return os.path.normpath(cwd / target)


def node_names(targets: Sequence[str]) -> list[str]:
    """A short name for each target: the host, or the folder's name; numbered where taken."""
    names: list[str] = []
    for target in targets:
        plain = _NO_NAME.sub("-", _short(target)).strip("-.")[:_NAME_LENGTH] or "node"
        name, number = plain, 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return names


def settings_text(
    source: Path,
    state: Path,
    targets: Sequence[str],
    *,
    excludes: Sequence[str] = (),
    password_file: Path | None = None,
) -> str:
    """The TOML text: one Tree, a Node per target, no metrics port. Raises UsageError."""
    lines = [
        "# Made by `shardsync mirror` at each start: changes to this file are lost.",
        "[tree]",
        f"root = {_toml(str(source))}",
        f"exclude = [{', '.join(_toml(pattern) for pattern in excludes)}]",
        "[state]",
        f"dir = {_toml(str(state))}",
        "[metrics]",
        'listen = ""',
    ]
    for name, target in zip(node_names(targets), targets, strict=True):
        lines += ["[[node]]", f"name = {_toml(name)}", f"target = {_toml(target)}"]
        if password_file is not None and target.startswith("rsync://"):
            lines.append(f"password_file = {_toml(str(password_file))}")
    return "\n".join(lines) + "\n"


def _short(target: str) -> str:
    daemon = _DAEMON.match(target)
    if daemon is not None:
        return daemon["host"]
    head = target.split("/", 1)[0]
    if ":" in head:
        return head.rsplit(":", 1)[0].rsplit("@", 1)[-1]
    return target.rstrip("/").rsplit("/", 1)[-1]


def _toml(text: str) -> str:
    if not text.isprintable():
        shown = printable(os.fsencode(text)) if not text.isascii() else printable_text(text)
        raise UsageError(
            f"{shown}: cannot be written into a settings file",
            hint="use a path of printable UTF-8 characters",
        )
    return json.dumps(text, ensure_ascii=False)
