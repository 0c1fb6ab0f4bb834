"""What the settings may say: the whole contract, found, merged and resolved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardsync.config.load import (
    default_state_dir,
    find_state_dir,
    load_settings,
    user_state_dir,
)
from shardsync.config.problems import SettingsInvalid
from shardsync.config.settings import (
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
from tests.support.settings_files import load, load_text, write_settings

WHOLE = """
include_files = ["shardsync.d/*.toml"]
[tree]
name = "site"
root = "$/tree"
exclude = ["*.tmp"]
include = ["keep.tmp"]
marker = "/.mounted"
max_open = "1m30s"
default_excludes = false
[state]
dir = "$/state/"
retention = "2h"
journal_max = "1GiB"
[shards]
count = 4
[sync]
delay = "250ms"
max_delay = "5m"
batch_paths = 500
batch_bytes = "1MiB"
big_file_bytes = "2GiB"
max_rsyncs = 2
max_delete = 2000
rsync_options = ["-z"]
[metrics]
listen = "[::1]:9751"
[node_defaults]
exclude = ["*.psd"]
rsync_options = ["--numeric-ids"]
delete = false
ssh_options = ["-i", "/key"]
subtree = "news"
[[node]]
name = "web1"
tree = "site"
target = "www@web1:/var//www/html/"
subtree = "/news/sport/"
exclude = ["/news/draft/"]
delete = true
bandwidth = "5MiB/s"
order = "safe"
order_first = ["/img/"]
rsync_options = ["--chown=www:www"]
ssh_options = ["-p", "2222"]
run_as = "root"
paused = true
warm = false
[[node]]
name = "web2"
target = "rsync://u@web2:8730/site/html"
password_file = "$/password"
[[callback]]
name = "purge"
tree = "site"
command = ["/bin/purge", "-v"]
match = ["*.html"]
after = "journal"
"""


@pytest.mark.root
def test_the_whole_contract_is_understood(tmp_path: Path) -> None:
    """Every key of every table arrives resolved; outer lists come before inner ones."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    settings = load_text(tmp_path, WHOLE.replace("$", str(tmp_path)))
    assert settings == Settings(
        source=tmp_path / "shardsync.toml",
        state_dir=tmp_path / "state",
        trees=(
            TreeSettings(
                name="site",
                root=tmp_path / "tree",
                exclude=("*.tmp",),
                include=("keep.tmp",),
                marker=".mounted",
                max_open_seconds=90.0,
                default_excludes=False,
            ),
        ),
        nodes=(
            NodeSettings(
                name="web1",
                tree="site",
                target=Target(kind=TargetKind.SSH, path="/var/www/html", host="web1", user="www"),
                subtree="news/sport",
                exclude=("*.tmp", "*.psd", "/news/draft/"),
                include=("keep.tmp",),
                delete=True,
                bandwidth="5MiB",
                order="safe",
                order_first=("/img/",),
                rsync_options=("-z", "--numeric-ids", "--chown=www:www"),
                ssh_options=("-p", "2222"),
                run_as="root",
                paused=True,
                warm=False,
            ),
            NodeSettings(
                name="web2",
                tree="site",
                target=Target(
                    kind=TargetKind.DAEMON, path="site/html", host="web2", user="u", port=8730
                ),
                subtree="news",
                exclude=("*.tmp", "*.psd"),
                include=("keep.tmp",),
                delete=False,
                rsync_options=("-z", "--numeric-ids"),
                password_file=password,
                ssh_options=("-i", "/key"),
            ),
        ),
        callbacks=(
            CallbackSettings(
                name="purge",
                tree="site",
                command=("/bin/purge", "-v"),
                match=("*.html",),
                after=CallbackAfter.JOURNAL,
            ),
        ),
        retention_seconds=7200.0,
        journal_max_bytes=1024**3,
        shard_count=4,
        sync=SyncSettings(
            delay_seconds=0.25,
            max_delay_seconds=300.0,
            batch_paths=500,
            batch_bytes=1024**2,
            big_file_bytes=2 * 1024**3,
            max_rsyncs=2,
            max_delete=DeleteLimit(entries=2000, share=None),
            rsync_options=("-z",),
        ),
        metrics_listen=("::1", 9751),
        include_files=("shardsync.d/*.toml",),
        node_defaults=NodeSettings(
            name="",
            tree="",
            target=Target(kind=TargetKind.LOCAL, path=""),
            subtree="news",
            exclude=("*.psd",),
            delete=False,
            rsync_options=("--numeric-ids",),
            ssh_options=("-i", "/key"),
        ),
    )


