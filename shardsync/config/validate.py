"""What the settings say together, and what this machine says: refusals of combinations.

Looks at the file system (does the root exist, where do links lead), changes nothing.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from shardsync.config.problems import Findings, Place, Problem
from shardsync.config.resolve import Resolved
from shardsync.config.settings import NodeSettings, Settings, Target, TargetKind, TreeSettings
from shardsync.layout import UNIX_SOCKET_PATH_MAX, StateDirectory

TEMPORARY_SUFFIX_BYTES = 8
"""supervisord binds `SOCKET.PID` first, then renames it; a PID has up to seven digits."""

_APART = "they must lie apart: name another folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Who asks."""

    effective_uid: int


def validate(
    resolved: Resolved, findings: Findings, *, machine: Machine, root_must_exist: bool
) -> None:
    """Note every dangerous or impossible combination."""
    _Validator(resolved=resolved, findings=findings, machine=machine).run(
        root_must_exist=root_must_exist
    )


class _Validator:
    def __init__(self, *, resolved: Resolved, findings: Findings, machine: Machine) -> None:
        self._resolved = resolved
        self._settings = resolved.settings
        self._findings = findings
        self._machine = machine

    def run(self, *, root_must_exist: bool) -> None:
        self._names()
        self._trees(root_must_exist=root_must_exist)
        self._state_dir()
        for node in self._settings.nodes:
            self._node(node)
        self._targets()

    # -- names

    def _names(self) -> None:
        settings = self._settings
        self._twice("tree", [tree.name for tree in settings.trees])
        self._twice("node", [_called(settings, node.tree, node.name) for node in settings.nodes])
        self._twice("callback", [callback.name for callback in settings.callbacks])

    def _twice(self, word: str, names: list[str]) -> None:
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._findings.add(
                Place(
                    file=self._settings.source,
                    prefix=f"{word}.{name}",
                    node=name if word == "node" else None,
                ),
                "name",
                f"{names.count(name)} {word}s have this name",
                "give each its own",
                value=name,
            )

    # -- trees

    def _trees(self, *, root_must_exist: bool) -> None:
        for tree in self._settings.trees:
            place = self._resolved.tree_places[tree.name]
            if root_must_exist:
                self._root(tree, place)
        for one, two in combinations(self._settings.trees, 2):
            if real(one.root) == real(two.root):
                self._findings.add(
                    self._resolved.tree_places[two.name], "root",
                    f"is the root of the Tree {one.name} too",
                    "make it one Tree, and give its Nodes a subtree or exclude",
                    value=str(two.root),
                )  # fmt: skip

    def _root(self, tree: TreeSettings, place: Place) -> None:
        if os.path.isdir(tree.root):
            return
        message, remedy = "does not exist", "create it, mount it, or correct the path"
        if os.path.lexists(tree.root):
            message, remedy = "is no directory", "name the directory that holds the files"
        self._findings.add(place, "root", message, remedy, value=str(tree.root))

    # -- state directory

    def _state_dir(self) -> None:
        state = self._settings.state_dir
        place = self._resolved.state_place
        for tree in self._settings.trees:
            relation = _relation(real(state), real(tree.root))
            if relation:
                self._findings.add(
                    place, "dir", f"{relation} the Tree's root {tree.root}",
                    "the Journals must not be mirrored: name a folder elsewhere, on a local disk",
                    value=str(state),
                )  # fmt: skip
        socket = StateDirectory(path=state).supervisor_socket
        spare = UNIX_SOCKET_PATH_MAX - TEMPORARY_SUFFIX_BYTES - len(os.fsencode(socket))
        if spare < 0:
            self._findings.add(
                place, "dir", f"is {-spare} bytes too long for a unix socket in it (unix(7))",
                "name a folder with a shorter path", value=str(state),
            )  # fmt: skip
        if os.path.lexists(state) and not os.path.isdir(state):
            self._findings.add(
                place, "dir", "is no directory", "name a directory, or remove the file",
                value=str(state),
            )  # fmt: skip

    # -- nodes

    def _node(self, node: NodeSettings) -> None:
        place = self._resolved.node_places[node.key]
        if node.target.kind is TargetKind.LOCAL:
            self._local_target(node, place)
        if node.run_as:
            self._run_as(node, place)
        if node.password_file is not None:
            self._password_file(node.password_file, place)

    def _local_target(self, node: NodeSettings, place: Place) -> None:
        target = Path(node.target.path)
        if os.path.lexists(target) and not os.path.isdir(target):
            self._target(place, node, "is no directory", "name a directory")
        for tree in self._settings.trees:
            relation = _relation(real(target), real(tree.root))
            if relation:
                self._target(place, node, f"{relation} the Tree's root {tree.root}", _APART)
        relation = _relation(real(target), real(self._settings.state_dir))
        if relation:
            state = self._settings.state_dir
            self._target(place, node, f"{relation} the state directory {state}", _APART)

    def _target(self, place: Place, node: NodeSettings, message: str, remedy: str) -> None:
        self._findings.add(place, "target", message, remedy, value=str(node.target))

    def _run_as(self, node: NodeSettings, place: Place) -> None:
        try:
            user = pwd.getpwnam(node.run_as)
        except KeyError:
            self._findings.add(
                place, "run_as", "there is no such user here", "create it, or correct the name",
                value=node.run_as,
            )  # fmt: skip
            return
        if self._machine.effective_uid not in {0, user.pw_uid}:
            self._findings.add(
                place, "run_as", "only root can run rsync as another user",
                "start shardsync as root, or leave run_as out", value=node.run_as,
            )  # fmt: skip

    def _password_file(self, file: Path, place: Place) -> None:
        try:
            status = os.stat(file)
        except OSError as error:
            self._findings.add(
                place, "password_file", f"cannot be read: {error.strerror}",
                "create it with the password on its first line, mode 0600", value=str(file),
            )  # fmt: skip
            return
        if not stat.S_ISREG(status.st_mode):
            self._findings.add(
                place, "password_file", "is no file", "name a file of mode 0600", value=str(file)
            )
        elif stat.S_IMODE(status.st_mode) & 0o077:
            # rsync itself refuses what others may read.
            mode = stat.S_IMODE(status.st_mode)
            self._findings.add(
                place, "password_file", f"others may read it: its mode is {mode:04o}",
                f"chmod 0600 {file}", value=str(file),
            )  # fmt: skip
        elif self._machine.effective_uid == 0 and status.st_uid != 0:
            self._findings.add(
                place, "password_file", "is not root's, and rsync as root refuses it",
                f"chown root {file}", value=str(file),
            )  # fmt: skip

    # -- targets

    def _targets(self) -> None:
        for one, two in combinations(self._settings.nodes, 2):
            if _way(one) != _way(two):
                continue
            relation = _relation(_folder(two.target), _folder(one.target))
            if relation:
                self._target(
                    self._resolved.node_places[two.key], two,
                    f"{relation} the target of node {_called(self._settings, one.tree, one.name)}",
                    "two Nodes must not write to one place: name another folder",
                )  # fmt: skip


