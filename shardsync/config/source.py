"""From TOML files to tables: found, parsed, `include_files` gathered, each key known and typed.

Nothing here knows what a value means; `resolve` does. Problems are collected,
never raised one by one.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.structs import FieldInfo, fields

from shardsync.config.problems import Findings, Place, Refusal, toml_text
from shardsync.config.schema import (
    CallbackTable,
    IncludedFile,
    MainFile,
    MetricsTable,
    NodeTable,
    Raw,
    ShardsTable,
    StateTable,
    SyncTable,
    TreeTable,
)
from shardsync.config.trust import read_trusted

SYSTEM_FILE = Path("/etc/shardsync/shardsync.toml")
LOCAL_NAME = "shardsync.toml"
_NO_FILE = "write one (etc/shardsync.toml in the sources is a sample), or name it with --config"

_TYPE_WORDS = {
    "str": "a text in quotes",
    "int": "a number",
    "float": "a number with a point",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded(Generic[T]):
    """One table: where it stands, its values (defaults for the missing and bad), its own keys."""

    place: Place
    table: T
    given: frozenset[str]


@dataclass(slots=True, kw_only=True)
class Tables:
    """All tables of the main file and of those it includes."""

    source: Path
    include_files: list[str]
    state: Decoded[StateTable]
    shards: Decoded[ShardsTable]
    sync: Decoded[SyncTable]
    metrics: Decoded[MetricsTable]
    node_defaults: Decoded[NodeTable]
    trees: list[Decoded[TreeTable]] = field(default_factory=list)
    nodes: list[Decoded[NodeTable]] = field(default_factory=list)
    callbacks: list[Decoded[CallbackTable]] = field(default_factory=list)


def find_file(path: Path | None, env: Mapping[str, str], cwd: Path) -> Path | None:
    """The settings file that holds: named, else in the environment, here, or in /etc.

    One that is named need not exist (reading it will say so); None where none
    is named and none lies in the usual places.
    """
    named = path or (Path(env["SHARDSYNC_CONFIG"]) if env.get("SHARDSYNC_CONFIG") else None)
    if named is not None:
        return cwd / named
    return next((file for file in (cwd / LOCAL_NAME, SYSTEM_FILE) if file.is_file()), None)


def read_tables(path: Path | None, env: Mapping[str, str], cwd: Path) -> tuple[Tables, Findings]:
    """Read all of it. Raises SettingsInvalid only if the main file cannot be read or parsed."""
    findings = Findings()
    source = find_file(path, env, cwd)
    if source is None:
        places = f"$SHARDSYNC_CONFIG, {cwd / LOCAL_NAME} and {SYSTEM_FILE}"
        missing = cwd / LOCAL_NAME
        findings.add(Place(file=missing), "", f"no settings file: tried {places}", _NO_FILE)
    raw = read_toml(source, findings) if source else None
    findings.raise_if_any()
    if source is None or raw is None:  # pragma: no cover - raise_if_any has raised
        raise AssertionError(path)
    return _tables(source, raw, findings), findings


def read_toml(file: Path, findings: Findings) -> Raw | None:
    """The file's tables, or None with the Problem noted: missing, unreadable, no TOML.

    So is one that others may write, where root reads it: it names what root is to run.
    """
    place = Place(file=file)
    try:
        text = read_trusted(file)
        return tomllib.loads(text.decode("utf-8"))
    except FileNotFoundError:
        findings.add(place, "", "there is no such file", _NO_FILE)
    except OSError as error:
        findings.add(place, "", f"cannot be read: {error.strerror}", "look at its owner and mode")
    except Refusal as refusal:
        findings.refuse(place, "", refusal)
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        findings.add(place, "", f"line {line} is not UTF-8", "save the file as UTF-8")
    except tomllib.TOMLDecodeError as error:
        findings.add(place, "", _syntax_error(error), "correct the TOML: see https://toml.io")
    return None


def _syntax_error(error: tomllib.TOMLDecodeError) -> str:
    text = str(error)
    found = re.search(r"\(at line (\d+), column (\d+)\)", text)
    if found is None:
        return f"last line: {text}"
    return f"line {found[1]}, column {found[2]}: {text[: found.start()].strip()}"


def _tables(source: Path, raw: Raw, findings: Findings) -> Tables:
    root = Place(file=source)
    main = read_table(MainFile, raw, root, findings).table
    tables = Tables(
        source=source,
        include_files=main.include_files,
        state=read_table(StateTable, main.state, Place(file=source, prefix="state"), findings),
        shards=read_table(ShardsTable, main.shards, Place(file=source, prefix="shards"), findings),
        sync=read_table(SyncTable, main.sync, Place(file=source, prefix="sync"), findings),
        metrics=read_table(
            MetricsTable, main.metrics, Place(file=source, prefix="metrics"), findings
        ),
        node_defaults=read_table(
            NodeTable, main.node_defaults, Place(file=source, prefix="node_defaults"), findings
        ),
    )
    _refuse_identity_defaults(tables.node_defaults, findings)
    _add_lists(tables, source, main, findings)
    for file in _included(source, main.include_files, findings):
        included = read_toml(file, findings)
        if included is not None:
            table = read_table(IncludedFile, included, Place(file=file), findings).table
            _add_lists(tables, file, table, findings)
    return tables


def _refuse_identity_defaults(defaults: Decoded[NodeTable], findings: Findings) -> None:
    for key in sorted(defaults.given & {"name", "target"}):
        findings.add(
            defaults.place,
            key,
            "cannot be the same for all Nodes",
            f"write {key} in each [[node]]",
        )


def _add_lists(
    tables: Tables, file: Path, table: MainFile | IncludedFile, findings: Findings
) -> None:
    trees = table.tree if isinstance(table.tree, list) else [table.tree]
    tables.trees += _each(TreeTable, "tree", trees, file, findings)
    tables.nodes += _each(NodeTable, "node", table.node, file, findings)
    tables.callbacks += _each(CallbackTable, "callback", table.callback, file, findings)


def _each(
    cls: type[T], word: str, raws: list[Raw], file: Path, findings: Findings
) -> Iterator[Decoded[T]]:
    for number, raw in enumerate(raws, 1):
        name = raw.get("name")
        if not isinstance(name, str):
            name = "main" if word == "tree" and len(raws) == 1 else f"#{number}"
        prefix = word if word == "tree" and len(raws) == 1 else f"{word}.{name}"
        node = name if word == "node" else None
        yield read_table(cls, raw, Place(file=file, prefix=prefix, node=node), findings)


def _included(source: Path, patterns: list[str], findings: Findings) -> list[Path]:
    """The files of `include_files`, each once, sorted within a pattern."""
    files: dict[Path, None] = {}
    for pattern in patterns:
        full = os.path.join(glob.escape(str(source.parent)), pattern)
        found = sorted(glob.glob(full))
        if not found and not glob.has_magic(pattern):
            findings.add(
                Place(file=source), "include_files", "there is no such file",
                "correct the name; it is relative to this file", value=pattern,
            )  # fmt: skip
        files.update(dict.fromkeys(Path(name) for name in found))
    return [file for file in files if file != source]


def read_table(cls: type[T], raw: Raw, place: Place, findings: Findings) -> Decoded[T]:
    """`raw` as a `cls`: unknown keys and wrong types are noted, and defaults take their place."""
    known = {info.encode_name: info for info in fields(cls)}
    good: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            findings.add(place, key, *_unknown(key, cls, known))
            continue
        try:
            good[key] = msgspec.convert(value, known[key].type)
        except msgspec.ValidationError as error:
            message = _plain(str(error))
            findings.add(place, key, message, _example(known[key]), value=_shown(key, value))
    return Decoded(place=place, table=cls(**good), given=frozenset(good))


def _plain(error: str) -> str:
    """Msgspec's "Expected `str`, got `int` - at `$[1]`" in the words of a settings file."""
    found = re.match(r"Expected `([^`]*)`, got `([^`]*)`(?: - at `\$\[(\d+)\])?", error)
    if found is None:
        return error
    wanted = [_TYPE_WORDS.get(word, word) for word in found[1].split(" | ") if word != "null"]
    entry = f"entry {int(found[3]) + 1} " if found[3] else ""
    return f"{entry}should be {' or '.join(wanted)}, not {_TYPE_WORDS.get(found[2], found[2])}"


def _shown(key: str, value: object) -> object:
    # A password in the place of its file's name must not reach a terminal.
    return None if key == "password_file" or isinstance(value, dict | list) else value


def _unknown(key: str, cls: type, known: Mapping[str, object]) -> tuple[str, str]:
    if cls is IncludedFile and key in MainFile.__struct_fields__:
        return "stands in an included file", "move it to the main file"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return "is no known key", f'did you mean "{near[0]}"?'
    return "is no known key", f"known here: {', '.join(known)}"


def _example(info: FieldInfo) -> str:
    for meta in getattr(info.type, "__metadata__", ()):
        for example in getattr(meta, "examples", None) or ():
            return f"write it like: {info.encode_name} = {toml_text(example)}"
    tables = {"tree": "[tree] or [[tree]]", "node": "[[node]]", "callback": "[[callback]]"}
    return f"write it as a table: {tables.get(info.encode_name, f'[{info.encode_name}]')}"
