"""docs/operations.md: its commands are run in order, on a real instance."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.config.load import load_settings
from shardsync.config.settings import NodeSettings
from shardsync.control.processes import end, find
from shardsync.layout import StateDirectory
from tests.support.compare import differences

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "docs/operations.md").read_text()
_SETTINGS = """
[tree]
root = "{folder}/site"
[state]
dir = "{folder}/state"
[shards]
count = 1
[metrics]
listen = ""
[[node]]
name = "web1"
target = "{folder}/web1"
[[node]]
name = "web2"
target = "{folder}/web2"
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A Tree, settings, and a state folder whose path leaves room for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="ss-") as name:
        made = Path(name)
        (made / "site/news").mkdir(parents=True)
        (made / "site/news/page.html").write_text("1")
        (made / "site/index.html").write_text("1")
        (made / "shardsync.toml").write_text(_SETTINGS.format(folder=made))
        yield made
        state = StateDirectory(path=made / "state")
        end(find(state), state)


@pytest.mark.timeout(300)
def test_its_commands_run_as_written(folder: Path) -> None:
    """Each block ends well, and at the end the Nodes hold the tree."""
    text = "shardsync up\nshardsync flush\n" + "".join(blocks("sh")) + "shardsync flush\n"
    path = f"{REPOSITORY}/.venv/bin:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text.replace("/var/www/html", f"{folder}/site")],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for node in ("web1", "web2"):
        assert differences(folder / "site", folder / node) == []


def test_its_settings_are_accepted(tmp_path: Path) -> None:
    """Each TOML block, in a file with a Tree."""
    nodes: list[NodeSettings] = []
    for number, block in enumerate(blocks("toml")):
        file = tmp_path / f"{number}.toml"
        head = f'[tree]\nroot = "{tmp_path}"\n[state]\ndir = "/tmp/ss-state"\n'
        file.write_text(head + block)
        nodes += load_settings(file, {}, tmp_path).nodes
    windows, audit = nodes
    assert [str(window) for window in windows.windows] == [
        "08:00-18:00 2MiB",
        "22:00-06:00 unlimited",
        "06:30-07:15 paused",
    ]
    assert audit.audit_every_seconds == 14 * 86400
    assert audit.audit_hours is not None
    assert audit.audit_hours.hours == "22:00-06:00"
    assert audit.audit_checksum
