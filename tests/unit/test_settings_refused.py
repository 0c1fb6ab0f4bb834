"""Every refusal of the settings: what was written, which key it names, what it says to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardsync.config.load import load_settings
from shardsync.config.problems import Findings, Place, SettingsInvalid
from shardsync.config.resolve import Resolved
from shardsync.config.settings import NodeSettings
from shardsync.config.validate import Machine, validate
from tests.support.settings_files import (
    load,
    load_text,
    problems,
    refusals,
    settings_text,
    write_settings,
)

NODE2 = '[[node]]\nname = "web2"\n'
APART = "they must lie apart: name another folder"
ELSEWHERE = "the Journals must not be mirrored: name a folder elsewhere, on a local disk"
ONE_PLACE = "two Nodes must not write to one place: name another folder"
DURATION = 'write it like "10s", "5m", "2h", "7d"'
SIZE = 'write it like "512KiB", "64MiB", "2GiB"'
SHARE = 'write a number of entries (2000), or a share from "1%" to "100%"'
LISTEN = 'write "127.0.0.1:9750", "[::1]:9750", or "" for none'
NAME = "use letters, digits, . _ and -, at most 64"
NO_NAME = ("does not fit as a name", NAME)

# (what stands in the file, the key it is about, what is wrong with it, what to do)
VALUES = [
    ("[state]\nretention = 7", "state.retention", "should be a text in quotes, not a number",
     'write it like: retention = "14d"'),
    ('[state]\nretention = "7"', "state.retention", "is not a duration", DURATION),
    ('[state]\nretention = "0s"', "state.retention", "is out of range",
     "write at least 1.0s, at most 3660d00h"),
    ('[state]\njournal_max = "2 gigs"', "state.journal_max", "is not a size", SIZE),
    ('[state]\njournal_max = "1KiB"', "state.journal_max", "is out of range",
     "write at least 1.0 MiB"),
    ('[state]\ndir = "var/state"', "state.dir", "is not a full path",
     'write it from the root: "/full/path/var/state"'),
    ('[state]\ndir = "/var/../state"', "state.dir", 'climbs with ".."', 'write "/state"'),
    ('[state]\ndir = ""', "state.dir", "is empty", 'write a full path: "/..."'),
    ('[shards]\ncount = "many"', "shards.count", "is neither a number nor auto",
     'write count = "auto" or count = 4'),
    ("[shards]\ncount = 0", "shards.count", "is out of range", "write a number from 1 to 256"),
    ("[shards]\ncount = true", "shards.count",
     "should be a number or a text in quotes, not true or false", "write it like: count = 4"),
    ('[sync]\ndelay = "-1s"', "sync.delay", "is not a duration", DURATION),
    ('[sync]\ndelay = "2m"', "sync.max_delay", "is shorter than delay = 2m",
     "write a longer max_delay, or a shorter delay"),
    ("[sync]\nbatch_paths = 0", "sync.batch_paths", "is out of range",
     "write a number from 1 to 1000000"),
    ('[sync]\nbig_file_bytes = "1KiB"', "sync.big_file_bytes", "is out of range",
     "write at least 1.0 MiB"),
    ('[sync]\nbatch_bytes = "1"', "sync.batch_bytes", "is out of range", "write at least 1.0 KiB"),
    ("[sync]\nmax_rsyncs = 1000", "sync.max_rsyncs", "is out of range",
     "write a number from 1 to 256"),
    ('[sync]\nmax_delete = "150%"', "sync.max_delete", "is out of range", SHARE),
    ('[sync]\nmax_delete = "half"', "sync.max_delete", "is neither a number nor a share", SHARE),
    ("[sync]\nmax_delete = -1", "sync.max_delete", "is out of range", SHARE),
    ('[sync]\nrsync_options = "-z"', "sync.rsync_options",
     "should be a list, not a text in quotes", 'write it like: rsync_options = ["--compress"]'),
    ('[sync]\nrsync_options = ["-z", 3]', "sync.rsync_options",
     "entry 2 should be a text in quotes, not a number",
     'write it like: rsync_options = ["--compress"]'),
    ('[metrics]\nlisten = "localhost"', "metrics.listen", "names no port", LISTEN),
    ('[metrics]\nlisten = ":9750"', "metrics.listen", "names no address",
     'for all addresses write "0.0.0.0:9750"'),
    ('[metrics]\nlisten = "127.0.0.1:99999"', "metrics.listen", "the port is out of range",
     "write a port from 1 to 65535"),
    ('[metrics]\nlisten = "not a host:1"', "metrics.listen", "is no address", LISTEN),
    ('[[callback]]\nname = "purge"', "callback.purge.command", "is empty",
     'write the program and its arguments: command = ["/usr/local/bin/purge"]'),
    ('[[callback]]\ncommand = ["x"]', "callback.#1.name", "is missing", 'write name = "purge"'),
    ('[[callback]]\nname = "p"\ncommand = ["x"]\nafter = "lunch"', "callback.p.after",
     "is not known", 'write after = "nodes" or after = "journal"'),
    ('[[callback]]\nname = "p"\ncommand = ["x"]\nmatch = ["[a"]', "callback.p.match",
     "can never match: its [ has no ]", "for the character itself write a \\ before it"),
    ('[node_defaults]\nname = "x"', "node_defaults.name", "cannot be the same for all Nodes",
     "write name in each [[node]]"),
    ('[node_defaults]\nbandwidth = "5"', "node_defaults.bandwidth",
     "has no unit: rsync would read KiB, people read bytes",
     'write bytes a second with a unit: "512KiB", "5MiB"'),
    ('[node_defaults]\nexclude = ["a//b"]', "node_defaults.exclude",
     'holds an empty name, "." or "..", which no path of the Tree does',
     'write "/a/b", from the Tree\'s root'),
    ('[node_defaults]\npassword_file = "hunter2"\n[[node]]\nname = "d"\ntarget = "rsync://h/m"',
     "node_defaults.password_file", "is not a full path",
     'write the password into a file of mode 0600 and its full path here: "/etc/..."'),
]  # fmt: skip


@pytest.mark.parametrize(("more", "key", "message", "remedy"), VALUES)
def test_a_bad_value_is_refused(
    tmp_path: Path, more: str, key: str, message: str, remedy: str
) -> None:
    """The one Problem names the key, says what is wrong and what to write."""
    parts = {"state": more.removeprefix("[state]\n")} if more.startswith("[state]") else {}
    found = problems(tmp_path, "" if parts else more, **parts)
    assert found == [(key, message, remedy)]


TREES = [
    ('root = "$/missing"', "tree.root", "does not exist",
     "create it, mount it, or correct the path"),
    ('root = "$/shardsync.toml"', "tree.root", "is no directory",
     "name the directory that holds the files"),
    ('root = "tree"', "tree.root", "is not a full path",
     'write it from the root: "/full/path/tree"'),
    ("", "tree.root", "is missing", 'write root = "/var/www/html"'),
    ('root = "$/tree"\nname = "a b"', "tree.name", *NO_NAME),
    ('root = "$/tree"\nname = "-a"', "tree.name", "begins with -",
     "begin it with a letter, a digit or _"),
    ('root = "$/tree"\nmarker = "../x"', "tree.marker", 'holds "." or ".."',
     'write the path from the Tree\'s root: "news/sport"'),
    ('root = "$/tree"\nmax_open = "0s"', "tree.max_open", "is out of range",
     "write at least 0.1s, at most 1d00h"),
    ('root = "$/tree"\nexclude = ["a[b"]', "tree.exclude", "can never match: its [ has no ]",
     "for the character itself write a \\ before it"),
    ('root = "$/tree"\nexclude = ["/"]', "tree.exclude", "is empty, it would match nothing",
     'write a pattern: "*.tmp", "/cache/"'),
    ('root = "$/tree"\ninclude = ["./a"]', "tree.include",
     'holds an empty name, "." or "..", which no path of the Tree does',
     'write "/a", from the Tree\'s root'),
    ('root = "$/tree"\nexcludes = ["a"]', "tree.excludes", "is no known key",
     'did you mean "exclude"?'),
    ('root = "$/tree"\nzzz = 1', "tree.zzz", "is no known key",
     "known here: name, root, exclude, include, marker, max_open, default_excludes"),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "key", "message", "remedy"), TREES)
def test_a_bad_tree_is_refused(
    tmp_path: Path, tree: str, key: str, message: str, remedy: str
) -> None:
    """The root is a directory that exists, named from /; patterns can match something."""
    assert problems(tmp_path, tree=tree) == [(key, message, remedy)]


STATES = [
    ('dir = "$/tree"', "is the Tree's root $/tree", ELSEWHERE),
    ('dir = "$/tree/s"', "lies inside the Tree's root $/tree", ELSEWHERE),
    ('dir = "$/link/s"', "lies inside the Tree's root $/tree", ELSEWHERE),
    ('dir = "$"', "holds the Tree's root $/tree", ELSEWHERE),
    ('dir = "$/f"', "is no directory", "name a directory, or remove the file"),
]


@pytest.mark.parametrize(("state", "message", "remedy"), STATES)
def test_a_state_directory_and_a_tree_lie_apart(
    tmp_path: Path, state: str, message: str, remedy: str
) -> None:
    """Neither inside the other, symlinks resolved: the Journals' own writes would be Changes."""
    (tmp_path / "link").symlink_to("tree")
    (tmp_path / "f").touch()
    found = problems(tmp_path, state=state, node='name = "a"\ntarget = "h:/x"')
    assert found == [("state.dir", message, remedy)]


