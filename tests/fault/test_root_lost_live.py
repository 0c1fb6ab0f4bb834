"""All programs real, under supervisord: the root's file system comes and goes, and the Node
loses nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.compare import differences
from tests.support.instances import Instance, eventually, instance
from tests.support.mounting import Mounts
from tests.support.shipping import fill, names_below


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    made = Mounts()
    try:
        yield made
    finally:
        made.undo()


class Live:
    """A whole instance whose root is a tmpfs that is mounted at `spare` too."""

    def __init__(self, made: Instance, mounts: Mounts) -> None:
        self.made = made
        self.mounts = mounts
        self.spare = made.folder / "spare"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command, done."""
        return subprocess.run(
            [sys.executable, "-m", "shardsync.cli.main", *words],
            env={**os.environ, "SHARDSYNC_CONFIG": str(self.made.config)},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def tree_state(self) -> str:
        """As `status --json` tells it."""
        state: str = json.loads(self.run("status", "--json").stdout)["trees"][0]["state"]
        return state

    def shards(self) -> set[tuple[str, str]]:
        """(state, the last error's end) of each Shard."""
        shards = json.loads(self.run("status", "--json").stdout)["shards"]
        return {(s["state"], (s["last_error"] or "").partition("/tree ")[2]) for s in shards}

    def halts(self, lose: Callable[[], object], words: str, heal: Callable[[], object]) -> None:
        """Lose the root: all stands still, in clear words. Heal it: all goes on."""
        before = names_below(self.made.node)
        lose()
        eventually(lambda: self.tree_state() == "halted")
        fill(self.spare, {"made/meanwhile": words})
        told = self.run("status")
        assert told.returncode == 14
        assert words in " ".join(told.stdout.split()), told.stdout
        # What stands there now is no tree to compare a Node with.
        verified = self.run("verify", "--json")
        assert (verified.returncode, verified.stdout) == (14, "")
        assert words in verified.stderr
        flushed = self.run("flush")
        assert (flushed.returncode, names_below(self.made.node)) == (14, before)
        heal()
        eventually(lambda: self.run("flush").returncode == 0)
        eventually(lambda: self.tree_state() == "ok")
        assert differences(self.made.root, self.made.node) == []
        assert (self.made.node / "made/meanwhile").read_text() == words


@pytest.mark.fault("root-unmounted", "root-covered")
@pytest.mark.root
@pytest.mark.timeout(400)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_root_that_goes_in_every_way_deletes_nothing(tmp_path: Path, mounts: Mounts) -> None:
    """A plain umount is refused while Nodes follow and works once all are paused; unmounted
    lazily, covered, replaced by an empty folder, a mount below it gone: the Tree halts, the Node
    keeps all, and what changed meanwhile is there once it is back.
    """
    (tmp_path / "tree").mkdir()
    mounts.tmpfs(tmp_path / "tree")
    with instance(tmp_path) as made:
        live = Live(made, mounts)
        mounts.bind(made.root, live.spare)
        fill(made.root, {f"d{number}/page": f"{number}" for number in range(30)})
        made.lifecycle().up(made.settings())
        eventually(lambda: live.run("flush").returncode == 0)
        assert differences(made.root, made.node) == []

        assert not mounts.umount(made.root)
        assert live.run("pause", "web1").returncode == 0
        eventually(lambda: mounts.umount(made.root))
        before = names_below(made.node)
        assert live.run("resume", "web1").returncode in {0, 14}
        live.halts(lambda: None, "another file system", lambda: mounts.bind(live.spare, made.root))
        assert set(before) < set(names_below(made.node))

        def unmounted() -> None:
            assert mounts.umount(made.root, "-l")

        live.halts(unmounted, "another file system", lambda: mounts.bind(live.spare, made.root))
        live.halts(
            lambda: mounts.tmpfs(made.root),
            "another file system",
            lambda: mounts.umount(made.root, "-l"),
        )

        volume = tmp_path / "volume"
        mounts.tmpfs(volume)
        fill(volume, {"v/page": "1"})
        mounts.bind(volume, made.root / "vol")
        eventually(lambda: live.run("flush").returncode == 0)
        assert (made.node / "vol/v/page").exists()
        live.halts(
            lambda: mounts.umount(made.root / "vol"),
            "no longer has a mount at vol",
            lambda: mounts.bind(volume, made.root / "vol"),
        )
        live.halts(
            lambda: mounts.tmpfs(made.root / "vol"),
            "another file system mounted at vol",
            lambda: mounts.umount(made.root / "vol"),
        )


@pytest.mark.root
@pytest.mark.timeout(200)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_start_before_the_root_is_mounted_waits_for_it(tmp_path: Path, mounts: Mounts) -> None:
    """As after a boot: nothing observes the empty mount point, and once the root is there all goes
    on by itself, with what changed before the start.
    """
    (tmp_path / "tree").mkdir()
    mounts.tmpfs(tmp_path / "tree")
    with instance(tmp_path) as made:
        live = Live(made, mounts)
        mounts.bind(made.root, live.spare)
        fill(made.root, {f"d{number}/page": f"{number}" for number in range(30)})
        made.lifecycle().up(made.settings())
        eventually(lambda: live.run("flush").returncode == 0)
        made.lifecycle().down()
        fill(live.spare, {"d3/page": "changed while down"})
        assert mounts.umount(made.root)

        made.lifecycle().up(made.settings())
        eventually(lambda: live.shards() == {("halted", "is another one than before")})
        live.halts(lambda: None, "another file system", lambda: mounts.bind(live.spare, made.root))
        assert (made.node / "d3/page").read_text() == "changed while down"
        assert live.shards() == {("following", "")}
