from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.clock import SystemClock
from shardsync.config.settings import NodeSettings
from shardsync.ship.command import Purpose
from shardsync.ship.comparison import Difference, What
from shardsync.ship.janitor import Janitor
from shardsync.ship.outcome import Outcome, Trouble
from shardsync.ship.root import RootGuard
from shardsync.ship.verify import OnTheWay, Verification, Verifier
from tests.support.nodes import RsyncDaemon, local_node
from tests.support.transports import ODD_NAMES, SECONDS, snapshot, transport


@pytest.fixture(params=["local", "daemon"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NodeSettings]:
    """A Node; its files lie in `tmp_path / "node"`."""
    folder = tmp_path / "node"
    folder.mkdir()
    if request.param == "local":
        yield local_node(folder)
    else:
        with RsyncDaemon(workspace=tmp_path, path=folder) as daemon:
            yield daemon.node()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with odd names."""
    folder = tmp_path / "root"
    (folder / "d" / "e").mkdir(parents=True)
    (folder / "d" / "e" / "f").write_text("1")
    (folder / "d" / "x").write_text("1")
    os.symlink("x", folder / "d" / "l")
    (folder / "odd").mkdir()
    for name in ODD_NAMES:
        (folder / "odd" / os.fsdecode(name)).write_text("1")
    return folder


async def copy(node: NodeSettings, root: Path) -> None:
    route = transport(node, root)
    names = sorted(os.fsencode(name) for name in os.listdir(root))
    result = await route.ship(names, purpose=Purpose.TREE, deadline_seconds=SECONDS)
    assert result.outcome is Outcome.SHIPPED
    await route.close()


async def compare(
    node: NodeSettings,
    root: Path,
    paths: list[bytes],
    purpose: Purpose = Purpose.COMPARE,
    filters: tuple[str, ...] = (),
) -> dict[bytes, What]:
    route = transport(node, root, filters=filters)
    async with route.compare(paths, purpose=purpose, deadline_seconds=SECONDS) as comparison:
        found = {difference.path: difference.what async for difference in comparison}
    assert comparison.result.outcome is Outcome.SHIPPED
    return found


def test_what_differs_is_told_and_nothing_changes(
    node: NodeSettings, root: Path, tmp_path: Path
) -> None:
    """New, changed, only attributes, extraneous: each by its name, on an untouched Node."""
    target = tmp_path / "node"
    asyncio.run(copy(node, root))
    assert asyncio.run(compare(node, root, [b""])) == {}
    (target / "d" / "e" / "f").unlink()
    (target / "d" / "x").write_text("22")
    (target / "d" / "l").unlink()
    os.symlink("other", target / "d" / "l")
    (target / "odd" / "#a").chmod(0o600)
    (target / "foreign").mkdir()
    (target / "foreign" / "\udcff").write_text("")
    for folder in ("d", "d/e", "odd"):
        status = (root / folder).stat()
        os.utime(target / folder, ns=(status.st_mtime_ns, status.st_mtime_ns))
    before = snapshot(target)
    assert asyncio.run(compare(node, root, [b""])) == {
        b"d/e/f": What.NEW,
        b"d/x": What.CHANGED,
        b"d/l": What.CHANGED,
        b"odd/#a": What.ATTRIBUTES,
        b"foreign": What.EXTRANEOUS,
        b"foreign/\xff": What.EXTRANEOUS,
    }
    assert snapshot(target) == before


def test_a_file_that_stands_for_a_full_directory_is_a_difference(
    node: NodeSettings, root: Path, tmp_path: Path
) -> None:
    """It is told as one, and does not spoil the comparison of the rest."""

    async def work() -> None:
        await copy(node, root)
        shutil.rmtree(root / "d" / "e")
        (root / "d" / "e").write_text("a file now")
        assert b"d/e" in await compare(node, root, [b""])
        assert b"d/e" in await compare(node, root, [b"d/e"], purpose=Purpose.COMPARE_FLAT)

    asyncio.run(work())


def test_a_subtree_is_compared_by_itself(node: NodeSettings, root: Path, tmp_path: Path) -> None:
    """Below the listed paths alone; what is foreign beside them is not told."""
    target = tmp_path / "node"
    asyncio.run(copy(node, root))
    (target / "d" / "e" / "f").write_text("22")
    (target / "d" / "e" / "more").write_text("")
    (target / "d" / "beside").write_text("")
    (target / "foreign").write_text("")
    found = asyncio.run(compare(node, root, [b"d/e"]))
    assert {path: what for path, what in found.items() if what is not What.ATTRIBUTES} == {
        b"d/e/f": What.CHANGED,
        b"d/e/more": What.EXTRANEOUS,
    }


def test_equal_size_and_time_is_found_by_checksum(
    node: NodeSettings, root: Path, tmp_path: Path
) -> None:
    """Bytes that differ behind equal size and mtime are found by the checksum, not without."""
    asyncio.run(copy(node, root))
    file = tmp_path / "node" / "d" / "x"
    before = file.stat().st_mtime_ns
    file.write_text("9")
    os.utime(file, ns=(before, before))
    assert asyncio.run(compare(node, root, [b""])) == {}
    found = asyncio.run(compare(node, root, [b""], Purpose.COMPARE_CHECKSUM))
    assert found == {b"d/x": What.CHANGED}


def test_a_listing_tells_foreign_names_of_one_level(
    node: NodeSettings, root: Path, tmp_path: Path
) -> None:
    """Only what is there beside the tree in the listed directory, not what differs below."""
    target = tmp_path / "node"
    asyncio.run(copy(node, root))
    (target / "d" / "x").write_text("22")
    (target / "d" / "foreign").write_text("")
    (target / "d" / "e" / "deeper").write_text("")
    (target / "top").write_text("")
    found = asyncio.run(compare(node, root, [b"d"], Purpose.COMPARE_LISTING))
    assert found == {b"d/foreign": What.EXTRANEOUS}
    found = asyncio.run(compare(node, root, [b""], Purpose.COMPARE_LISTING))
    assert found == {b"top": What.EXTRANEOUS}


def test_excluded_paths_are_not_told(node: NodeSettings, root: Path, tmp_path: Path) -> None:
    """What is excluded is neither missing nor foreign."""
    asyncio.run(copy(node, root))
    (tmp_path / "node" / "d" / "x.local").write_text("")
    (root / "d" / "y.local").write_text("")
    shutil.copystat(root / "d", tmp_path / "node" / "d")
    assert asyncio.run(compare(node, root, [b""], filters=("--exclude=*.local",))) == {}


def test_a_slow_reader_makes_rsync_wait(root: Path, tmp_path: Path) -> None:
    """With tens of thousands of differences, no more than the bounded number are held."""
    (root / "many").mkdir()
    for number in range(25_000):
        os.mknod(root / "many" / f"{number:050}")

    async def run() -> int:
        route = transport(local_node(tmp_path / "node"), root)
        count = most = 0
        async with route.compare([b""], deadline_seconds=SECONDS) as comparison:
            async for _ in comparison:
                count += 1
                if count % 1_000 == 1:
                    await asyncio.sleep(0.01)
                most = max(most, len(comparison._found))
        assert comparison.result.outcome is Outcome.SHIPPED
        assert most < 13_000
        return count

    assert asyncio.run(run()) == 25_000 + len(ODD_NAMES) + 7


def test_a_comparison_left_early_leaves_nothing_behind(root: Path, tmp_path: Path) -> None:
    """Whoever stops reading ends the rsync."""

    async def run() -> None:
        route = transport(local_node(tmp_path / "node"), root)
        async with route.compare([b""], deadline_seconds=SECONDS) as comparison:
            async for _ in comparison:
                break

    asyncio.run(run())
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        assert file.read() == ""


async def verify(
    node: NodeSettings,
    root: Path,
    *,
    on_the_way: OnTheWay | None = None,
    checksum: bool = False,
) -> tuple[list[Difference], Verification]:
    verifier = Verifier(
        transport=transport(node, root), clock=SystemClock(), on_the_way=on_the_way
    )
    found = [
        difference
        async for difference in verifier.differences(checksum=checksum, deadline_seconds=SECONDS)
    ]
    return found, verifier.verification


class Pending:
    """One path that is on its way for ever: a hand-written OnTheWay."""

    def __init__(self, path: bytes) -> None:
        self._path = path

    def renew(self) -> None:
        pass

    def is_pending(self, path: bytes) -> bool:
        return path == self._path

    def changed_at(self, path: bytes) -> int:
        return len(path)


def test_verify_tells_pending_paths_apart(node: NodeSettings, root: Path, tmp_path: Path) -> None:
    """What is still to be shipped is no difference; what is not pending is."""
    target = tmp_path / "node"
    asyncio.run(copy(node, root))
    (root / "d" / "x").write_text("pending")
    (target / "odd" / ";b").write_text("broken")
    (target / "foreign").mkdir()
    (target / "foreign" / "f").write_text("")
    found, figures = asyncio.run(verify(node, root, on_the_way=Pending(b"d/x")))
    assert {(item.path, item.what) for item in found} >= {
        (b"odd/;b", What.CHANGED),
        (b"foreign", What.EXTRANEOUS),
        (b"foreign/f", What.EXTRANEOUS),
    }
    assert b"d/x" not in {item.path for item in found}
    assert (figures.pending, figures.failed) == (1, None)


def test_verify_looks_twice(root: Path, tmp_path: Path) -> None:
    """A path that is made right between the two looks raises no alarm."""
    node = local_node(tmp_path / "node")
    asyncio.run(copy(node, root))
    (tmp_path / "node" / "d" / "x").write_text("22")
    route = transport(node, root)

    class Healing:
        """A transport whose Node is repaired between two comparisons."""

        def compare(self, *args: object, **options: object) -> object:
            made = route.compare(*args, **options)  # type: ignore[arg-type]
            shutil.copy2(root / "d" / "x", tmp_path / "node" / "d" / "x") if self.used else None
            self.used = True
            return made

        used = False

    async def run() -> tuple[list[Difference], Verification]:
        verifier = Verifier(
            transport=Healing(),  # type: ignore[arg-type]
            clock=SystemClock(),
        )
        found = [
            item async for item in verifier.differences(checksum=False, deadline_seconds=SECONDS)
        ]
        return found, verifier.verification

    found, figures = asyncio.run(run())
    assert found == []
    assert figures.settled == 1


def test_verify_tells_an_unreachable_node(root: Path, tmp_path: Path) -> None:
    """A Node that cannot be reached is not identical."""
    with RsyncDaemon(workspace=tmp_path, path=tmp_path) as daemon:
        node = daemon.node()
    found, figures = asyncio.run(verify(node, root))
    assert found == []
    assert figures.failed is not None
    assert figures.failed.trouble is Trouble.UNREACHABLE


def test_leftovers_of_killed_runs_are_found_and_nothing_else(root: Path, tmp_path: Path) -> None:
    """`.NAME.XXXXXX` of a NAME that the tree has is swept; what people name like that is not."""
    node = local_node(tmp_path / "node")
    asyncio.run(copy(node, root))
    (root / ".htaccess").write_text("1")
    folder = tmp_path / "node"
    for name in (
        "d/.x.aB3dEf",
        ".htaccess.9xY1aa",
        "d/.unknown.aB3dEf",
        "d/.x.backup",
        "d/.x.short",
        "d/x.aB3dEf",
        "d/foreign",
    ):
        (folder / name).write_text("")
    (folder / "d" / ".shardsync-partial").mkdir()
    guard = RootGuard(path=os.fsencode(root))
    assert guard.pin() is None
    janitor = Janitor(look=guard.look)

    async def run() -> list[bytes]:
        async with transport(node, root).compare([b""], deadline_seconds=SECONDS) as comparison:
            return sorted([item.path async for item in comparison if janitor.is_leftover(item)])

    assert asyncio.run(run()) == [b".htaccess.9xY1aa", b"d/.shardsync-partial", b"d/.x.aB3dEf"]
    (root / "d" / ".x.aB3dEf").write_text("the tree has it now")
    assert not janitor.is_leftover(Difference(path=b"d/.x.aB3dEf", what=What.EXTRANEOUS))
    guard.release()


def test_a_level_is_compared_without_what_is_below(node: NodeSettings, root: Path) -> None:
    """Of each directory: itself, what lies in it, and what the Node has beside it there."""
    target = root.parent / "node"
    asyncio.run(copy(node, root))
    (root / "d" / "x").write_text("22")
    (root / "d" / "e" / "f").write_text("22")
    (root / "d" / "n").mkdir()
    (root / "d" / "n" / "below").write_text("1")
    (target / "d" / "foreign").mkdir()
    (target / "top").write_text("1")
    found = asyncio.run(compare(node, root, [b"", b"d"], Purpose.COMPARE_LEVEL))
    assert found == {
        b"d": What.ATTRIBUTES,
        b"d/x": What.CHANGED,
        b"d/n": What.NEW,
        b"d/foreign": What.EXTRANEOUS,
        b"top": What.EXTRANEOUS,
    }


def test_a_level_is_sent_without_what_is_below(node: NodeSettings, root: Path) -> None:
    """Files, links and the folders themselves; nothing is deleted, nor gone down into."""
    target = root.parent / "node"
    (target / "d").mkdir()
    (target / "d" / "foreign").write_text("1")

    async def send() -> None:
        route = transport(node, root)
        result = await route.ship(
            [b"d"], purpose=Purpose.LEVEL, deadline_seconds=SECONDS, beside=True
        )
        assert result.outcome is Outcome.SHIPPED
        assert (result.files, result.file_bytes) == (4, 2)
        await route.close()

    asyncio.run(send())
    assert sorted(os.listdir(target)) == ["d"]
    assert sorted(os.listdir(target / "d")) == ["e", "foreign", "l", "x"]
    assert os.listdir(target / "d" / "e") == []


def test_trees_side_by_side_leave_only_what_is_above_them_wrong(
    node: NodeSettings, root: Path
) -> None:
    """Four rsyncs with disjoint subtrees, then one flat run of what is above: all is exact."""
    target = root.parent / "node"
    for number in range(4):
        for part in range(50):
            (root / f"p/q/s{number}/{part}").mkdir(parents=True)
            (root / f"p/q/s{number}/{part}/f").write_text("1")
    for folder in (root / "p/q", root / "p", root):
        os.utime(folder, ns=(10**18, 10**18 + 12345))

    async def send() -> None:
        route = transport(node, root)
        results = await asyncio.gather(
            *(
                route.ship(
                    [b"p/q/s%d" % number],
                    purpose=Purpose.TREE,
                    deadline_seconds=SECONDS,
                    beside=True,
                )
                for number in range(4)
            )
        )
        assert {result.outcome for result in results} == {Outcome.SHIPPED}
        last = await route.ship(
            [b"p", b"p/q"], purpose=Purpose.ATTRIBUTES, deadline_seconds=SECONDS
        )
        assert last.outcome is Outcome.SHIPPED
        await route.close()

    asyncio.run(send())
    wanted = {path: what for path, what in snapshot(root).items() if path.startswith(b"p")}
    assert snapshot(target) == wanted