def test_a_state_path_leaves_room_for_the_sockets_temporary_name(tmp_path: Path) -> None:
    """`DIR/supervisor.sock.PID` must fit into 107 bytes: 83 for DIR itself."""
    fits = "/" + "s" * 82
    assert problems(tmp_path, state=f'dir = "{fits}"') == []
    assert problems(tmp_path, state=f'dir = "{fits}s"') == [
        (
            "state.dir",
            "is 1 bytes too long for a unix socket in it (unix(7))",
            "name a folder with a shorter path",
        )
    ]


TARGETS = [
    ("$/tree", "is the Tree's root $/tree", APART),
    ("$/tree/node", "lies inside the Tree's root $/tree", APART),
    ("$/link/node", "lies inside the Tree's root $/tree", APART),
    ("/", "holds the Tree's root $/tree", APART),
    ("$/state/node", "lies inside the state directory $/state", APART),
    ("$/shardsync.toml", "is no directory", "name a directory"),
    ("-e", "rsync would take it for an option",
     'write "/path", "[user@]host:/path" or "rsync://[user@]host[:port]/module[/path]"'),
    ("web1:/www/*", "holds *, which the receiving side may expand to other names",
     "name one folder, without wildcards"),
    ("html", "a relative path means another folder for each process that reads it",
     'write "/full/path/html" for a folder here, "html:/path" for a host'),
    ("web1:html", "a path without a leading / lies below the home of whoever logs in",
     'write the full path: "web1:/full/path/html"'),
    ("rsync://web1/", "names no module", 'write "rsync://web1/MODULE"'),
]  # fmt: skip


