"""From decoded tables to values: durations in seconds, sizes in bytes, outer lists added in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shardsync.config.options import check_rsync_options, check_ssh_options
from shardsync.config.patterns import check_pattern
from shardsync.config.problems import Findings, Place, Refusal
from shardsync.config.schema import CallbackTable, NodeTable, TreeTable
from shardsync.config.settings import (
    DEFAULT_EXCLUDES,
    CallbackAfter,
    CallbackSettings,
    DeleteLimit,
    NodeSettings,
    Settings,
    SyncSettings,
    Target,
    TargetKind,
    TreeSettings,
)
from shardsync.config.source import Decoded, Tables
from shardsync.config.target import hide_password, parse_target
from shardsync.config.values import (
    bandwidth,
    bounded,
    delete_limit,
    duration,
    folder_below,
    full_path,
    listen_address,
    name,
    size,
)

V = TypeVar("V")
_YEAR = 366 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The Settings, and where each part of them stands in the files."""

    settings: Settings
    tree_places: dict[str, Place]
    node_places: dict[tuple[str, str], Place]
    state_place: Place


class Resolver:
    """Reads one value after the other; what cannot stand is noted and its default taken."""

    def __init__(self, *, tables: Tables, findings: Findings, default_state_dir: Path) -> None:
        self._tables = tables
        self._findings = findings
        self._default_state_dir = default_state_dir

    def resolve(self) -> Resolved:
        """Everything that can be said of each value alone; `validate` looks at them together."""
        trees = [self._tree(decoded) for decoded in self._tables.trees]
        self._refuse_missing_trees()
        nodes = [self._node(decoded, trees) for decoded in self._tables.nodes]
        good_nodes = [(node, place) for node, place in nodes if node is not None]
        state, shards = self._tables.state, self._tables.shards
        return Resolved(
            settings=Settings(
                source=self._tables.source,
                state_dir=self._state_dir(),
                trees=tuple(tree for tree in trees if tree.root != Path()),
                nodes=tuple(node for node, _ in good_nodes),
                callbacks=tuple(
                    callback
                    for decoded in self._tables.callbacks
                    if (callback := self._callback(decoded, trees))
                ),
                retention_seconds=self._read(
                    state, "retention", lambda text: duration(text, low=1, high=10 * _YEAR), 0.0
                ),
                journal_max_bytes=self._read(
                    state, "journal_max", lambda text: size(text, low=1024**2), 0
                ),
                shard_count=self._read(shards, "count", _shard_count, None),
                sync=self._sync(),
                metrics_listen=self._read(self._tables.metrics, "listen", listen_address, None),
            ),
            tree_places={tree.name: decoded.place
                         for tree, decoded in zip(trees, self._tables.trees, strict=True)},
            node_places={node.key: place for node, place in good_nodes},
            state_place=state.place,
        )  # fmt: skip

    def _read(self, decoded: Decoded[Any], key: str, parse: Callable[[Any], V], default: V) -> V:
        value = getattr(decoded.table, key)
        try:
            return parse(value)
        except Refusal as refusal:
            self._findings.refuse(decoded.place, key, refusal, value=value)
            return default

    def _state_dir(self) -> Path:
        if self._tables.state.table.dir is None:
            return self._default_state_dir
        return self._read(self._tables.state, "dir", full_path, self._default_state_dir)

    # -- trees

    def _refuse_missing_trees(self) -> None:
        if not self._tables.trees:
            self._findings.add(
                Place(file=self._tables.source), "tree", "there is no [tree]",
                'write [tree] and below it: root = "/var/www/html"',
            )  # fmt: skip

    def _tree(self, decoded: Decoded[TreeTable]) -> TreeSettings:
        table = decoded.table
        if len(self._tables.trees) > 1 and "name" not in decoded.given:
            self._findings.add(
                decoded.place, "name", "each of several Trees needs a name", 'write name = "docs"'
            )
        root = Path()
        if table.root is None:
            self._findings.add(decoded.place, "root", "is missing", 'write root = "/var/www/html"')
        else:
            root = self._read(decoded, "root", full_path, root)
        self._check_patterns(decoded, "exclude", "include")
        defaults = DEFAULT_EXCLUDES if table.default_excludes else ()
        return TreeSettings(
            name=self._read(decoded, "name", name, table.name),
            root=root,
            exclude=(*table.exclude, *defaults),
            include=tuple(table.include),
            marker=self._read(decoded, "marker", folder_below, ""),
            max_open_seconds=self._read(
                decoded, "max_open", lambda text: duration(text, low=0.1, high=86400), 10.0
            ),
            default_excludes=table.default_excludes,
        )

    def _check_patterns(self, decoded: Decoded[Any], *keys: str) -> None:
        for key in keys:
            for pattern in getattr(decoded.table, key):
                refusal = check_pattern(pattern)
                if refusal:
                    self._findings.refuse(decoded.place, key, refusal, value=pattern)

    def _tree_of(
        self, decoded: Decoded[Any], wanted: str | None, trees: list[TreeSettings]
    ) -> TreeSettings | None:
        if not trees:
            return None
        names = ", ".join(tree.name for tree in trees)
        if wanted is None and len(trees) == 1:
            return trees[0]
        if wanted is None:
            self._findings.add(
                decoded.place, "tree", "is missing, there are several Trees",
                f"write tree = NAME; there are: {names}",
            )  # fmt: skip
            return None
        found = next((tree for tree in trees if tree.name == wanted), None)
        if found is None:
            self._findings.add(
                decoded.place, "tree", "there is no Tree of that name", f"there are: {names}",
                value=wanted,
            )  # fmt: skip
        return found

    # -- sync

    def _sync(self) -> SyncSettings:
        decoded = self._tables.sync
        table = decoded.table
        delay = self._read(decoded, "delay", lambda text: duration(text, low=0, high=86400), 0.0)
        max_delay = self._read(
            decoded, "max_delay", lambda text: duration(text, low=0, high=7 * 86400), 60.0
        )
        if delay > max_delay:
            self._findings.add(
                decoded.place, "max_delay", f"is shorter than delay = {table.delay}",
                "write a longer max_delay, or a shorter delay", value=table.max_delay,
            )  # fmt: skip
        self._check_rsync_options(decoded, None)
        return SyncSettings(
            delay_seconds=delay,
            max_delay_seconds=max_delay,
            batch_paths=self._read(
                decoded, "batch_paths", lambda number: bounded(number, 1, 1_000_000), 1
            ),
            batch_bytes=self._read(decoded, "batch_bytes", lambda text: size(text, low=1024), 1),
            max_rsyncs=self._read(
                decoded, "max_rsyncs", lambda number: bounded(number, 1, 256), 1
            ),
            max_delete=self._read(decoded, "max_delete", delete_limit, DeleteLimit()),
            rsync_options=tuple(table.rsync_options),
        )

    def _check_rsync_options(self, decoded: Decoded[Any], kind: TargetKind | None) -> None:
        options = decoded.table.rsync_options
        for refusal in check_rsync_options(options, kind):
            self._findings.refuse(decoded.place, "rsync_options", refusal)

    # -- nodes

    def _node(
        self, decoded: Decoded[NodeTable], trees: list[TreeSettings]
    ) -> tuple[NodeSettings | None, Place]:
        defaults = self._tables.node_defaults
        values = _merged(defaults, decoded)
        own = decoded.table
        tree = self._tree_of(decoded, values.tree, trees)
        node_name = self._required(decoded, "name", name, 'write name = "web1"')
        target = self._target(decoded)
        self._check_patterns(decoded, "exclude", "only")
        self._check_node(decoded, target)
        if tree is None or node_name is None or target is None:
            return None, decoded.place
        return (
            NodeSettings(
                name=node_name,
                tree=tree.name,
                target=target,
                subtree=self._merged_value(decoded, "subtree", folder_below),
                only=tuple(values.only),
                exclude=(*tree.exclude, *defaults.table.exclude, *own.exclude),
                include=tree.include,
                delete=values.delete,
                bandwidth=self._merged_value(decoded, "bandwidth", bandwidth),
                order=values.order,
                rsync_options=(
                    *self._tables.sync.table.rsync_options,
                    *defaults.table.rsync_options,
                    *own.rsync_options,
                ),
                password_file=self._password_file(decoded, target),
                ssh_options=tuple(values.ssh_options),
                run_as=values.run_as,
                paused=values.paused,
            ),
            decoded.place,
        )

    def _owner_of(self, decoded: Decoded[NodeTable], key: str) -> Decoded[NodeTable]:
        """The table that a value comes from: the Node's own, or node_defaults."""
        return decoded if key in decoded.given else self._tables.node_defaults

    def _merged_value(
        self, decoded: Decoded[NodeTable], key: str, parse: Callable[[Any], str]
    ) -> str:
        return self._read(self._owner_of(decoded, key), key, parse, "")

    def _required(
        self, decoded: Decoded[NodeTable], key: str, parse: Callable[[str], V], remedy: str
    ) -> V | None:
        value = getattr(decoded.table, key)
        if value is None:
            self._findings.add(decoded.place, key, "is missing", remedy)
            return None
        try:
            return parse(value)
        except Refusal as refusal:
            self._findings.refuse(decoded.place, key, refusal, value=hide_password(value))
            return None

    def _target(self, decoded: Decoded[NodeTable]) -> Target | None:
        return self._required(
            decoded, "target", parse_target, 'write target = "/path" or "web1:/path"'
        )

    def _check_node(self, decoded: Decoded[NodeTable], target: Target | None) -> None:
        self._check_rsync_options(decoded, target.kind if target else None)
        for refusal in check_ssh_options(decoded.table.ssh_options):
            self._findings.refuse(decoded.place, "ssh_options", refusal)

    def _password_file(self, decoded: Decoded[NodeTable], target: Target) -> Path | None:
        owner = self._owner_of(decoded, "password_file")
        text = owner.table.password_file
        if text is None:
            return None
        if target.kind is not TargetKind.DAEMON:
            if owner is decoded:
                self._findings.add(
                    decoded.place, "password_file", "only rsync daemons ask for it",
                    "leave it out; ssh takes keys: ssh_options",
                )  # fmt: skip
            return None
        if not os.path.isabs(text):
            # Not shown: it may well be the password itself.
            self._findings.add(
                owner.place, "password_file", "is not a full path",
                'write the password into a file of mode 0600 and its full path here: "/etc/..."',
            )  # fmt: skip
            return None
        return Path(os.path.normpath(text))

    # -- callbacks

    def _callback(
        self, decoded: Decoded[CallbackTable], trees: list[TreeSettings]
    ) -> CallbackSettings | None:
        table = decoded.table
        tree = self._tree_of(decoded, table.tree, trees)
        after = self._read(decoded, "after", _callback_after, CallbackAfter.NODES)
        self._check_patterns(decoded, "match")
        if not table.command or not table.command[0]:
            self._findings.add(
                decoded.place, "command", "is empty",
                'write the program and its arguments: command = ["/usr/local/bin/purge"]',
            )  # fmt: skip
        if table.name is None:
            self._findings.add(decoded.place, "name", "is missing", 'write name = "purge"')
        if tree is None or table.name is None:
            return None
        return CallbackSettings(
            name=self._read(decoded, "name", name, table.name),
            tree=tree.name,
            command=tuple(table.command),
            match=tuple(table.match),
            after=after,
        )


def _merged(defaults: Decoded[NodeTable], decoded: Decoded[NodeTable]) -> NodeTable:
    values = {key: getattr(defaults.table, key) for key in defaults.given}
    values.update({key: getattr(decoded.table, key) for key in decoded.given})
    return NodeTable(**values)


def _shard_count(value: int | str) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, str):
        raise Refusal("is neither a number nor auto", 'write count = "auto" or count = 4')
    return bounded(value, 1, 256)


def _callback_after(text: str) -> CallbackAfter:
    try:
        return CallbackAfter(text)
    except ValueError as error:
        raise Refusal("is not known", 'write after = "nodes" or after = "journal"') from error
