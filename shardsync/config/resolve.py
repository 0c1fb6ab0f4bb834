"""From decoded tables to Settings: durations in seconds, sizes in bytes, each value refused alone.

`validate` then looks at them together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from shardsync.config.nodes import NodeResolver
from shardsync.config.problems import Findings, Place, Refusal
from shardsync.config.reader import Reader
from shardsync.config.schema import CallbackTable, TreeTable
from shardsync.config.settings import (
    DEFAULT_EXCLUDES,
    CallbackAfter,
    CallbackSettings,
    DeleteLimit,
    NodeSettings,
    Settings,
    SyncSettings,
    TreeSettings,
)
from shardsync.config.source import Decoded, Tables
from shardsync.config.values import (
    bounded,
    delete_limit,
    duration,
    folder_below,
    full_path,
    listen_address,
    name,
    size,
)

_YEAR = 366 * 86400.0
NOWHERE = Path()
"""Stands in for a root that was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The Settings, and where the files have each Tree and each Node, in the same order.

    Where something was refused the values are stand-ins: good for looking at
    the rest, and never handed on, for the Problems noted are raised.
    """

    settings: Settings
    tree_places: tuple[Place, ...]
    node_places: tuple[Place, ...]
    state_place: Place


class Resolver:
    """Reads one table after the other."""

    def __init__(self, *, tables: Tables, findings: Findings, default_state_dir: Path) -> None:
        self._tables = tables
        self._findings = findings
        self._reader = Reader(findings=findings)
        self._default_state_dir = default_state_dir

    def resolve(self) -> Resolved:
        """Everything that can be said of each value alone."""
        if not self._tables.trees:
            self._findings.add(
                Place(file=self._tables.source),
                "tree",
                "there is no [tree]",
                'write [tree] and below it: root = "/var/www/html"',
            )
        trees = [self._tree(decoded) for decoded in self._tables.trees]
        resolver = NodeResolver(tables=self._tables, reader=self._reader, trees=trees)
        nodes = resolver.resolve()
        return Resolved(
            settings=replace(self._settings(trees, nodes), node_defaults=resolver.defaults()),
            tree_places=tuple(decoded.place for decoded in self._tables.trees),
            node_places=tuple(place for _, place in nodes),
            state_place=self._tables.state.place,
        )

    def _settings(
        self, trees: list[TreeSettings], nodes: list[tuple[NodeSettings, Place]]
    ) -> Settings:
        tables, read = self._tables, self._reader.read
        retention = read(
            tables.state, "retention", lambda text: duration(text, low=1, high=10 * _YEAR), 0.0
        )
        return Settings(
            source=tables.source,
            include_files=tuple(tables.include_files),
            state_dir=self._state_dir(),
            trees=tuple(trees),
            nodes=tuple(node for node, _ in nodes),
            callbacks=tuple(self._callback(decoded, trees) for decoded in tables.callbacks),
            retention_seconds=retention,
            journal_max_bytes=read(
                tables.state, "journal_max", lambda text: size(text, low=1024**2), 0
            ),
            shard_count=read(tables.shards, "count", _shard_count, None),
            sync=self._sync(),
            metrics_listen=read(tables.metrics, "listen", listen_address, None),
        )

    def _state_dir(self) -> Path:
        if self._tables.state.table.dir is None:
            return self._default_state_dir
        return self._reader.read(self._tables.state, "dir", full_path, self._default_state_dir)

    def _tree(self, decoded: Decoded[TreeTable]) -> TreeSettings:
        table = decoded.table
        if len(self._tables.trees) > 1 and "name" not in decoded.given:
            self._findings.add(
                decoded.place, "name", "each of several Trees needs a name", 'write name = "docs"'
            )
        root = NOWHERE
        if table.root is None:
            self._findings.add(decoded.place, "root", "is missing", 'write root = "/var/www/html"')
        else:
            root = self._reader.read(decoded, "root", full_path, root)
        self._reader.check_patterns(decoded, "exclude", "include")
        defaults = DEFAULT_EXCLUDES if table.default_excludes else ()
        return TreeSettings(
            name=self._reader.read(decoded, "name", name, table.name),
            root=root,
            exclude=(*table.exclude, *defaults),
            include=tuple(table.include),
            marker=self._reader.read(decoded, "marker", folder_below, ""),
            max_open_seconds=self._reader.read(
                decoded, "max_open", lambda text: duration(text, low=0.1, high=86400), 10.0
            ),
            default_excludes=table.default_excludes,
        )

    def _sync(self) -> SyncSettings:
        decoded = self._tables.sync
        table = decoded.table
        delay = self._reader.read(
            decoded, "delay", lambda text: duration(text, low=0, high=86400), 0.0
        )
        max_delay = self._reader.read(
            decoded, "max_delay", lambda text: duration(text, low=0, high=7 * 86400), 60.0
        )
        if delay > max_delay:
            self._findings.add(
                decoded.place, "max_delay", f"is shorter than delay = {table.delay}",
                "write a longer max_delay, or a shorter delay", value=table.max_delay,
            )  # fmt: skip
        self._reader.check_rsync_options(decoded, None)
        return SyncSettings(
            delay_seconds=delay,
            max_delay_seconds=max_delay,
            batch_paths=self._reader.read(
                decoded, "batch_paths", lambda number: bounded(number, 1, 1_000_000), 1
            ),
            batch_bytes=self._reader.read(
                decoded, "batch_bytes", lambda text: size(text, low=1024), 1
            ),
            big_file_bytes=self._reader.read(
                decoded, "big_file_bytes", lambda text: size(text, low=1024**2), 1024**2
            ),
            max_rsyncs=self._reader.read(
                decoded, "max_rsyncs", lambda number: bounded(number, 1, 256), 1
            ),
            max_delete=self._reader.read(decoded, "max_delete", delete_limit, DeleteLimit()),
            rsync_options=tuple(table.rsync_options),
        )

    def _callback(
        self, decoded: Decoded[CallbackTable], trees: list[TreeSettings]
    ) -> CallbackSettings:
        table = decoded.table
        self._reader.check_patterns(decoded, "match")
        if not table.command or not table.command[0]:
            self._findings.add(
                decoded.place,
                "command",
                "is empty",
                'write the program and its arguments: command = ["/usr/local/bin/purge"]',
            )
        if table.name is None:
            self._findings.add(decoded.place, "name", "is missing", 'write name = "purge"')
        return CallbackSettings(
            name="" if table.name is None else self._reader.read(decoded, "name", name, ""),
            tree=self._reader.tree_of(decoded, table.tree, trees),
            command=tuple(table.command),
            match=tuple(table.match),
            after=self._reader.read(decoded, "after", _callback_after, CallbackAfter.NODES),
        )


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
