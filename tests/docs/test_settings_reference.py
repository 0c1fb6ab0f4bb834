"""docs/settings.md and etc/shardsync.toml say what the code takes, no more and no less."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import fields

from shardsync.config import schema
from shardsync.config.advice import warnings
from shardsync.config.load import load_settings
from shardsync.config.lookup import every
from shardsync.config.options import ALLOWED, ALLOWED_LETTERS
from shardsync.config.settings import SyncSettings
from tests.support.settings_files import load
from tests.support.settings_reference import SECTIONS, example, table, top_level

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
SAMPLE = (ROOT / "etc/shardsync.toml").read_text(encoding="utf-8")


def section(heading: str) -> list[str]:
    """The table lines under one heading."""
    body = REFERENCE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [line for line in body.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("heading", SECTIONS)
def test_each_table_is_documented(heading: str) -> None:
    """Keys, types, defaults, meanings and examples are those of the code."""
    assert section(heading) == table(heading)


def test_the_keys_above_all_tables_are_documented() -> None:
    """include_files."""
    assert section("The file") == top_level()


def test_no_table_is_documented_that_does_not_exist() -> None:
    """A heading with a bracket is a table of the settings."""
    headings = re.findall(r"^## (\[.*)$", REFERENCE, re.MULTILINE)
    assert headings == list(SECTIONS)


@pytest.mark.parametrize("heading", SECTIONS)
def test_each_example_is_accepted(heading: str) -> None:
    """What the reference shows can be copied."""
    for info in fields(SECTIONS[heading]):
        assert msgspec.convert(example(info), info.type) == example(info)


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", REFERENCE, re.DOTALL))
def test_each_toml_block_is_toml_of_ours(block: str) -> None:
    """The longer examples hold known tables and keys."""
    for name, value in tomllib.loads(block).items():
        assert name in schema.MainFile.__struct_fields__
        for row in value if isinstance(value, list) else [value]:
            if isinstance(row, dict):
                word = name.removesuffix("_defaults")
                heading = next(known for known in SECTIONS if known.strip("[]") == word)
                assert set(row) <= set(SECTIONS[heading].__struct_fields__)


def test_the_allowed_options_are_listed() -> None:
    """Every option that may be added stands in the reference, and no other."""
    line = REFERENCE.split("<!-- options -->\n", 1)[1].split("\n\n", 1)[0]
    listed = set(re.findall(r"`(--?[^`]+)`", line))
    letters = {f"-{letter}" for letter in ALLOWED_LETTERS}
    assert listed == {f"--{name}" for name in ALLOWED} | letters | {"--remote-option", "-M"}


def test_every_setting_can_be_asked_for(tmp_path: Path) -> None:
    """`config get` knows each key of the reference."""
    settings = load(tmp_path, '[[callback]]\nname = "c"\ncommand = ["x"]')
    names = {"tree": "tree", "node": "node.web1", "callback": "callback.c"}
    known = every(settings)
    for heading, cls in SECTIONS.items():
        word = heading.strip("[]")
        for key in cls.__struct_fields__:
            assert f"{names.get(word, word)}.{key}" in known
    assert "include_files" in known
    for key in {*SECTIONS["[[node]]"].__struct_fields__} - {"name", "target"}:
        assert f"node_defaults.{key}" in known


def test_the_sample_is_accepted_as_it_stands(tmp_path: Path) -> None:
    """Copied, with a root that exists; its values are the defaults."""
    (tmp_path / "html").mkdir()
    text = SAMPLE.replace("/var/www", str(tmp_path)).replace("/var/lib", str(tmp_path))
    file = tmp_path / "shardsync.toml"
    file.write_text(text)
    settings = load_settings(file, {}, tmp_path)
    assert settings.sync == SyncSettings()
    assert [node.name for node in settings.nodes] == ["copy"]
    assert warnings(settings) == []


def test_what_the_sample_comments_out_is_the_default(tmp_path: Path) -> None:
    """A key that is uncommented unchanged changes nothing."""
    (tmp_path / "html").mkdir()
    plain = SAMPLE.replace("/var/www", str(tmp_path)).replace("/var/lib", str(tmp_path))
    bare = re.sub(
        r"^# ([a-z_]+ = )", r"\1", plain.split("# A folder on", maxsplit=1)[0], flags=re.MULTILINE
    )
    found = []
    for name, text in (("plain", plain.split("# A folder on", maxsplit=1)[0]), ("bare", bare)):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "shardsync.toml"
        file.write_text(text)
        found.append(every(load_settings(file, {}, tmp_path)))
    assert "batch_paths = 10000" in bare
    assert "# batch_paths" not in bare
    assert found[0] == found[1]


def test_the_sample_names_every_key() -> None:
    """Of the tables that it shows; Nodes and Callbacks are for the reference."""
    for heading in ("[tree]", "[state]", "[shards]", "[sync]", "[metrics]"):
        for key in SECTIONS[heading].__struct_fields__:
            if (heading, key) != ("[tree]", "name"):
                assert re.search(rf"^(# )?{key} = ", SAMPLE, re.MULTILINE), key
