"""The tables of docs/settings.md as the code has them."""

from __future__ import annotations

import msgspec
from msgspec.structs import FieldInfo, fields

from shardsync.config import schema
from shardsync.config.problems import toml_text

SECTIONS: dict[str, type[msgspec.Struct]] = {
    "[tree]": schema.TreeTable,
    "[state]": schema.StateTable,
    "[shards]": schema.ShardsTable,
    "[sync]": schema.SyncTable,
    "[metrics]": schema.MetricsTable,
    "[[node]]": schema.NodeTable,
    "[[callback]]": schema.CallbackTable,
}
HEAD = ["| key | type | default | meaning | example |", "| --- | --- | --- | --- | --- |"]


def table(section: str) -> list[str]:
    """The lines of one section's table."""
    return [*HEAD, *(_row(info) for info in fields(SECTIONS[section]))]


def top_level() -> list[str]:
    """The table of the keys above all tables."""
    info = next(info for info in fields(schema.MainFile) if info.name == "include_files")
    return [*HEAD, _row(info)]


def example(info: FieldInfo) -> object:
    """The example value of a key."""
    return _meta(info).examples[0]  # type: ignore[index]  # each key has one, or this fails


def _row(info: FieldInfo) -> str:
    meta = _meta(info)
    cells = (
        f"`{info.name}`",
        meta.title,
        _default(info),
        meta.description,
        f"`{info.name} = {toml_text(example(info))}`",
    )
    return "| " + " | ".join((cell or "").replace("|", "\\|") for cell in cells) + " |"


def _default(info: FieldInfo) -> str:
    default = info.default if info.default_factory is msgspec.NODEFAULT else []
    return "" if default is None else f"`{toml_text(default)}`"


def _meta(info: FieldInfo) -> msgspec.Meta:
    found: msgspec.Meta = info.type.__metadata__[0]
    return found