def test_three_lines_are_enough(tmp_path: Path) -> None:
    """A root and a target: all else has a default."""
    settings = load(tmp_path)
    assert settings.trees[0].exclude == (".*.sw[a-p]", "*~", ".#*", "#*#")
    assert settings.nodes[0].exclude == (".*.sw[a-p]", "*~", ".#*", "#*#")
    assert settings.nodes[0].target == Target(kind=TargetKind.LOCAL, path=f"{tmp_path}/node1")
    assert (settings.retention_seconds, settings.shard_count) == (604800.0, None)
    assert settings.sync == SyncSettings()
    assert settings.metrics_listen == ("127.0.0.1", 9750)
    assert settings.called(settings.nodes[0]) == "web1"


def test_only_and_defaults_of_a_node(tmp_path: Path) -> None:
    """A Node's own `only` replaces that of node_defaults; lists that add up are said to."""
    more = '[node_defaults]\nonly = ["/a/"]\n[[node]]\nname = "b"\ntarget = "b:/x"'
    settings = load(tmp_path, more, node='name = "a"\ntarget = "a:/x"\nonly = ["*.html"]')
    assert [node.only for node in settings.nodes] == [("*.html",), ("/a/",)]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ('"50%"', DeleteLimit(entries=None, share=0.5, floor=10_000)),
        ('"2.5 %"', DeleteLimit(entries=None, share=0.025, floor=10_000)),
        ("0", DeleteLimit(entries=0, share=None)),
    ],
)
def test_max_delete_is_a_number_or_a_share(tmp_path: Path, text: str, limit: DeleteLimit) -> None:
    """A share keeps its floor; 0 halts at each deletion."""
    assert load(tmp_path, f"[sync]\nmax_delete = {text}").sync.max_delete == limit


def test_metrics_can_be_off(tmp_path: Path) -> None:
    """An empty address opens no port."""
    assert load(tmp_path, '[metrics]\nlisten = ""').metrics_listen is None


def test_included_files_add_trees_nodes_and_callbacks(tmp_path: Path) -> None:
    """Patterns are relative to the file that names them; files are read in order of name."""
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (tmp_path / "two").mkdir()
    (folder / "b.toml").write_text('[[node]]\nname = "b"\ntree = "two"\ntarget = "b:/x"\n')
    (folder / "a.toml").write_text(
        f'[tree]\nname = "two"\nroot = "{tmp_path}/two"\n'
        '[[node]]\nname = "a"\ntree = "main"\ntarget = "a:/x"\n'
    )
    text = (
        f'include_files = ["conf.d/*.toml", "none.d/*.toml"]\n[[tree]]\nname = "main"\n'
        f'root = "{tmp_path}/tree"\n[state]\ndir = "{tmp_path}/state"\n'
    )
    settings = load_text(tmp_path, text)
    assert [tree.name for tree in settings.trees] == ["main", "two"]
    assert [node.key for node in settings.nodes] == [("main", "a"), ("two", "b")]
    assert settings.called(settings.nodes[1]) == "two/b"


