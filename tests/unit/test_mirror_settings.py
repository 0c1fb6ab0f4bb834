"""`mirror SRC TARGET...` as a settings file: names, places, and no text that means another."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from shardsync.cli.mirror_settings import (
    absolute_target,
    mirror_state,
    node_names,
    settings_text,
)
from shardsync.errors import UsageError


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (["web1:/srv", "deploy@web2:/srv"], ["web1", "web2"]),
        (["rsync://u@cdn.example.org:8730/site"], ["cdn.example.org"]),
        (["/backup/html", "/other/html"], ["html", "html-2"]),
        (["rsync://[2001:db8::1]/m", "[2001:db8::1]:/srv"], ["2001-db8-1", "2001-db8-1-2"]),
        (["/srv/a b!c"], ["a-b-c"]),
        (["/"], ["node"]),
    ],
)
def test_nodes_are_named_after_host_or_folder(targets: list[str], names: list[str]) -> None:
    """Names are short, fit as names, and differ."""
    assert node_names(targets) == names


@pytest.mark.parametrize(
    ("target", "absolute"),
    [
        ("copy", "/here/copy"),
        ("../copy", "/copy"),
        ("./a:b", "/here/a:b"),
        ("web1:/srv", "web1:/srv"),
        ("rsync://web1/m", "rsync://web1/m"),
        ("/abs", "/abs"),
        ("-x", "-x"),
    ],
)
def test_a_relative_folder_means_from_here(target: str, absolute: str) -> None:
    """Only plain folders are made absolute; what is refused later stays as typed."""
    assert absolute_target(target, Path("/here")) == absolute


def test_an_empty_target_is_refused() -> None:
    """`mirror SRC "$UNSET"` never fills the folder that a script happens to run in."""
    with pytest.raises(UsageError):
        absolute_target("", Path("/here"))


def test_the_file_says_what_was_typed() -> None:
    """Quotes, backslashes and brackets in names stay text."""
    text = settings_text(
        Path('/src/"a"\\b'),
        Path("/state"),
        ['/t/x"]\\', "rsync://web1/m"],
        excludes=["*.tmp", '"'],
        password_file=Path("/pw"),
    )
    assert tomllib.loads(text) == {
        "tree": {"root": '/src/"a"\\b', "exclude": ["*.tmp", '"']},
        "state": {"dir": "/state"},
        "metrics": {"listen": ""},
        "node": [
            {"name": "x", "target": '/t/x"]\\'},
            {"name": "web1", "target": "rsync://web1/m", "password_file": "/pw"},
        ],
    }


@pytest.mark.parametrize("source", ["/src/a\nb", "/src/\x7f", "/src/\udcff"])
def test_what_toml_cannot_hold_is_refused(source: str) -> None:
    """A line break in a name never becomes a line of settings."""
    with pytest.raises(UsageError):
        settings_text(Path(source), Path("/state"), ["/t"])


def test_the_state_lies_where_a_socket_fits() -> None:
    """One place per SRC; a home with a long path is passed over for a shorter one."""
    short = Path("/var/tmp/shardsync-0")
    first = mirror_state((Path("/home/u/state"), short), Path("/src"))
    assert first == Path("/home/u/state/mirror-56c9e1c4b536")
    assert first != mirror_state((Path("/home/u/state"), short), Path("/src2"))
    long = Path("/home") / ("u" * 80)
    assert mirror_state((long, short), Path("/src")).parent == short
