"""Two levels, all programs real: a relay runs shardsync on what it receives from shardsync."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from shardsync.control.processes import find
from shardsync.journal.plan import read_plan
from shardsync.journal.reader import JournalReader
from tests.support.compare import differences
from tests.support.instances import Instance, eventually, instance
from tests.support.nodes import RsyncDaemon
from tests.support.sources import REPOSITORY

GUIDE = (REPOSITORY / "docs/scaling.md").read_text()
TEMPORARY = re.compile(rb"\.[^/]+\.[0-9A-Za-z]{6}")
KEPT = {b".htaccess.backup", b".config.prefix"}
"""Names of the same form that the tree has: a file that the settings name, and a directory."""
FILES = 250
"""Enough for a rename to be one by links on the relay."""


class Cascade:
    """`source` -> a daemon into the tree of `relay` -> a daemon into `far`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        for name in ("tree", "node", "far"):
            (folder / name).mkdir()
        self.far = folder / "far"
        self.entrance = stack.enter_context(RsyncDaemon(workspace=folder, path=folder / "node"))
        self.web = stack.enter_context(
            RsyncDaemon(
                workspace=folder,
                path=self.far,
                module_lines=("transfer logging = yes", "log format = got %n"),
            )
        )
        self.source = stack.enter_context(instance(folder, state="s"))
        self.relay = stack.enter_context(instance(folder, state="r"))
        self.relay.root, self.relay.node = self.source.node, self.far
        self._write_settings()

    def _write_settings(self) -> None:
        made = self.source
        text = made.config.read_text().replace(f'"{made.node}"', f'"{self.entrance.url}"')
        made.config.write_text(text + 'bandwidth = "2MiB"\n')
        (block,) = re.findall(r"^```toml\n(# relay1.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
        text = block.replace("/srv/site/www/html", str(self.relay.root))
        text = text.replace("web1:/var/www/html", self.web.url)
        assert self.web.url in text
        # A file that its rsync writes for longer than this is looked at unfinished.
        text = text.replace("[tree]", '[tree]\nmax_open = "200ms"', 1)
        self.relay.config.write_text(
            f'{text}\n[state]\ndir = "{self.relay.state.path}"\n[metrics]\nlisten = ""\n'
        )

    def up(self) -> None:
        def start(made: Instance) -> None:
            made.lifecycle().up(made.settings())

        with ThreadPoolExecutor() as pool:
            list(pool.map(start, (self.source, self.relay)))

    def assert_in_step(self) -> None:
        """The first level is flushed, then the second; then both hold the tree."""
        for made in (self.source, self.relay):
            done = made.shardsync("flush", "--timeout", "60s")
            assert done.returncode == 0, f"{made.config.name}: {done.stdout}{done.stderr}"
        assert differences(self.source.root, self.relay.root) == []
        assert differences(self.source.root, self.far) == []

    def kill_relay(self) -> None:
        """Every process of it, with SIGKILL."""
        for process in find(self.relay.state):
            os.kill(process.pid, signal.SIGKILL)

    def journaled(self) -> list[bytes]:
        """The paths of all Changes that the relay has seen."""
        plan = read_plan(self.relay.state.plan)
        assert plan is not None
        paths: list[bytes] = []
        for shard in plan.shards:
            reader = JournalReader(self.relay.state.journal(shard.id))
            paths += [row[1] for row in reader.read_rows(after=0, limit=1_000_000)]
            reader.close()
        return paths

    def received(self) -> list[bytes]:
        """The names of all that came at the second level."""
        return [
            line.partition("] got ")[2].rstrip("/").encode()
            for line in self.web.log_text().splitlines()
            if "] got " in line
        ]


@pytest.fixture
def cascade(tmp_path: Path) -> Iterator[Cascade]:
    """Both instances up, a small site everywhere."""
    with ExitStack() as stack:
        made = Cascade(tmp_path, stack)
        for number in range(FILES):
            path = made.source.root / f"d{number % 5}" / f"{number}.html"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{number}")
        made.up()
        yield made


def changed(root: Path, mark: str) -> None:
    """Something of each kind."""
    for number in range(3):
        folder = root / f"d{number}"
        (folder / f"new-{mark}.html").write_text(mark * 10)
        (folder / f"{number}.html").write_text(f"rewritten {mark}")
        (folder / f"deep-{mark}").mkdir()
        (folder / f"deep-{mark}/page").write_text(mark)
        (folder / f"link-{mark}").symlink_to(f"{number}.html")
    (root / f"d0/new-{mark}.html").rename(root / f"d1/moved-{mark}.html")
    (root / f"d1/new-{mark}.html").unlink()
    shutil.rmtree(root / f"d2/deep-{mark}")


def temporaries(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".*.??????") if path.is_file()]


@pytest.mark.timeout(240)
def test_two_levels_hold_the_tree_whatever_becomes_of_the_relay(cascade: Cascade) -> None:
    """Changes of all kinds, the relay's processes killed, and its daemon in the midst of a file.

    What the first level's rsyncs write on the relay under names of their own is neither
    journaled there nor sent on, be it half a file, or left over by a kill.
    """
    root = cascade.source.root
    cascade.assert_in_step()
    (root / "d0/.config.prefix").mkdir()
    (root / "d0/.config.prefix/page").write_text("in a directory of that form")
    (root / ".htaccess.backup").write_text("that the settings name")
    changed(root, "a")
    (root / "renamed").mkdir()
    for number in range(5):
        (root / f"d{number}").rename(root / f"renamed/d{number}")
    cascade.assert_in_step()

    (root / "renamed").rename(root / "again")
    for program in cascade.relay.client.programs():
        if program.pid:
            os.kill(program.pid, signal.SIGKILL)
            changed(root / "again", program.name.rpartition(":")[2])
    (root / "big.bin").write_bytes(os.urandom(4_000_000))
    eventually(lambda: temporaries(cascade.relay.root))
    time.sleep(0.5)
    cascade.entrance.signal(signal.SIGKILL)
    cascade.kill_relay()
    assert temporaries(cascade.relay.root)
    for number in range(5):
        (root / f"again/d{number}").rename(root / f"d{number}")
    changed(root, "b")
    cascade.relay.lifecycle().up(cascade.relay.settings())
    cascade.entrance.stop()
    cascade.entrance.start()
    cascade.assert_in_step()

    for seen in (cascade.journaled(), cascade.received()):
        assert b"big.bin" in seen
        names = {os.path.basename(path) for path in seen}
        assert {name for name in names if TEMPORARY.fullmatch(name)} <= KEPT
    assert cascade.journaled().count(b"big.bin") <= 2
