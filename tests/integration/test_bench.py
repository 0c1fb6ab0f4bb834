"""What the bench's figures rest on: its trees, its counting rsync, its clearing away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.support.compare import differences
from tests.support.sources import REPOSITORY
from tools.benches.arrivals import Arrivals
from tools.benches.counted import CountedRsync
from tools.benches.processes import holds, with_descendants
from tools.benches.say import Display
from tools.benches.trees import HERE, Generator, Scale, Trees


def generators(folder: Path) -> tuple[list[str], list[str]]:
    compiled = Generator(folder)
    if compiled.kind != "C":
        pytest.skip("no C compiler")
    return compiled.argv, [sys.executable, str(HERE / "generate.py")]


def test_both_generators_make_the_same_tree(tmp_path: Path) -> None:
    """In C and in Python: names, bytes, modes, mtimes; so two trees are copies of each other."""
    for number, argv in enumerate(generators(tmp_path)):
        tree = str(tmp_path / f"tree-{number}")
        subprocess.run([*argv, "tree", tree, "3", "2", "4", "1700000000"], check=True)
        subprocess.run([*argv, "files", tree, "2", "25", "10"], check=True)
        subprocess.run([*argv, "rewrite", tree, "10"], input=b"5 15\n", check=True)
        assert len(list((tmp_path / f"tree-{number}").glob("d*/s*/p*/index.html"))) == 24
    for path in tmp_path.glob("tree-*/**"):
        os.utime(path, (0, 0))
    for path in tmp_path.glob("tree-*/e*/*"):
        os.utime(path, (0, 0))
    assert differences(tmp_path / "tree-0", tmp_path / "tree-1") == []
    rewritten = (tmp_path / "tree-0").glob("e*/*")
    changed = sorted(path.name for path in rewritten if path.read_text() == "b page\n")
    assert changed == [f"f{number:07d}" for number in range(5, 15)]


def test_a_tree_that_a_run_left_changed_is_mended(tmp_path: Path) -> None:
    """Its shape comes back and the Node is brought in step; without changes nothing is touched."""
    trees = Trees(
        folder=tmp_path,
        scale=Scale("tiny", 2, 2, 3),
        generator=Generator(tmp_path),
        display=Display(),
    )
    trees.need_pair()
    made = (trees.node / "d00").stat().st_ino
    trees.begin_change()
    (trees.tree / "d01/s001/p0002/index.html").unlink()
    (trees.tree / "d00/s000/p0000/in-x").mkdir()
    (trees.tree / "big-0").mkdir()
    (trees.tree / "d00/s000/p0000/index.html").write_text("rewritten\n")
    trees.need_pair()
    assert sorted(os.listdir(trees.tree)) == ["d00", "d01"]
    assert len(list(trees.tree.glob("d*/s*/p*/*"))) == 12
    assert differences(trees.tree, trees.node) == []
    assert (trees.node / "d00").stat().st_ino == made
    (trees.node / "d00/kept").mkdir()
    trees.need_pair()
    assert (trees.node / "d00/kept").is_dir()


def test_the_counting_rsync_does_what_rsync_does(tmp_path: Path) -> None:
    """List, exit code and output pass through; entries and runs are counted, --version is not."""
    source, node = tmp_path / "source", tmp_path / "node"
    source.mkdir()
    (source / "a b").write_text("content\n")
    (source / "c").write_text("content\n")
    counted = CountedRsync(tmp_path / "counted")
    argv = [str(counted.program), "-lptgoD", "--files-from=-", "--from0", f"{source}/", f"{node}/"]
    done = subprocess.run(argv, input=b"a b\0gone\0", capture_output=True, check=False)
    assert done.returncode == 23
    assert b"gone" in done.stderr
    assert (node / "a b").read_text() == "content\n"
    subprocess.run([counted.program, "-a", f"{source}/", f"{node}/"], check=True)
    version = subprocess.run([counted.program, "--version"], capture_output=True, check=True)
    assert version.stdout.startswith(b"rsync")
    count = counted.count()
    assert (count.runs, count.comparing, count.entries, count.list_bytes) == (2, 1, 2, 9)
    counted.reset()
    assert counted.count().runs == 0


def marked(mark: str) -> list[int]:
    """Living processes that inherited this environment."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes() if entry.isdigit() else b""
        except OSError:
            continue
        if mark.encode() in environment:
            found.append(int(entry))
    return found


def work_folders() -> set[Path]:
    return set(Path("/tmp").glob("ssb-*"))


@pytest.mark.timeout(300)
def test_an_interrupted_bench_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a case: no process lives on, no folder stays but the trees."""
    mark = f"BENCH_TEST_{uuid.uuid4().hex}"
    log = tmp_path / "log"
    before = work_folders()
    argv = [sys.executable, "-m", "tools.benches", "--case", "restart", "--peers", "--trees"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, str(tmp_path / "trees")],
            cwd=REPOSITORY, stdout=output, stderr=output, env={**os.environ, mark: "1"},
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not holds(log, b"first contact") and time.monotonic() < deadline:
            time.sleep(0.1)
        while len(marked(mark)) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert set(with_descendants(process.pid)) <= set(marked(mark))
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
    assert process.returncode == 130, log.read_text()
    assert marked(mark) == []
    mine = {folder for folder in work_folders() - before if folder.stat().st_uid == os.getuid()}
    assert all(not holds(folder / "served/shardsync.toml", bytes(tmp_path)) for folder in mine)
    assert (tmp_path / "trees/10k/tree.complete").exists()


def test_arrivals_are_told_by_name_when_they_are_whole(tmp_path: Path) -> None:
    """A file counts once rsync has renamed it into place, in each directory that is watched."""
    source, node = tmp_path / "source", tmp_path / "node"
    for folder in ("one", "two"):
        (source / folder).mkdir(parents=True)
        (node / folder).mkdir(parents=True)
        (source / folder / f"{folder}.html").write_text("content\n")
    with Arrivals([node / "one", node / "two"]) as arrivals:
        before = time.monotonic()
        subprocess.run(["rsync", "-a", f"{source}/", f"{node}/"], check=True, timeout=20)
        deadline = before + 10
        while len(arrivals.at) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert set(arrivals.at) == {"one.html", "two.html"}
    assert all(before <= at <= time.monotonic() for at in arrivals.at.values())