def warnings(settings: Settings) -> list[Problem]:
    """What is accepted, and yet worth a word to the operator."""
    return [
        *_without_nodes(settings),
        *_not_yet(settings),
        *_exposed(settings),
        *_missing_parents(settings),
        *_rule_like_patterns(settings),
    ]


def _warning(settings: Settings, key: str, message: str, remedy: str, value: object) -> Problem:
    return Problem(file=settings.source, key=key, message=message, remedy=remedy, value=value)


def _without_nodes(settings: Settings) -> Iterator[Problem]:
    for tree in settings.trees:
        if not settings.nodes_of(tree.name):
            yield _warning(
                settings, "node", f"the Tree {tree.name} has no Nodes: it is watched, not sent",
                'add [[node]] with name = "web1" and target = "web1:/var/www/html"', None,
            )  # fmt: skip


def _not_yet(settings: Settings) -> Iterator[Problem]:
    message, remedy = "is accepted, but not acted on by this version", "nothing needs to be done"
    for callback in settings.callbacks:
        yield _warning(settings, f"callback.{callback.name}", message, remedy, None)
    for node in settings.nodes:
        if node.order:
            key = f"node.{_called(settings, node.tree, node.name)}.order"
            yield _warning(settings, key, message, remedy, node.order)


def _exposed(settings: Settings) -> Iterator[Problem]:
    listen = settings.metrics_listen
    if listen and not (listen[0].startswith("127.") or listen[0] in {"::1", "localhost"}):
        yield _warning(
            settings, "metrics.listen", "other machines can read the metrics, without encryption",
            "let a firewall allow none but Prometheus, or listen on 127.0.0.1",
            f"{listen[0]}:{listen[1]}",
        )  # fmt: skip


def _missing_parents(settings: Settings) -> Iterator[Problem]:
    for node in settings.nodes:
        parent = os.path.dirname(node.target.path)
        if node.target.kind is TargetKind.LOCAL and not os.path.isdir(parent):
            yield _warning(
                settings, f"node.{_called(settings, node.tree, node.name)}.target",
                f"the Node cannot be made until {parent} exists", f"mkdir -p {parent}",
                str(node.target),
            )  # fmt: skip


def _rule_like_patterns(settings: Settings) -> Iterator[Problem]:
    for tree in settings.trees:
        for pattern in (*tree.exclude, *tree.include):
            if pattern.startswith(("+ ", "- ")):
                yield _warning(
                    settings, f"tree.{tree.name}", "is a pattern, not one of rsync's filter rules",
                    f'write "{pattern[2:]}" into include or exclude', pattern,
                )  # fmt: skip


def real(path: Path) -> str:
    """Where `path` leads, symlinks resolved; what does not exist yet is kept as it is."""
    return os.path.realpath(path)


def _relation(inner: str, outer: str) -> str:
    """How `inner` lies to `outer`: "is", "lies inside", "holds", or "" if they are apart."""
    if inner == outer:
        return "is"
    if inner.startswith(outer.rstrip("/") + "/"):
        return "lies inside"
    return "holds" if outer.startswith(inner.rstrip("/") + "/") else ""


def _way(node: NodeSettings) -> tuple[object, ...]:
    """How a Node is reached: equal for two Nodes if equal paths are the same place."""
    target = node.target
    # Another ssh port or jump host may be another machine behind one name.
    ssh = node.ssh_options if target.kind is TargetKind.SSH else ()
    port = (target.port or 873) if target.kind is TargetKind.DAEMON else 0
    return (target.kind, target.host.lower(), target.user, port, ssh)


def _folder(target: Target) -> str:
    return real(Path(target.path)) if target.kind is TargetKind.LOCAL else f"/{target.path}"


def _called(settings: Settings, tree: str, name: str) -> str:
    return name if len(settings.trees) == 1 else f"{tree}/{name}"
