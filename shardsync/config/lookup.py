"""`shardsync config get KEY`: resolved values under the keys that the TOML file has for them."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from shardsync.config.problems import toml_text
from shardsync.config.settings import (
    CallbackSettings,
    DeleteLimit,
    NodeSettings,
    Settings,
    TreeSettings,
)
from shardsync.errors import UsageError

Value = str | int | bool | list[str]
Table = dict[str, Value]

_OWN = {"name", "target"}
"""What each Node has by itself."""
_DURATIONS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"), (1, "B"))


def get(settings: Settings, key: str) -> Value | Table:
    """The value of `key`, or all of a table: `sync.delay`, `node.web1.target`, `node.web1`.

    A Node may be called by its name alone where only one Tree has such a Node,
    else `TREE/NAME`; a Tree's name may be left out where there is one.
    Raises UsageError with the nearest keys.
    """
    known = every(settings)
    if key in known:
        return known[key]
    below = {name[len(key) + 1 :]: value for name, value in known.items() if _is_below(name, key)}
    if below:
        return below
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "docs/settings.md lists all keys"
    raise UsageError(f"{key}: there is no such setting", hint=hint)


def text(value: Value | Table) -> str:
    """What `config get` prints: a text bare, all else as TOML has it, a table a line each."""
    if isinstance(value, dict):
        return "\n".join(f"{key} = {toml_text(item)}" for key, item in value.items())
    return value if isinstance(value, str) else toml_text(value)


def every(settings: Settings) -> Table:
    """Every key and its resolved value."""
    found: Table = {}
    _add(found, "state", _state(settings))
    _add(found, "shards", {"count": settings.shard_count or "auto"})
    _add(found, "sync", _sync(settings))
    listen = settings.metrics_listen
    host = f"[{listen[0]}]" if listen and ":" in listen[0] else listen and listen[0]
    _add(found, "metrics", {"listen": f"{host}:{listen[1]}" if listen else ""})
    found["include_files"] = list(settings.include_files)
    if settings.node_defaults is not None:
        defaults = _node(settings.node_defaults)
        _add(found, "node_defaults", {key: defaults[key] for key in defaults.keys() - _OWN})
    for tree in settings.trees:
        if len(settings.trees) == 1:
            _add(found, "tree", _tree(tree))
        _add(found, f"tree.{tree.name}", _tree(tree))
    for node in settings.nodes:
        if [other.name for other in settings.nodes].count(node.name) == 1:
            _add(found, f"node.{node.name}", _node(node))
        _add(found, f"node.{node.tree}/{node.name}", _node(node))
    for callback in settings.callbacks:
        _add(found, f"callback.{callback.name}", _callback(callback))
    return found


def _is_below(name: str, key: str) -> bool:
    return name.startswith(f"{key}.")


def _add(found: Table, prefix: str, table: Table) -> None:
    found.update({f"{prefix}.{key}": value for key, value in table.items()})


def _state(settings: Settings) -> Table:
    return {
        "dir": str(settings.state_dir),
        "retention": _duration(settings.retention_seconds),
        "journal_max": _size(settings.journal_max_bytes),
    }


def _sync(settings: Settings) -> Table:
    sync = settings.sync
    return {
        "delay": _duration(sync.delay_seconds),
        "max_delay": _duration(sync.max_delay_seconds),
        "batch_paths": sync.batch_paths,
        "batch_bytes": _size(sync.batch_bytes),
        "big_file_bytes": _size(sync.big_file_bytes),
        "max_rsyncs": sync.max_rsyncs,
        "max_delete": _max_delete(sync.max_delete),
        "rsync_options": list(sync.rsync_options),
    }


def _tree(tree: TreeSettings) -> Table:
    return {
        "name": tree.name,
        "root": str(tree.root),
        "exclude": list(tree.exclude),
        "include": list(tree.include),
        "marker": tree.marker,
        "max_open": _duration(tree.max_open_seconds),
        "default_excludes": tree.default_excludes,
    }


def _node(node: NodeSettings) -> Table:
    return {
        "name": node.name,
        "target": str(node.target),
        "tree": node.tree,
        "subtree": node.subtree,
        "only": list(node.only),
        "exclude": list(node.exclude),
        "delete": node.delete,
        "bandwidth": node.bandwidth,
        "order": node.order,
        "order_first": list(node.order_first),
        "rsync_options": list(node.rsync_options),
        "password_file": "" if node.password_file is None else str(node.password_file),
        "ssh_options": list(node.ssh_options),
        "run_as": node.run_as,
        "paused": node.paused,
        "warm": node.warm,
        "windows": [str(window) for window in node.windows],
        "audit_every": _duration(node.audit_every_seconds),
        "audit_hours": "" if node.audit_hours is None else node.audit_hours.hours,
        "audit_checksum": node.audit_checksum,
    }


def _callback(callback: CallbackSettings) -> Table:
    return {
        "name": callback.name,
        "command": list(callback.command),
        "tree": callback.tree,
        "match": list(callback.match),
        "after": callback.after.value,
    }


def _max_delete(limit: DeleteLimit) -> str | int:
    if limit.entries is not None:
        return limit.entries
    return f"{(limit.share or 0) * 100:g}%"


def _duration(seconds: float) -> str:
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    return _in_units(int(seconds), _DURATIONS, lambda count: f"{count}s")


def _size(count: int) -> str:
    return _in_units(count, _SIZES, lambda count: f"{count}B")


def _in_units(
    count: int, units: tuple[tuple[int, str], ...], otherwise: Callable[[int], str]
) -> str:
    """`count` in the largest unit that it is a whole number of."""
    for factor, unit in units:
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return otherwise(count)
