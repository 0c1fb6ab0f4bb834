"""The settings file's tables and keys, each with its meaning and an example.

`load` decodes TOML into these Structs, `lookup` and docs/settings.md are held
against them: a key exists here or nowhere.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

Text = str
Texts = list[str]
Raw = dict[str, Any]


def _key(meaning: str, example: object) -> Meta:
    return Meta(description=meaning, examples=[example])


class MainFile(Struct, forbid_unknown_fields=True, kw_only=True):
    """The tables of the main file."""

    include_files: Annotated[
        Texts,
        _key(
            "further files, relative to this one, with [[tree]], [[node]], [[callback]]",
            ["shardsync.d/*.toml"],
        ),
    ] = []
    tree: Raw | list[Raw] = []
    state: Raw = {}
    shards: Raw = {}
    sync: Raw = {}
    metrics: Raw = {}
    node_defaults: Raw = {}
    node: list[Raw] = []
    callback: list[Raw] = []


class IncludedFile(Struct, forbid_unknown_fields=True, kw_only=True):
    """The tables of a file that `include_files` names."""

    tree: Raw | list[Raw] = []
    node: list[Raw] = []
    callback: list[Raw] = []


class TreeTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """One watched Tree: `[tree]`, or `[[tree]]` where there are several."""

    name: Annotated[Text, _key("the Tree's name in commands, logs and metrics", "docs")] = "main"
    root: Annotated[Text | None, _key("the directory that Nodes mirror", "/var/www/html")] = None
    exclude: Annotated[
        Texts, _key("rsync patterns of what is not mirrored", ["*.tmp", "/cache/"])
    ] = []
    include: Annotated[Texts, _key("patterns that win over exclude", ["/cache/keep/***"])] = []
    marker: Annotated[
        Text, _key("a file below root without which the Tree is taken for lost", ".mounted")
    ] = ""
    max_open: Annotated[
        Text, _key("how long a file held open for writing may wait for its close", "10s")
    ] = "10s"
    default_excludes: Annotated[
        bool, _key("also exclude .*.sw[a-p] *~ .#* #*# (editors' own files)", False)
    ] = True


class StateTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """Where shardsync keeps Journals and Cursors, and for how long."""

    dir: Annotated[
        Text | None, _key("the state directory: a local disk, outside every Tree", "/srv/state")
    ] = None
    retention: Annotated[
        Text, _key("how long the Journals keep Changes: as far as replay reaches back", "14d")
    ] = "7d"
    journal_max: Annotated[Text, _key("the size that all Journals together may have", "8GiB")] = (
        "2GiB"
    )


class ShardsTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """How many processes share the watching."""

    count: Annotated[
        int | str, _key('Shards per Tree: "auto" (the processors) or a number', 4)
    ] = "auto"


class SyncTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """How Changes are gathered and shipped."""

    delay: Annotated[Text, _key("settle time: wait so long after a Change", "2s")] = "0s"
    max_delay: Annotated[
        Text, _key("ship at the latest after so long, though Changes keep coming", "5m")
    ] = "1m"
    batch_paths: Annotated[int, _key("the most paths in one Batch", 5000)] = 10_000
    batch_bytes: Annotated[Text, _key("the most bytes in one Batch", "64MiB")] = "256MiB"
    max_rsyncs: Annotated[int, _key("rsyncs at a time, over all Nodes", 4)] = 8
    max_delete: Annotated[
        int | str,
        _key("entries deleted within 10 minutes beyond which a Node halts, or a share", 2000),
    ] = "50%"
    rsync_options: Annotated[
        Texts, _key("further rsync options, for all Nodes", ["--compress"])
    ] = []


class MetricsTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """Where Prometheus finds /metrics."""

    listen: Annotated[
        Text, _key('address and port of /metrics; "" opens none', "0.0.0.0:9750")
    ] = "127.0.0.1:9750"


class NodeTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """One Node: `[[node]]`; `[node_defaults]` holds the same keys for all Nodes."""

    name: Annotated[Text | None, _key("the Node's name", "web1")] = None
    target: Annotated[
        Text | None,
        _key(
            '"/path", "[user@]host:/path" or "rsync://[user@]host[:port]/module[/path]"',
            "web1:/var/www/html",
        ),
    ] = None
    tree: Annotated[Text | None, _key("its Tree, where there are several", "docs")] = None
    subtree: Annotated[
        Text, _key("mirror this folder alone: news/x lands at TARGET/x", "news/")
    ] = ""
    only: Annotated[Texts, _key("patterns: nothing else is mirrored", ["/img/***"])] = []
    exclude: Annotated[Texts, _key("patterns, added to the Tree's", ["*.psd"])] = []
    delete: Annotated[bool, _key("false never deletes anything on the Node", False)] = True
    bandwidth: Annotated[Text, _key("the most bytes a second", "5MiB")] = ""
    order: Annotated[Text, _key("accepted, not acted on yet", "")] = ""
    rsync_options: Annotated[
        Texts, _key("further rsync options, added to sync's", ["--chown=www-data:www-data"])
    ] = []
    password_file: Annotated[
        Text | None,
        _key(
            "the rsync daemon's password, in a file of mode 0600", "/etc/shardsync/web1.password"
        ),
    ] = None
    ssh_options: Annotated[Texts, _key("options of ssh", ["-p", "2222"])] = []
    run_as: Annotated[Text, _key("the local user that runs rsync and ssh", "www-data")] = ""
    paused: Annotated[bool, _key("start with the Node paused", True)] = False


class CallbackTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """A program that is told of Changes: `[[callback]]`."""

    name: Annotated[Text | None, _key("the Callback's name", "purge-cdn")] = None
    command: Annotated[
        Texts, _key("program and arguments; no shell", ["/usr/local/bin/purge", "--zone", "www"])
    ] = []
    tree: Annotated[Text | None, _key("its Tree, where there are several", "docs")] = None
    match: Annotated[Texts, _key("patterns: only these paths are told", ["*.html"])] = []
    after: Annotated[
        Text,
        _key('"nodes": every Node has the Change; "journal": as soon as it is seen', "journal"),
    ] = "nodes"
