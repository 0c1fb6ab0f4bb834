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


def _key(meaning: str, example: object, kind: str = "text") -> Meta:
    return Meta(title=kind, description=meaning, examples=[example])


_PATTERNS = "patterns"
_LIST = "list of texts"


class MainFile(Struct, forbid_unknown_fields=True, kw_only=True):
    """The tables of the main file."""

    include_files: Annotated[
        Texts,
        _key(
            "further files with `[[tree]]`, `[[node]]` and `[[callback]]` tables, "
            "relative to this one; wildcards are taken, and read in order of name",
            ["shardsync.d/*.toml"],
            _LIST,
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

    name: Annotated[
        Text,
        _key(
            "the Tree's name in commands, logs and metrics; needed where there are several", "docs"
        ),
    ] = "main"
    root: Annotated[
        Text | None,
        _key(
            "the directory that Nodes mirror: a full path, and it must exist",
            "/var/www/html",
            "path",
        ),
    ] = None
    exclude: Annotated[
        Texts,
        _key("what is not mirrored, and never touched on a Node", ["*.tmp", "/cache/"], _PATTERNS),
    ] = []
    include: Annotated[
        Texts,
        _key(
            "what stays although `exclude` names it (not what lies in an excluded directory)",
            ["keep.tmp"],
            _PATTERNS,
        ),
    ] = []
    marker: Annotated[
        Text,
        _key(
            "a file below the root; while it is missing the Tree counts as lost "
            "and nothing is deleted",
            ".mounted",
            "path below root",
        ),
    ] = ""
    max_open: Annotated[
        Text,
        _key(
            "a file that stays open for writing is sent as it is after so long", "1m", "duration"
        ),
    ] = "10s"
    default_excludes: Annotated[
        bool,
        _key(
            "exclude editors' own files too: exactly `.*.sw[a-p]` `*~` `.#*` `#*#`",
            False,
            "true/false",
        ),
    ] = True


class StateTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """Where shardsync keeps Journals and Cursors, and for how long."""

    dir: Annotated[
        Text | None,
        _key(
            "the state directory: on a local disk, outside every Tree and Node, "
            "its path at most 83 bytes long; by default `/var/lib/shardsync` for "
            "root, else `$XDG_STATE_HOME/shardsync` (`~/.local/state/shardsync`)",
            "/srv/shardsync",
            "path",
        ),
    ] = None
    retention: Annotated[
        Text,
        _key(
            "how long Changes are kept: as far back as `replay --since` reaches, "
            "and as long as a Node may be away without a full comparison",
            "14d",
            "duration",
        ),
    ] = "7d"
    journal_max: Annotated[
        Text, _key("the size that all Journals together may have", "8GiB", "size")
    ] = "2GiB"


class ShardsTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """How many processes share the watching."""

    count: Annotated[
        int | str,
        _key(
            'Shards per Tree: `"auto"` (as many as processors), or a number from 1 to 256',
            4,
            'number or "auto"',
        ),
    ] = "auto"


class SyncTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """How Changes are gathered and shipped."""

    delay: Annotated[
        Text,
        _key(
            "settle time: a path is sent once nothing changed it for so long; 0 sends at once",
            "2s",
            "duration",
        ),
    ] = "0s"
    max_delay: Annotated[
        Text,
        _key(
            "a path is sent so long after its first Change even if it never comes to rest",
            "5m",
            "duration",
        ),
    ] = "1m"
    batch_paths: Annotated[
        int, _key("the most paths in one Batch, up to 1000000", 5000, "number")
    ] = 10_000
    batch_bytes: Annotated[Text, _key("the most bytes in one Batch", "64MiB", "size")] = "256MiB"
    big_file_bytes: Annotated[
        Text,
        _key(
            "a file of more than this is sent beside the Batches, which do not wait for it; "
            "see below",
            "1GiB",
            "size",
        ),
    ] = "64MiB"
    max_rsyncs: Annotated[
        int, _key("rsyncs that run at a time, over all Nodes, up to 256", 4, "number")
    ] = 8
    max_delete: Annotated[
        int | str,
        _key(
            "a Node halts before more entries than this are deleted on it within "
            "10 minutes: a number, or a share of the Tree (never below 10000 "
            "entries)",
            2000,
            "number or share",
        ),
    ] = "50%"
    rsync_options: Annotated[
        Texts, _key("further options of rsync, for all Nodes; see below", ["--compress"], _LIST)
    ] = []


class MetricsTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """Where Prometheus finds /metrics."""

    listen: Annotated[
        Text, _key('address and port of `/metrics`; `""` opens no port', "[::1]:9750")
    ] = "127.0.0.1:9750"


class NodeTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """One Node: `[[node]]`. `[node_defaults]` takes the same keys but name and target."""

    name: Annotated[Text | None, _key("the Node's name in commands, logs and metrics", "web1")] = (
        None
    )
    target: Annotated[
        Text | None,
        _key(
            "where its files go: `/path`, `[user@]host:/path` (ssh) or "
            "`rsync://[user@]host[:port]/module[/path]`",
            "web1:/var/www/html",
            "target",
        ),
    ] = None
    tree: Annotated[Text | None, _key("its Tree, where there are several", "docs")] = None
    subtree: Annotated[
        Text,
        _key(
            "mirror this folder alone: with `news/`, `news/x` lands at `TARGET/x`",
            "news/",
            "path below root",
        ),
    ] = ""
    only: Annotated[
        Texts,
        _key(
            "nothing else is mirrored; patterns start from the Tree's root; not "
            "together with the Tree's `include`",
            ["/img/", "*.css"],
            _PATTERNS,
        ),
    ] = []
    exclude: Annotated[
        Texts, _key("added to the Tree's and those of `[node_defaults]`", ["*.psd"], _PATTERNS)
    ] = []
    delete: Annotated[
        bool, _key("`false`: nothing is ever deleted on the Node", False, "true/false")
    ] = True
    bandwidth: Annotated[Text, _key("the most bytes a second, with a unit", "5MiB", "size")] = ""
    order: Annotated[
        Text,
        _key(
            '`"safe"`: what pages refer to is sent before them, and deletions come last; '
            "see [publishing](publishing.md)",
            "safe",
        ),
    ] = ""
    order_first: Annotated[
        Texts,
        _key(
            'what is sent first with `order = "safe"`, if not the usual style sheets, scripts, '
            "images, fonts and media; patterns start from the Tree's root",
            ["*.css", "*.js", "/img/"],
            _PATTERNS,
        ),
    ] = []
    rsync_options: Annotated[
        Texts,
        _key(
            "added to those of `[sync]` and `[node_defaults]`",
            ["--chown=www-data:www-data"],
            _LIST,
        ),
    ] = []
    password_file: Annotated[
        Text | None,
        _key(
            "for an rsync daemon: a file that holds its password, readable by its "
            "owner alone (mode 0600)",
            "/etc/shardsync/web1.password",
            "path",
        ),
    ] = None
    ssh_options: Annotated[
        Texts,
        _key("options of ssh, one word each", ["-p", "2222", "-i", "/root/.ssh/web1"], _LIST),
    ] = []
    run_as: Annotated[
        Text, _key("the local user that runs rsync and ssh; only root can choose", "www-data")
    ] = ""
    warm: Annotated[
        bool,
        _key(
            "keep an rsync, and for ssh a login, ready between Batches; `false`: hold no "
            "connection to the Node while nothing is sent",
            False,
            "true/false",
        ),
    ] = True
    paused: Annotated[
        bool,
        _key(
            "start with the Node paused; its Changes are kept;"
            " `pause`, `resume` by hand outlive a restart",
            True,
            "true/false",
        ),
    ] = False
    windows: Annotated[
        list[Raw],
        _key(
            "hours of the day (local time, also over midnight) with another `bandwidth` "
            '(`"unlimited"`: none), or with `paused = true`',
            [
                {"from": "08:00", "to": "18:00", "bandwidth": "2MiB"},
                {"from": "23:30", "to": "01:00", "paused": True},
            ],
            "list of tables",
        ),
    ] = []
    audit_every: Annotated[
        Text,
        _key(
            "a little of the Node is compared all the time, all of it once in so long, and what "
            'differs is repaired; `"0s"`: no audit',
            "1d",
            "duration",
        ),
    ] = "7d"
    audit_hours: Annotated[
        Text,
        _key(
            "the audit works only then: hours of the day, local time, also over midnight",
            "22:00-06:00",
            "hours",
        ),
    ] = ""
    audit_checksum: Annotated[
        bool,
        _key(
            "the audit reads every file on both sides; else a file of equal size and time "
            "passes for equal",
            True,
            "true/false",
        ),
    ] = False


class CallbackTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """A program that is told of Changes: `[[callback]]` (accepted, not acted on yet)."""

    name: Annotated[Text | None, _key("the Callback's name in logs and metrics", "purge-cdn")] = (
        None
    )
    command: Annotated[
        Texts,
        _key(
            "the program and its arguments, run without a shell",
            ["/usr/local/bin/purge", "--zone", "www"],
            _LIST,
        ),
    ] = []
    tree: Annotated[Text | None, _key("its Tree, where there are several", "docs")] = None
    match: Annotated[
        Texts, _key("only paths that one of these matches are told", ["*.html"], _PATTERNS)
    ] = []
    after: Annotated[
        Text,
        _key(
            '`"nodes"`: once every following Node has the Change; `"journal"`: as '
            "soon as it is seen",
            "journal",
        ),
    ] = "nodes"
