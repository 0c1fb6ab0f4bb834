"""`order = "safe"`: a visitor who polls a real Node while releases are swapped in."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.config.patterns import first_filter
from shardsync.config.settings import NodeSettings, SyncSettings, Target, TargetKind
from shardsync.model import Kind, Scope
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import node_of_kind
from tests.support.sync import Instance, run, running

PAGES = 150
VERSIONS = 6

_VISITOR = """
import os, sys, glob
node, done, below = sys.argv[1:]
visits = 0
print("ready", flush=True)
while not os.path.exists(done):
    for page in glob.glob(node + below + "/*.html"):
        try:
            text = open(page).read()
        except OSError:
            continue  # itself replaced by a directory, or deleted
        visits += 1
        missing = [name for name in text.split() if not os.path.exists(node + "/" + name)]
        if missing:
            # He may have come just before the page was replaced: then he loads it again.
            try:
                again = open(page).read()
            except OSError:
                continue
            if again == text:
                print("broken", page, missing, flush=True)
print("visits", visits, flush=True)
"""


@contextlib.contextmanager
def _visited(folder: Path, done: Path, below: str = "") -> Iterator[list[str]]:
    """Somebody opens every page of a folder all the time and follows what it refers to."""
    said: list[str] = []
    visitor = subprocess.Popen(
        [sys.executable, "-c", _VISITOR, str(folder), str(done), below],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert visitor.stdout is not None
    assert visitor.stdout.readline() == "ready\n"
    try:
        yield said
    finally:
        done.touch()
        said += visitor.communicate(timeout=30)[0].splitlines()


def _names(version: int) -> tuple[str, str]:
    """A style sheet and a page to link to, by turns the first and the last in the alphabet."""
    letter = "az"[version % 2]
    return f"{letter}-{version}.css", f"{letter}-{version}.txt"


def _write(folder: Path, version: int) -> None:
    """Pages that refer to a style sheet and link to a page, both of this version alone."""
    for name in _names(version):
        if not (folder / name).exists():
            (folder / name).write_text("x" * 100)
    text = " ".join(_names(version))
    for number in range(PAGES):
        (folder / f"m-{number:03}.html").write_text(text)


def _release(instance: Instance, version: int) -> None:
    """The next version, written over the last one; the page that all link to is there already."""
    _write(instance.tree, version)
    old, (sheet, _) = _names(version - 1), _names(version)
    for name in old:
        (instance.tree / name).unlink()
    pages = [f"m-{number:03}.html" for number in range(PAGES)]
    now = instance.clock.wall_us()
    instance.journals[0].commit(
        [(name.encode(), Scope.ENTRY, Kind.CONTENT, now, None) for name in [*pages, *old, sheet]]
    )


@pytest.mark.parametrize("kind", ["local", "daemon"])
def test_no_visitor_meets_a_page_without_what_it_refers_to(kind: str, tmp_path: Path) -> None:
    """Six releases: each page's style sheet and link are there, whenever it is opened."""
    instance = Instance(tmp_path)
    _write(instance.tree, 0)

    async def work() -> None:
        with node_of_kind(kind, tmp_path) as (node, folder):
            instance.nodes = [replace(node, order="safe")]
            async with running(instance) as sync:
                await sync.followed()
                with _visited(folder, tmp_path / "done") as said:
                    for version in range(1, VERSIONS):
                        linked = _names(version)[1]
                        (instance.tree / linked).write_text("x" * 100)
                        instance.changed(linked)
                        await sync.followed()
                        _release(instance, version)
                        await sync.followed()
                assert differences(instance.tree, folder) == []
                assert said[:-1] == []
                assert int(said[-1].split()[1]) > PAGES

    run(work)


def test_whole_trees_too(tmp_path: Path) -> None:
    """A directory that is found whole: two passes, then deletions."""
    instance = Instance(tmp_path)
    site = instance.tree / "site"
    site.mkdir()
    _write_site(site, 0)
    node = tmp_path / "node"
    instance.nodes = [replace(local_node(node), order="safe")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            with _visited(node, tmp_path / "done", "/site") as said:
                for version in range(1, VERSIONS):
                    _write_site(site, version)
                    instance.changed("site", scope=Scope.TREE)
                    await sync.followed()
            assert differences(instance.tree, node) == []
            assert said[:-1] == []

    run(work)


def _write_site(site: Path, version: int) -> None:
    letter = "az"[version % 2]
    for old in site.glob("*.css"):
        old.unlink()
    (site / f"{letter}-{version}.css").write_text("x")
    for number in range(PAGES):
        (site / f"m-{number:03}.html").write_text(f"site/{letter}-{version}.css")


def test_a_renamed_release_comes_with_its_assets_first(tmp_path: Path) -> None:
    """Moved into place as a whole: no page is there before what it refers to."""
    instance = Instance(tmp_path)
    staged = instance.tree / "staged"
    staged.mkdir()
    for number in range(3000):
        (staged / f"m-{number:04}.html").write_text("live/z.css")
    (staged / "z.css").write_text("x")
    node = tmp_path / "node"
    instance.nodes = [replace(local_node(node), order="safe")]

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            with _visited(node, tmp_path / "done", "/live") as said:
                staged.rename(instance.tree / "live")
                now = instance.clock.wall_us()
                instance.journals[0].commit(
                    [
                        (b"staged", Scope.TREE, Kind.CONTENT, now, None),
                        (b"live", Scope.TREE, Kind.CONTENT, now, b"staged"),
                    ]
                )
                await sync.followed()
            assert differences(instance.tree, node) == []
            assert said[:-1] == []

    run(work)


def test_an_asset_is_never_set_aside_for_its_size(tmp_path: Path) -> None:
    """A big image goes in the Batch of the page that shows it."""
    instance = Instance(tmp_path)
    instance.sync = SyncSettings(big_file_bytes=1_000_000)
    instance.nodes = [replace(local_node(tmp_path / "node"), order="safe")]
    node = tmp_path / "node"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            with _visited(node, tmp_path / "done") as said:
                (instance.tree / "z.jpg").write_bytes(os.urandom(30_000_000))
                (instance.tree / "a.html").write_text("z.jpg")
                instance.changed("a.html", "z.jpg")
                await sync.followed()
            assert said[:-1] == []

    run(work)


def test_order_first_is_told_as_seen_from_the_subtree() -> None:
    """Anchored patterns start from the Tree's root; what is below a named folder is named."""
    target = Target(kind=TargetKind.LOCAL, path="/n")
    node = NodeSettings(name="a", tree="main", target=target, order="safe")
    first = first_filter(replace(node, order_first=("*.css", "/news/img/")))
    assert first is not None
    assert first_filter(replace(node, order="")) is None
    below = first.rebased(b"news")
    assert not below.excludes(b"img/x/y.bin", is_dir=False)
    assert not below.excludes(b"a/b.css", is_dir=False)
    assert below.excludes(b"page.html", is_dir=False)