@pytest.mark.parametrize(("target", "message", "remedy"), TARGETS)
def test_a_dangerous_target_is_refused(
    tmp_path: Path, target: str, message: str, remedy: str
) -> None:
    """A Node is a folder of its own, spelled so that no program reads it otherwise."""
    (tmp_path / "link").symlink_to("tree")
    found = problems(tmp_path, node=f'name = "web1"\ntarget = "{target}"')
    assert ("node.web1.target", message, remedy) in found


PAIRS = [
    ("$/node1", "$/node1", "is the target of node web1"),
    ("$/node1", "$/node1/sub", "lies inside the target of node web1"),
    ("$/node1/sub", "$/node1", "holds the target of node web1"),
    ("$/node1/", "$//node1", "is the target of node web1"),
    ("$/node1", "$/also", "is the target of node web1"),
    ("h:/x", "h:/x/", "is the target of node web1"),
    ("u@H:/x/y", "u@h:/x", "holds the target of node web1"),
    ("rsync://h/m", "rsync://h:873/m/x", "lies inside the target of node web1"),
]


@pytest.mark.parametrize(("one", "two", "message"), PAIRS)
def test_two_nodes_never_share_a_place(tmp_path: Path, one: str, two: str, message: str) -> None:
    """Neither the same target twice nor one inside the other, however it is spelled."""
    (tmp_path / "node1").mkdir()
    (tmp_path / "also").symlink_to("node1")
    found = problems(
        tmp_path,
        NODE2 + f'target = "{two}"'.replace("$", str(tmp_path)),
        node=f'name = "web1"\ntarget = "{one}"',
    )
    assert found == [("node.web2.target", message, ONE_PLACE)]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("h:/x", "h:/xy"),
        ("h:/x", "g:/x"),
        ("a@h:/x", "b@h:/x"),
        ("rsync://h/m", "rsync://h:874/m"),
        ("rsync://h/m/x", "h:/m/x"),
    ],
)
def test_different_places_are_accepted(tmp_path: Path, one: str, two: str) -> None:
    """Another host, user, port or folder is another place."""
    found = problems(
        tmp_path, NODE2 + f'target = "{two}"', node=f'name = "web1"\ntarget = "{one}"'
    )
    assert found == []


