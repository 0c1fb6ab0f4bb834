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

from shardsync.config.nodes import NOWHERE as NO_TARGET
from shardsync.config.patterns import node_filter
from shardsync.config.problems import Findings, Place
from shardsync.config.resolve import NOWHERE as NO_ROOT
from shardsync.config.resolve import Resolved
from shardsync.config.settings import NodeSettings, Target, TargetKind, TreeSettings
from shardsync.config.wildmatch import Malformed
from shardsync.layout import UNIX_SOCKET_PATH_MAX, StateDirectory
from shardsync.private import user_name

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
        if root_must_exist:
            self._roots()
        self._same_roots()
        self._state_dir()
        for node, place in self._nodes():
            self._node(node, place)
        self._targets()

    def _trees(self) -> Iterator[tuple[TreeSettings, Place]]:
        """Every Tree whose root could be read."""
        pairs = zip(self._settings.trees, self._resolved.tree_places, strict=True)
        return ((tree, place) for tree, place in pairs if tree.root != NO_ROOT)

    def _nodes(self) -> Iterator[tuple[NodeSettings, Place]]:
        """Every Node whose target could be read."""
        pairs = zip(self._settings.nodes, self._resolved.node_places, strict=True)
        return ((node, place) for node, place in pairs if node.target != NO_TARGET)

    # -- names

    def _names(self) -> None:
        settings = self._settings
        self._twice("tree", [tree.name for tree in settings.trees])
        self._twice("node", [settings.called(node) for node in settings.nodes])
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

    def _roots(self) -> None:
        for tree, place in self._trees():
            if os.path.isdir(tree.root):
                continue
            message, remedy = "does not exist", "create it, mount it, or correct the path"
            if os.path.lexists(tree.root):
                message, remedy = "is no directory", "name the directory that holds the files"
            self._findings.add(place, "root", message, remedy, value=str(tree.root))

    def _same_roots(self) -> None:
        for (one, _), (two, place) in combinations(self._trees(), 2):
            if _real(one.root) == _real(two.root):
                self._findings.add(
                    place, "root", f"is the root of the Tree {one.name} too",
                    "make it one Tree, and give its Nodes a subtree or exclude",
                    value=str(two.root),
                )  # fmt: skip

    # -- state directory

    def _state_dir(self) -> None:
        state = self._settings.state_dir
        place = self._resolved.state_place
        for tree, _ in self._trees():
            relation = _relation(_real(state), _real(tree.root))
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

    def _node(self, node: NodeSettings, place: Place) -> None:
        if node.target.kind is TargetKind.LOCAL:
            self._local_target(node, place)
        if node.run_as:
            self._run_as(node, place)
        if node.only and node.include:
            self._only_and_include(node, place)
        if node.password_file is not None:
            self._password_file(node.password_file, self._runner(node), place)

    def _local_target(self, node: NodeSettings, place: Place) -> None:
        target = Path(node.target.path)
        if os.path.lexists(target) and not os.path.isdir(target):
            self._target(place, node, "is no directory", "name a directory")
        for tree, _ in self._trees():
            relation = _relation(_real(target), _real(tree.root))
            if relation:
                self._target(place, node, f"{relation} the Tree's root {tree.root}", _APART)
        relation = _relation(_real(target), _real(self._settings.state_dir))
        if relation:
            state = self._settings.state_dir
            self._target(place, node, f"{relation} the state directory {state}", _APART)

    def _target(self, place: Place, node: NodeSettings, message: str, remedy: str) -> None:
        self._findings.add(place, "target", message, remedy, value=str(node.target))

    def _only_and_include(self, node: NodeSettings, place: Place) -> None:
        try:
            exact = node_filter(node).is_exact
        except Malformed:  # noted already
            return
        if not exact:
            self._findings.add(
                place, "only", "rsync cannot join it with the Tree's include",
                "use exclude for the Node instead, or leave include empty", value=list(node.only),
            )  # fmt: skip

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

    def _password_file(self, file: Path, runner: int, place: Place) -> None:
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
        elif status.st_uid != runner:
            # rsync as root refuses another's file; as a user it cannot read it.
            self._findings.add(
                place, "password_file",
                f"belongs to user {user_name(status.st_uid)}, and rsync runs as "
                f"{user_name(runner)}",
                f"chown {user_name(runner)} {file}", value=str(file),
            )  # fmt: skip

    def _runner(self, node: NodeSettings) -> int:
        """The user id that rsync runs under."""
        try:
            return pwd.getpwnam(node.run_as).pw_uid if node.run_as else self._machine.effective_uid
        except KeyError:  # noted already
            return self._machine.effective_uid

    # -- targets

    def _targets(self) -> None:
        for (one, _), (two, place) in combinations(self._nodes(), 2):
            if _way(one) != _way(two):
                continue
            relation = _relation(_folder(two.target), _folder(one.target))
            if relation:
                self._target(
                    place, two, f"{relation} the target of node {self._settings.called(one)}",
                    "two Nodes must not write to one place: name another folder",
                )  # fmt: skip


def _real(path: Path) -> str:
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
    return _real(Path(target.path)) if target.kind is TargetKind.LOCAL else f"/{target.path}"
