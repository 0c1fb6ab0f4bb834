"""What every command is handed: the settings, the state directory, and how to name things in them.

Read lazily, so that commands which must work with a wrong settings file never
ask for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from shardsync.clock import Clock
from shardsync.config.load import find_state_dir, load_settings
from shardsync.config.settings import Settings
from shardsync.config.source import find_file
from shardsync.control.processes import state_of_settings
from shardsync.errors import SettingsError, StateUnusable, UsageError
from shardsync.escape import printable, printable_text
from shardsync.journal.plan import Plan, read_plan
from shardsync.journal.records import NodeKey
from shardsync.journal.state_reader import StateReader
from shardsync.layout import StateDirectory
from shardsync.observe.liveness import Liveness
from shardsync.observe.reader import StatusReader, observed_roots


class Invocation:
    """One run of the `shardsync` command."""

    def __init__(self, *, config: Path | None, env: Mapping[str, str], clock: Clock) -> None:
        self.config = config
        self.env = env
        self.clock = clock

    @cached_property
    def settings(self) -> Settings:
        """The settings, checked. Raises SettingsError with every problem."""
        return load_settings(self.config, self.env, Path.cwd())

    @cached_property
    def lenient_settings(self) -> Settings | None:
        """The settings, or None where they are wrong: for commands that do without."""
        with contextlib.suppress(SettingsError):
            return self.settings
        return None

    @cached_property
    def state(self) -> StateDirectory:
        """The state directory, found however wrong the settings are.

        Where they do not name one that was ever used, it is that of the daemons that were
        started with them.
        """
        settings = self.lenient_settings
        if settings is not None:
            return StateDirectory(path=settings.state_dir)
        named = StateDirectory(path=find_state_dir(self.config, self.env, Path.cwd()))
        file = find_file(self.config, self.env, Path.cwd())
        if file is None or named.plan.exists():
            return named
        running = state_of_settings(Path(os.path.abspath(file)))
        return named if running is None else StateDirectory(path=running)

    @property
    def liveness(self) -> Liveness:
        """Which processes live."""
        return Liveness(state=self.state)

    def plan(self) -> Plan:
        """The Plan as it is now; an empty one where none was made. Raises StateUnusable."""
        return read_plan(self.state.plan) or Plan()

    def status_reader(self) -> StatusReader:
        """Reads how everything is doing."""
        return StatusReader(
            state=self.state,
            settings=self.lenient_settings,
            clock=self.clock,
            liveness=self.liveness,
        )

    def known_trees(self) -> tuple[str, ...]:
        """The Trees of the settings, or of the Plan where the settings are wrong."""
        if self.lenient_settings is not None:
            return tuple(tree.name for tree in self.lenient_settings.trees)
        return tuple(dict.fromkeys(shard.tree for shard in self.plan().shards))

    def trees(self, name: str | None) -> tuple[str, ...]:
        """The Tree named, or all of them. Raises UsageError for an unknown one.

        Raises SettingsError where wrong settings, and no Plan, leave none to know of.
        """
        known = self.known_trees()
        if not known:
            _ = self.settings
        if name is None:
            return known
        if name not in known:
            raise UsageError(f"no tree {_shown(name)}", hint=f"known: {_listed(known)}")
        return (name,)

    def one_tree(self, name: str | None) -> str:
        """The Tree named, or the only one. Raises UsageError where that does not decide."""
        trees = self.trees(name)
        if len(trees) == 1:
            return trees[0]
        if not trees:
            raise UsageError("no tree is known", hint="write one into the settings file")
        raise UsageError("which tree?", hint=f"say --tree with one of: {_listed(trees)}")

    def known_nodes(self) -> tuple[NodeKey, ...]:
        """The Nodes of the settings, or of state.db where the settings are wrong."""
        if self.lenient_settings is not None:
            return tuple(node.key for node in self.lenient_settings.nodes)
        self.require_state()
        if not self.state.state_db.exists():
            return ()
        with contextlib.closing(StateReader(self.state.state_db)) as reader:
            return tuple(reader.nodes())

    def nodes(self, tree: str | None, names: Sequence[str]) -> tuple[NodeKey, ...]:
        """The Nodes named, or all (of one Tree). Raises UsageError for unknown ones."""
        trees = self.trees(tree)
        known = [key for key in self.known_nodes() if key[0] in trees]
        unknown = [name for name in names if name not in {key[1] for key in known}]
        if unknown:
            raise UsageError(
                f"no node {_listed(unknown)}",
                hint=f"known: {_listed(name for _, name in known)}",
            )
        return tuple(key for key in known if not names or key[1] in names)

    def one_node(self, tree: str | None, name: str) -> NodeKey:
        """The Node of that name. Raises UsageError: unknown, or several Trees have one."""
        keys = self.nodes(tree, (name,))
        if len(keys) > 1:
            trees = _listed(key[0] for key in keys)
            raise UsageError(
                f"node {_shown(name)}: which tree?", hint=f"say --tree with one of: {trees}"
            )
        return keys[0]

    def called(self, keys: Iterable[NodeKey]) -> str:
        """These Nodes for people: with their Tree where there are several Trees."""
        several = len(self.known_trees()) > 1
        return _listed(f"{tree}/{name}" if several else name for tree, name in keys)

    def root(self, tree: str) -> Path | None:
        """A Tree's root: of the settings, else as last observed; None where neither tells."""
        if self.lenient_settings is not None:
            return self.lenient_settings.tree(tree).root
        root = observed_roots(self.state).get(tree)
        return None if root is None else Path(root)

    def tree_path(self, argument: str, tree: str | None) -> tuple[str, bytes]:
        """(Tree, path relative to its root) of a PATH argument. Raises UsageError.

        An absolute path tells its Tree, if it lies below a root; a relative one
        is relative to the root, whatever the current directory.
        """
        path = os.fsencode(argument)
        if os.path.isabs(path):
            return self._below_root(os.path.normpath(path), tree)
        relative = os.path.normpath(path) if path else b"."
        if relative == b".." or relative.startswith(b"../"):
            raise UsageError(f"path {printable(path)} leaves the tree")
        return self.one_tree(tree), b"" if relative == b"." else relative

    def require_state(self) -> None:
        """Raise StateUnusable where the state directory is another user's; missing is no trouble.

        Without a look at its locks, all that runs there would seem to be down.
        """
        try:
            os.listdir(self.state.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateUnusable(
                f"state directory {self.state.path}: {error.strerror}",
                hint="run this as the user that the daemons run as",
            ) from error

    def _below_root(self, path: bytes, tree: str | None) -> tuple[str, bytes]:
        roots = {name: self.root(name) for name in self.trees(tree)}
        for name, root in roots.items():
            if root is None:
                continue
            top = os.fsencode(root)
            if path == top:
                return name, b""
            if path.startswith(top.rstrip(b"/") + b"/"):
                return name, path[len(top.rstrip(b"/")) + 1 :]
        shown = ", ".join(str(root) for root in roots.values() if root)
        raise UsageError(
            f"path {printable(path)} is not below a root",
            hint=f"roots: {printable_text(shown) or 'unknown, the settings cannot be read'}",
        )


def _shown(name: str) -> str:
    return printable_text(name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(_shown(name) for name in names) or "none"