def test_ssh_options_tell_machines_behind_one_name_apart(tmp_path: Path) -> None:
    """Two ports of one address may be two machines."""
    more = NODE2 + 'target = "h:/x"\nssh_options = ["-p", "2201"]'
    assert problems(tmp_path, more, node='name = "web1"\ntarget = "h:/x"') == []


NODES = [
    ('name = "web 1"', "node.web 1.name", *NO_NAME),
    ('name = ""', "node..name", *NO_NAME),
    ("", "node.#1.name", "is missing", 'write name = "web1"'),
    ('name = "a"\nsubtree = "../x"', "node.a.subtree", 'holds "." or ".."',
     'write the path from the Tree\'s root: "news/sport"'),
    ('name = "a"\ntree = "x"', "node.a.tree", "there is no Tree of that name",
     "there are: main"),
    ('name = "a"\nrun_as = "no-such-user"', "node.a.run_as", "there is no such user here",
     "create it, or correct the name"),
    ('name = "a"\npassword_file = "/x"', "node.a.password_file",
     "only rsync daemons ask for a password", "leave it out; ssh takes keys: see ssh_options"),
    ('name = "a"\nssh_options = ["-n"]', "node.a.ssh_options",
     "-n: rsync speaks through ssh's standard input", "leave it out"),
    ('name = "a"\nonly = ["x/[[:what:]]"]', "node.a.only",
     "can never match: there is no class [:what:]",
     "for the character itself write a \\ before it"),
    ('name = "a"\nbandwith = "5MiB"', "node.a.bandwith", "is no known key",
     'did you mean "bandwidth"?'),
    ('name = "a"\norder = "assets-first"', "node.a.order", "is no order",
     'write "safe", or leave it out'),
    ('name = "a"\nbandwidth = "fast"', "node.a.bandwidth", "is not a rate",
     'write bytes a second with a unit: "512KiB", "5MiB"'),
    ('name = "a"\nrsync_options = ["--contimeout=3"]', "node.a.rsync_options",
     "--contimeout is for rsync daemons alone", "set it on the daemons' Nodes"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "key", "message", "remedy"), NODES)
def test_a_bad_node_is_refused(
    tmp_path: Path, node: str, key: str, message: str, remedy: str
) -> None:
    """The Problem names the Node."""
    found = problems(tmp_path, node=f'target = "$/node1"\n{node}')
    assert found == [(key, message, remedy)]


