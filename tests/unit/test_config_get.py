"""`config get`: resolved values under the keys of the file; and the warnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardsync.config.advice import warnings
from shardsync.config.lookup import get, text
from shardsync.config.settings import Settings
from shardsync.errors import UsageError
from tests.support.settings_files import load, load_text

MORE = '[sync]\ndelay = "90s"\nmax_delay = "1h"\nmax_delete = "7.5%"\nbatch_bytes = "1536KiB"\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(tmp_path, MORE)


@pytest.mark.parametrize(
    ("key", "printed"),
    [
        ("sync.delay", "90s"),
        ("sync.max_delay", "1h"),
        ("sync.max_delete", "7.5%"),
        ("sync.batch_bytes", "1536KiB"),
        ("sync.batch_paths", "10000"),
        ("sync.big_file_bytes", "64MiB"),
        ("state.retention", "7d"),
        ("shards.count", "auto"),
        ("metrics.listen", "127.0.0.1:9750"),
        ("tree.default_excludes", "true"),
        ("tree.exclude", '[".*.sw[a-p]", "*~", ".#*", "#*#"]'),
        ("node.web1.exclude", '[".*.sw[a-p]", "*~", ".#*", "#*#"]'),
        ("node.main/web1.paused", "false"),
    ],
)
def test_values_print_as_the_file_has_them(settings: Settings, key: str, printed: str) -> None:
    """Resolved, defaults included, in the file's own spelling."""
    assert text(get(settings, key)) == printed


def test_paths_and_targets(settings: Settings, tmp_path: Path) -> None:
    """Texts print bare, for use in scripts."""
    assert text(get(settings, "tree.root")) == f"{tmp_path}/tree"
    assert text(get(settings, "tree.main.root")) == f"{tmp_path}/tree"
    assert text(get(settings, "node.web1.target")) == f"{tmp_path}/node1"
    assert text(get(settings, "state.dir")) == f"{tmp_path}/state"


def test_a_table_prints_a_line_each(settings: Settings) -> None:
    """Without its last part a key names a table."""
    assert text(get(settings, "shards")) == 'count = "auto"'


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    """The files it includes, and the defaults of its Nodes, without what outer tables add."""
    (tmp_path / "more.toml").write_text("")
    settings = load_text(
        tmp_path,
        f'include_files = ["more.toml"]\n[tree]\nroot = "{tmp_path}/tree"\n'
        f'[state]\ndir = "{tmp_path}/state"\n[sync]\nrsync_options = ["--acls"]\n'
        '[node_defaults]\nexclude = ["*.psd"]\nbandwidth = "5MiB"\naudit_every = "36h"\n',
    )
    assert text(get(settings, "include_files")) == '["more.toml"]'
    found = get(settings, "node_defaults")
    assert isinstance(found, dict)
    assert {key: found[key] for key in ("exclude", "rsync_options", "bandwidth", "delete")} == {
        "exclude": ["*.psd"],
        "rsync_options": [],
        "bandwidth": "5MiB",
        "delete": True,
    }
    assert text(get(settings, "node_defaults.audit_every")) == "36h"


def test_an_unknown_key_names_the_near_ones(settings: Settings) -> None:
    """A typing error is answered with what was meant."""
    with pytest.raises(UsageError, match=r"sync\.dealy: there is no such setting") as refused:
        get(settings, "sync.dealy")
    assert refused.value.remedy.startswith("did you mean sync.delay")
    assert refused.value.exit_code == 2
    with pytest.raises(UsageError) as refused:
        get(settings, "")
    assert refused.value.remedy == "docs/settings.md lists all keys"


def test_same_names_in_two_trees_are_told_apart(tmp_path: Path) -> None:
    """`TREE/NAME` is always clear; the name alone only where one Tree has it."""
    (tmp_path / "two").mkdir()
    settings = load_text(
        tmp_path,
        (
            '[[tree]]\nname = "one"\nroot = "$/tree"\n[[tree]]\nname = "two"\nroot = "$/two"\n'
            '[state]\ndir = "$/state"\n'
            '[[node]]\nname = "a"\ntree = "one"\ntarget = "h:/1"\n'
            '[[node]]\nname = "a"\ntree = "two"\ntarget = "h:/2"\n'
            '[[node]]\nname = "b"\ntree = "two"\ntarget = "h:/3"\n'
        ).replace("$", str(tmp_path)),
    )
    assert get(settings, "node.two/a.target") == "h:/2"
    assert get(settings, "node.b.target") == "h:/3"
    with pytest.raises(UsageError):
        get(settings, "node.a.target")
    with pytest.raises(UsageError):
        get(settings, "tree.root")


def test_warnings_say_what_is_accepted_and_yet_worth_a_word(tmp_path: Path) -> None:
    """Nothing of this stops the start."""
    settings = load(
        tmp_path,
        '[metrics]\nlisten = "0.0.0.0:9750"\n[[callback]]\nname = "c"\ncommand = ["x"]\n',
        tree='root = "$/tree"\nexclude = ["- x"]',
        node='name = "a"\ntarget = "$/no/parent"\norder = "safe"\nssh_options = ["-4"]',
    )
    assert [(problem.key, problem.message) for problem in warnings(settings)] == [
        ("callback.c", "is accepted, but not acted on by this version"),
        ("node.a.ssh_options", "is not used: the target is not reached by ssh"),
        ("metrics.listen", "other machines can read the metrics, without encryption"),
        ("node.a.target", f"the Node cannot be made until {tmp_path}/no exists"),
        ("tree.main.exclude", "is a pattern, not one of rsync's filter rules"),
    ]


def test_a_tree_without_nodes_is_a_warning(tmp_path: Path) -> None:
    """It is watched and journaled all the same."""
    text_ = f'[tree]\nroot = "{tmp_path}/tree"\n[state]\ndir = "{tmp_path}/state"\n'
    assert [problem.message for problem in warnings(load_text(tmp_path, text_))] == [
        "the Tree main has no Nodes: it is watched, not sent"
    ]


def test_plain_settings_give_no_warning(settings: Settings) -> None:
    """Silence means that all is well."""
    assert warnings(settings) == []
