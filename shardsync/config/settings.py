"""The settings as values, resolved and checked: what all other parts are handed.

`config.load` makes them from TOML; nothing else does, tests aside. Every
duration is in seconds, every size in bytes, every path absolute.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from shardsync.config.windows import Window

DEFAULT_EXCLUDES = (".*.sw[a-p]", "*~", ".#*", "#*#")
"""Editors' own files: vim's swap, backups, Emacs's locks and auto-saves (`default_excludes`)."""


DEFAULT_ORDER_FIRST = tuple(
    f"*.{ending}"
    for ending in (
        *("css", "js", "mjs", "wasm", "map"),
        *("png", "jpg", "jpeg", "gif", "webp", "avif", "svg", "ico"),
        *("woff", "woff2", "ttf", "otf", "eot"),
        *("mp3", "mp4", "webm"),
    )
)
"""What pages refer to: sent before all else where `order` is SAFE_ORDER (`order_first`)."""

SAFE_ORDER = "safe"


class CallbackAfter(enum.StrEnum):
    """When a Callback learns of a Change."""

    NODES = "nodes"
    JOURNAL = "journal"


class TargetKind(enum.StrEnum):
    """How rsync reaches a Node."""

    LOCAL = "local"
    SSH = "ssh"
    DAEMON = "daemon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a Node's files go. `str()` is the settings' own spelling.

    LOCAL: `path` alone. SSH: `[user@]host:path`. DAEMON:
    `rsync://[user@]host[:port]/path`, `path` being `module[/folder]`.
    """

    kind: TargetKind
    path: str
    host: str = ""
    user: str = ""
    port: int | None = None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        if self.kind is TargetKind.LOCAL:
            return self.path
        if self.kind is TargetKind.SSH:
            return f"{user}{self.host}:{self.path}"
        return f"rsync://{user}{self.host}{port}/{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSettings:
    """One watched Tree. `exclude` already holds the default excludes where they are wanted."""

    name: str
    root: Path
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    marker: str = ""
    max_open_seconds: float = 10.0
    default_excludes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """One Node, with `[node_defaults]` and the Tree's and `[sync]`'s outer lists added in.

    `exclude` and `rsync_options` are complete: the outer ones come first.
    `subtree` is "" or a relative folder without slashes at its ends.
    """

    name: str
    tree: str
    target: Target
    subtree: str = ""
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    delete: bool = True
    bandwidth: str = ""
    order: str = ""
    order_first: tuple[str, ...] = DEFAULT_ORDER_FIRST
    rsync_options: tuple[str, ...] = ()
    password_file: Path | None = None
    ssh_options: tuple[str, ...] = ()
    run_as: str = ""
    paused: bool = False
    warm: bool = True
    windows: tuple[Window, ...] = ()
    audit_every_seconds: float = 7 * 86400.0
    audit_hours: Window | None = None
    audit_checksum: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """(tree, name): what identifies a Node everywhere."""
        return (self.tree, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackSettings:
    """A program that is told of Changes."""

    name: str
    tree: str
    command: tuple[str, ...]
    match: tuple[str, ...] = ()
    after: CallbackAfter = CallbackAfter.NODES


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteLimit:
    """`max_delete`: a number of entries, or a share of the Tree with a floor under it."""

    entries: int | None = None
    share: float | None = 0.5
    floor: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """How Changes are gathered and shipped."""

    delay_seconds: float = 0.0
    max_delay_seconds: float = 60.0
    batch_paths: int = 10_000
    batch_bytes: int = 256 * 1024**2
    big_file_bytes: int = 64 * 1024**2
    max_rsyncs: int = 8
    max_delete: DeleteLimit = field(default_factory=DeleteLimit)
    rsync_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything, checked. `shard_count` None means "auto", `metrics_listen` None no port.

    `include_files`, `node_defaults`: as the file has them; all else has them in it already.
    """

    source: Path
    state_dir: Path
    trees: tuple[TreeSettings, ...]
    nodes: tuple[NodeSettings, ...]
    callbacks: tuple[CallbackSettings, ...] = ()
    retention_seconds: float = 7 * 86400.0
    journal_max_bytes: int = 2 * 1024**3
    shard_count: int | None = None
    sync: SyncSettings = field(default_factory=SyncSettings)
    metrics_listen: tuple[str, int] | None = ("127.0.0.1", 9750)
    include_files: tuple[str, ...] = ()
    node_defaults: NodeSettings | None = None

    def tree(self, name: str) -> TreeSettings:
        """The Tree of that name. Raises KeyError."""
        for tree in self.trees:
            if tree.name == name:
                return tree
        raise KeyError(name)

    def nodes_of(self, tree: str) -> tuple[NodeSettings, ...]:
        """The Nodes of one Tree, in the order of the settings."""
        return tuple(node for node in self.nodes if node.tree == tree)

    def called(self, node: NodeSettings) -> str:
        """What people call a Node: its name, or `TREE/NAME` where there are several Trees."""
        return node.name if len(self.trees) == 1 else f"{node.tree}/{node.name}"