def test_names_are_given_once(tmp_path: Path) -> None:
    """Two Nodes of one Tree never share a name: Cursors and metrics are kept under it."""
    more = '[[node]]\nname = "web1"\ntarget = "h:/x"'
    assert problems(tmp_path, more) == [
        ("node.web1.name", "2 nodes have this name", "give each its own")
    ]


def test_several_trees_need_names_and_nodes_that_say_whose_they_are(tmp_path: Path) -> None:
    """What one Tree may leave out must be said where there are two."""
    (tmp_path / "two").mkdir()
    text = (
        '[[tree]]\nroot = "$/tree"\nname = "one"\n[[tree]]\nroot = "$/two"\n'
        '[state]\ndir = "$/state"\n[[node]]\nname = "a"\ntarget = "h:/x"\n'
    ).replace("$", str(tmp_path))
    assert refusals(tmp_path, text) == [
        ("tree.#2.name", "each of several Trees needs a name", 'write name = "docs"'),
        (
            "node.a.tree",
            "is missing, and there are several Trees",
            'write tree = "NAME"; there are: one, main',
        ),
    ]


def test_two_trees_never_have_one_root(tmp_path: Path) -> None:
    """One shardsync watches a root, once."""
    (tmp_path / "link").symlink_to("tree")
    text = (
        '[[tree]]\nroot = "$/tree"\nname = "one"\n[[tree]]\nroot = "$/link"\nname = "two"\n'
        '[state]\ndir = "$/state"\n'
    ).replace("$", str(tmp_path))
    assert refusals(tmp_path, text) == [
        (
            "tree.two.root",
            "is the root of the Tree one too",
            "make it one Tree, and give its Nodes a subtree or exclude",
        )
    ]


def test_a_file_without_a_tree_is_refused(tmp_path: Path) -> None:
    """There must be something to mirror."""
    assert refusals(tmp_path, "") == [
        ("tree", "there is no [tree]", 'write [tree] and below it: root = "/var/www/html"')
    ]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (0o600, []),
        (0o400, []),
        (
            0o640,
            [
                (
                    "node.d.password_file",
                    "others may read it: its mode is 0640",
                    "chmod 0600 $/secret",
                )
            ],
        ),
        (
            0o644,
            [
                (
                    "node.d.password_file",
                    "others may read it: its mode is 0644",
                    "chmod 0600 $/secret",
                )
            ],
        ),
    ],
)
def test_a_password_file_is_its_owners_alone(
    tmp_path: Path, mode: int, expected: list[tuple[str, str, str]]
) -> None:
    """Rsync refuses a password that others may read, and so does `check`."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    secret.chmod(mode)
    node = 'name = "d"\ntarget = "rsync://u@h/m"\npassword_file = "$/secret"'
    assert problems(tmp_path, node=node) == expected


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_a_password_file_belongs_to_who_runs_rsync(tmp_path: Path) -> None:
    """Rsync as root refuses another's file, and run_as could not read root's."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    node = 'name = "d"\ntarget = "rsync://u@h/m"\npassword_file = "$/secret"'
    assert problems(tmp_path, node=node + '\nrun_as = "daemon"') == [
        (
            "node.d.password_file",
            "belongs to user root, and rsync runs as daemon",
            "chown daemon $/secret",
        )
    ]
    os.chown(secret, 1, 1)
    assert problems(tmp_path, node=node + '\nrun_as = "daemon"') == []
    assert problems(tmp_path, node=node) == [
        (
            "node.d.password_file",
            "belongs to user daemon, and rsync runs as root",
            "chown root $/secret",
        )
    ]


def test_a_missing_password_file_is_refused(tmp_path: Path) -> None:
    """The reason is the system's own."""
    node = 'name = "d"\ntarget = "rsync://u@h/m"\npassword_file = "$/none"'
    assert problems(tmp_path, node=node) == [
        (
            "node.d.password_file",
            "cannot be read: No such file or directory",
            "create it with the password on its first line, mode 0600",
        )
    ]


