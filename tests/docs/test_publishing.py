"""docs/publishing.md: its settings load, and its lists are those of the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from shardsync.config.patterns import first_filter
from shardsync.config.settings import DEFAULT_ORDER_FIRST
from shardsync.model import Kind, Scope
from tests.support.nodes import local_node
from tests.support.settings_files import load
from tests.support.sync import Instance, run, running

TEXT = (Path(__file__).parents[2] / "docs/publishing.md").read_text(encoding="utf-8")


def test_the_endings_are_those_of_the_code() -> None:
    """The table names each once."""
    table = TEXT.split("| --- | --- |\n", 1)[1].split("\n\n", 1)[0]
    assert tuple(f"*.{ending}" for ending in re.findall(r"`(\w+)`", table)) == DEFAULT_ORDER_FIRST


def test_a_release_made_beside_the_live_one_costs_no_data(tmp_path: Path) -> None:
    """The command as written: the Node's files are the same inodes afterwards."""
    (command,) = re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    instance = Instance(tmp_path)
    made = instance.tree / "site" / "next"
    made.mkdir(parents=True)
    for number in range(300):
        (made / f"{number}.html").write_text(f"{number}")
    node = tmp_path / "node"
    instance.nodes = [local_node(node)]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            before = (node / "site/next/7.html").stat().st_ino
            subprocess.run(  # noqa: ASYNC221 (nothing else runs here)
                ["sh", "-ec", command], cwd=instance.tree, check=True, timeout=30
            )
            now = instance.clock.wall_us()
            instance.journals[0].commit(
                [
                    (b"site/next", Scope.TREE, Kind.CONTENT, now, None),
                    (b"site/live", Scope.TREE, Kind.CONTENT, now, b"site/next"),
                ]
            )
            await sync.followed()
            assert (node / "site/live/7.html").stat().st_ino == before

    run(work)


def test_its_settings_load(tmp_path: Path) -> None:
    """As written, but for the target; and they mean what the page says."""
    node, defaults = re.findall(r"^```toml\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    body = node.partition("[[node]]\n")[2].replace("/srv/web1", f"{tmp_path}/web1")
    plain = first_filter(load(tmp_path, node=body).nodes[0])
    assert plain is not None
    assert not plain.excludes(b"a/b.css", is_dir=False)
    assert plain.excludes(b"a/b.html", is_dir=False)
    own = first_filter(load(tmp_path, defaults, node=body).nodes[0])
    assert own is not None
    assert not own.excludes(b"a/b.JPG", is_dir=False)
    assert not own.excludes(b"downloads/x/y.zip", is_dir=False)
    assert own.excludes(b"a/b.png", is_dir=False)