def test_problems_in_included_files_name_that_file(tmp_path: Path) -> None:
    """Who reads the message opens the right file; what belongs to the main file is sent there."""
    (tmp_path / "more.toml").write_text('[[node]]\nname = "a"\n[sync]\ndelay = "1s"\n')
    text = (
        f'include_files = ["more.toml", "gone.toml"]\n[tree]\nroot = "{tmp_path}/tree"\n'
        f'[state]\ndir = "{tmp_path}/state"\n'
    )
    with pytest.raises(SettingsInvalid) as refused:
        load_text(tmp_path, text)
    found = [
        (problem.file.name, problem.key, problem.message) for problem in refused.value.problems
    ]
    assert found == [
        ("shardsync.toml", "include_files", "there is no such file"),
        ("more.toml", "sync", "stands in an included file"),
        ("more.toml", "node.a.target", "is missing"),
    ]


def test_the_file_is_named_or_found(tmp_path: Path) -> None:
    """--config wins over $SHARDSYNC_CONFIG, which wins over ./shardsync.toml."""
    good = write_settings(
        tmp_path,
        f'[tree]\nroot = "{tmp_path}/tree"\n[state]\ndir = "{tmp_path}/state"\n',
    )
    other = tmp_path / "other.toml"
    other.write_text(good.read_text())
    env = {"SHARDSYNC_CONFIG": "other.toml"}
    assert load_settings(None, {}, tmp_path).source == good
    assert load_settings(None, env, tmp_path).source == other
    assert load_settings(Path("shardsync.toml"), env, tmp_path).source == good


def test_a_missing_file_is_one_clear_problem(tmp_path: Path) -> None:
    """Whether it was named or looked for."""
    with pytest.raises(SettingsInvalid, match=r"none\.toml: there is no such file\n"):
        load_settings(Path("none.toml"), {}, tmp_path)
    with pytest.raises(SettingsInvalid, match=r"no settings file: tried \$SHARDSYNC_CONFIG, /"):
        load_settings(None, {}, tmp_path)


def test_a_root_need_not_exist_where_that_is_said(tmp_path: Path) -> None:
    """`root_must_exist=False` is for daemons that outlive their root."""
    file = write_settings(
        tmp_path, f'[tree]\nroot = "{tmp_path}/gone"\n[state]\ndir = "{tmp_path}/state"\n'
    )
    settings = load_settings(file, {}, tmp_path, root_must_exist=False)
    assert settings.trees[0].root == tmp_path / "gone"


@pytest.mark.parametrize(
    "text",
    [
        '[state]\ndir = "/srv/state"\n',
        '[state]\nretention = 7\ndir = "/srv/state"\nbogus = 1\n[tree]\nroot = 3\n',
        'state.dir = "/srv/state"\n',
        'state = {dir = "/srv/state"}\n',
        '[tree]\nroot = nonsense\n[state] # where\ndir = "/srv/state" # here\n',
        'root = = 1\nstate.dir = "/srv/state"\n',
    ],
)
def test_the_state_directory_is_found_in_a_wrong_file(tmp_path: Path, text: str) -> None:
    """Status, trace and down need nothing else of the settings."""
    file = write_settings(tmp_path, text)
    assert find_state_dir(file, {}, tmp_path) == Path("/srv/state")


@pytest.mark.parametrize("text", ["", "[state]\ndir = 3\n", "[tree\n", '[state]\ndir = "x"\n'])
def test_without_a_state_directory_there_is_the_usual_one(tmp_path: Path, text: str) -> None:
    """A file that says nothing usable means the default, as a missing file does."""
    env = {"HOME": "/home/u"}
    file = write_settings(tmp_path, text)
    assert find_state_dir(file, env, tmp_path) == default_state_dir(env)
    assert find_state_dir(tmp_path / "gone.toml", env, tmp_path) == default_state_dir(env)


def test_the_usual_state_directory() -> None:
    """The system's for root, the XDG state folder for others."""
    root = Path("/var/lib/shardsync")
    user = Path("/home/u/.local/state/shardsync")
    assert default_state_dir({"HOME": "/home/u"}) == (root if os.geteuid() == 0 else user)
    assert user_state_dir({"HOME": "/home/u"}) == user
    assert user_state_dir({"XDG_STATE_HOME": "/s"}) == Path("/s/shardsync")
    assert user_state_dir({"XDG_STATE_HOME": "rel", "HOME": "/home/u"}) == user