def test_secrets_are_never_printed(tmp_path: Path) -> None:
    """A password written where it does not belong shows up in no message."""
    more = (
        '[[node]]\nname = "a"\ntarget = "rsync://u:hunter2@h/m"\n'
        '[[node]]\nname = "b"\ntarget = "u:hunter2@h:/x"\n'
        '[[node]]\nname = "c"\ntarget = "rsync://h/m"\npassword_file = "hunter2"\n'
        '[[node]]\nname = "d"\ntarget = "rsync://h/n"\npassword = "hunter2"\n'
        '[[node]]\nname = "e"\ntarget = "rsync://h/o"\npassword_file = ["hunter2"]\n'
    )
    with pytest.raises(SettingsInvalid) as refused:
        load(tmp_path, more)
    assert len(refused.value.problems) == 5
    assert "hunter2" not in str(refused.value)


def test_all_problems_come_at_once_and_each_with_its_file(tmp_path: Path) -> None:
    """One error lists everything, two lines each: where and what, then what to do."""
    text = settings_text(tmp_path, '[sync]\ndelay = "soon"\n', tree='root = "$/gone"')
    with pytest.raises(SettingsInvalid) as refused:
        load_text(tmp_path, text)
    assert refused.value.exit_code == 10
    assert str(refused.value) == (
        f'{tmp_path}/shardsync.toml: sync.delay = "soon": is not a duration\n'
        '    write it like "10s", "5m", "2h", "7d"\n'
        f'{tmp_path}/shardsync.toml: tree.root = "{tmp_path}/gone": does not exist\n'
        "    create it, mount it, or correct the path"
    )


def test_problems_print_no_terminal_sequences(tmp_path: Path) -> None:
    """A value with an escape sequence is printed harmless."""
    with pytest.raises(SettingsInvalid) as refused:
        load(tmp_path, node='name = "a"\ntarget = "\\u001b[31mx"')
    assert "\x1b" not in str(refused.value)


@pytest.mark.root
def test_run_as_needs_root(tmp_path: Path) -> None:
    """Only root can become another user; the own name is fine for everybody."""
    settings = load(tmp_path, node='name = "a"\ntarget = "h:/x"\nrun_as = "daemon"')
    node: NodeSettings = settings.nodes[0]
    place = Place(file=settings.source)
    resolved = Resolved(
        settings=settings, tree_places=(place,), node_places=(place,), state_place=place
    )
    findings = Findings()
    validate(resolved, findings, machine=Machine(effective_uid=4711), root_must_exist=True)
    assert node.run_as == "daemon"
    assert [problem.message for problem in findings.problems] == [
        "only root can run rsync as another user"
    ]


def test_a_root_that_was_there_once_may_be_missing(tmp_path: Path) -> None:
    """With a Plan in the state directory a lost root is the Watchers' to report."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state/plan.json").write_text("{}")
    assert problems(tmp_path, tree='root = "$/gone"') == []


def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path) -> None:
    """Syntax errors and stray bytes name the line."""
    assert refusals(tmp_path, "[tree]\nroot = /x\n") == [
        ("", "line 2, column 8: Invalid value", "correct the TOML: see https://toml.io")
    ]
    file = write_settings(tmp_path, "")
    file.write_bytes(b'[tree]\nroot = "\xff"\n')
    with pytest.raises(SettingsInvalid, match="line 2 is not UTF-8"):
        load_settings(file, {}, tmp_path)


def test_only_beside_include_is_refused(tmp_path: Path) -> None:
    """One rsync list cannot say both, and a Node must never get more than `only` names."""
    tree = 'root = "$/tree"\nexclude = ["*.tmp"]\ninclude = ["keep.tmp"]'
    node = 'name = "a"\ntarget = "h:/x"\nonly = ["*.html"]'
    assert problems(tmp_path, tree=tree, node=node) == [
        (
            "node.a.only",
            "rsync cannot join it with the Tree's include",
            "use exclude for the Node instead, or leave include empty",
        )
    ]
