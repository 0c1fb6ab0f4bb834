"""The same Changes to several Nodes: what is pending is read once and looked at once for all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.config.settings import NodeSettings
from shardsync.journal.records import Compare
from shardsync.ship import delivery as delivering
from shardsync.ship.batch import BatchPlan, IsExcluded, LookAt, Plans, plan_batch
from shardsync.ship.fold import Pending, Want
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import fill, names_below
from tests.support.sync import Instance, Running, run, running


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many paths each plan that was made is for."""
    found: list[int] = []

    def note(pending: Iterable[Pending], *, look: LookAt, is_excluded: IsExcluded) -> BatchPlan:
        listed = list(pending)
        found.append(len(listed))
        return plan_batch(listed, look=look, is_excluded=is_excluded)

    monkeypatch.setattr(delivering, "plan_batch", note)
    return found


def _nodes(instance: Instance, *names: str) -> list[NodeSettings]:
    for name in names:
        (instance.folder / name).mkdir()
    return [local_node(instance.folder / name, name=name) for name in names]


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_nodes_that_see_the_same_share_one_look(
    tmp_path: Path, planned: list[int], at_a_time: int
) -> None:
    """Excludes and a subtree have looks of their own; each Node gets what is its, and loses it."""
    instance = Instance(tmp_path)
    one, two, three, less, part = _nodes(instance, "one", "two", "three", "less", "part")
    less = replace(less, exclude=(*less.exclude, "*.tmp"))
    part = replace(part, subtree="d0")
    instance.nodes = [one, two, three, less, part]
    instance.sync = replace(instance.sync, max_rsyncs=at_a_time)
    files = {f"d{n % 4}/f{n}": f"{n}" for n in range(40)} | {"d0/x.tmp": "x", "d1/gone": "g"}
    fill(instance.tree, files)

    async def change(sync: Running) -> None:
        await sync.followed()
        planned.clear()
        fill(instance.tree, {name: "2" for name in files if name != "d1/gone"})
        (instance.tree / "d1/gone").unlink()
        instance.changed(*files)
        await sync.followed()

    async def follow() -> None:
        async with running(instance) as sync:
            await change(sync)

    run(follow)
    for name in ("one", "two", "three"):
        assert names_below(tmp_path / name) == names_below(instance.tree)
        assert (tmp_path / name / "d3/f3").read_text() == "2"
    assert (tmp_path / "less/d0/x.tmp").exists() is False
    assert (tmp_path / "less/d3/f3").read_text() == "2"
    assert names_below(tmp_path / "part") == names_below(instance.tree / "d0")
    assert sorted(planned) == [11, 42, 42]


def test_what_was_seen_before_the_root_was_away_is_looked_at_again(
    tmp_path: Path, planned: list[int]
) -> None:
    """Another pin, another look: what was missing then may have been so for want of the root."""
    instance = Instance(tmp_path)
    instance.nodes = _nodes(instance, "one")
    fill(instance.tree, {"d/f": "1"})

    async def deliver() -> None:
        async with running(instance) as sync:
            await sync.followed()
            post = next(iter(sync.service._served.posts.values()))
            delivery = post.station.syncer._delivery
            plans: Plans = {}

            async def ship() -> None:
                item = Pending(path=b"d/f", want=Want.CONTENT, since=1)
                await delivery.deliver([item], plans=plans, owned=True, compare=Compare.CONTENT)

            os.rename(instance.tree / "d/f", instance.tree / "d/away")
            planned.clear()
            await ship()
            await ship()
            assert planned == [1]
            assert not (tmp_path / "one/d/f").exists()
            os.rename(instance.tree / "d/away", instance.tree / "d/f")
            post.tree.root.release()
            await ship()
            assert planned == [1, 1]
            assert (tmp_path / "one/d/f").exists()

    run(deliver)


def test_what_is_pruned_while_a_node_waits_for_a_slot_is_found_by_comparing(
    tmp_path: Path,
) -> None:
    """The Journal is cut beyond its Cursor in that time: it is behind, and not silently wrong."""
    instance = Instance(tmp_path)
    instance.nodes = _nodes(instance, "one")
    instance.sync = replace(instance.sync, max_rsyncs=1)
    fill(instance.tree, {"a": "1", "b": "1"})

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            slots = sync.service._adapting.slots
            async with slots.of(("main", "other")):
                fill(instance.tree, {"a": "2"})
                instance.changed("a")
                await sync.until(lambda: bool(slots._waiting))
                while instance.journals[0].prune(
                    before_us=instance.clock.wall_us() + 1, max_bytes=2**40
                ):
                    pass
                fill(instance.tree, {"b": "2"})
                instance.changed("b")
            await sync.until(lambda: (tmp_path / "one/b").read_text() == "2")
            await sync.until(lambda: (tmp_path / "one/a").read_text() == "2")

    run(work)


@pytest.mark.parametrize("owned", [True, False])
def test_an_old_name_that_is_back_loses_what_it_held_on_every_node(
    tmp_path: Path, *, owned: bool
) -> None:
    """A renamed directory's, made anew between the look that Nodes share and the second's turn."""
    instance = Instance(tmp_path)
    instance.nodes = _nodes(instance, "one", "two")
    files = {f"d/f{n}": "1" for n in range(250)}
    fill(instance.tree, files)

    async def deliver() -> None:
        async with running(instance) as sync:
            await sync.followed()
            deliveries = [
                post.station.syncer._delivery for post in sync.service._served.posts.values()
            ]
            plans: Plans = {}
            pending = [
                Pending(path=b"d", want=Want.TREE, since=1),
                Pending(path=b"e", want=Want.TREE, since=1, moved_from=b"d"),
            ]
            os.rename(instance.tree / "d", instance.tree / "e")
            await deliveries[0].deliver(pending, plans=plans, owned=owned)
            fill(instance.tree, {"d/new": "1"})
            await deliveries[1].deliver(pending, plans=plans, owned=owned)
            for delivery in deliveries:
                await delivery.deliver([Pending(path=b"d", want=Want.TREE, since=2)], owned=owned)
            assert differences(instance.tree, tmp_path / "one") == []
            assert differences(instance.tree, tmp_path / "two") == []

    run(deliver)
