"""All programs real: a tree that changes while it is verified gives no false alarm."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.instances import Instance, eventually, instance

_SEED = 20_261_124


def shardsync(made: Instance, *words: str) -> subprocess.CompletedProcess[bytes]:
    """The command, done."""
    return subprocess.run(
        [sys.executable, "-m", "shardsync.cli.main", *words],
        env={**os.environ, "SHARDSYNC_CONFIG": str(made.config)},
        capture_output=True,
        timeout=90,
        check=False,
    )


def _change(dice: random.Random, root: Path, count: int) -> None:
    folder = root / f"d{dice.randrange(20)}"
    file = folder / f"f{dice.randrange(10)}"
    match dice.randrange(7):
        case 0 | 1 | 2:
            file.write_text(f"rewritten {count}")
        case 3:
            file.unlink(missing_ok=True)
        case 4:
            temporary = folder / f".new-{count}"
            temporary.write_text(f"{count}")
            temporary.rename(file)
        case 5:
            made = folder / f"sub{dice.randrange(3)}"
            made.mkdir(exist_ok=True)
            (made / "page").write_text(f"{count}")
        case _:
            made = folder / f"sub{dice.randrange(3)}"
            if made.exists():
                made.rename(root / f"d{dice.randrange(20)}" / f"moved-{count}")
            (folder / "hot").chmod(0o600 + dice.randrange(64))


@contextmanager
def churned(root: Path) -> Iterator[None]:
    """Changes of all kinds, some hundred a second, in the background."""
    stop = threading.Event()
    dice = random.Random(_SEED)

    def work() -> None:
        count = 0
        while not stop.wait(0.002):
            count += 1
            _change(dice, root, count)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)


@pytest.mark.timeout(240)
def test_a_tree_that_changes_meanwhile_gives_no_false_alarm(tmp_path: Path) -> None:
    """Four runs under churn, by times and by content: what is on its way is told apart. A file
    that was altered on the Node by hand is found in the midst of it.
    """
    with instance(tmp_path) as made:
        for folder in range(20):
            (made.root / f"d{folder}").mkdir()
            (made.root / f"d{folder}/hot").write_text("1")
            for file in range(10):
                (made.root / f"d{folder}/f{file}").write_text("first")
        (made.root / "still").mkdir()
        (made.root / "still/page").write_text("as it is")
        made.lifecycle().up(made.settings())
        eventually(lambda: shardsync(made, "flush").returncode == 0)
        with churned(made.root):
            for turn in range(4):
                options = ("--checksum",) if turn % 2 else ()
                done = shardsync(made, "verify", "--json", *options)
                assert (done.returncode, json.loads(done.stdout)["nodes"][0]["different"]) == (
                    0,
                    [],
                )
            (made.node / "still/page").write_text("altered")
            (made.node / "still/foreign").write_text("?")
            (found,) = json.loads(shardsync(made, "verify", "--json").stdout)["nodes"]
            assert [item["path"] for item in found["different"]] == [
                "still", "still/foreign", "still/page",
            ]  # fmt: skip
