"""One Batch on its way to one Node: the guards, the runs of rsync, what stays open.

Deletion is decided here and nowhere else: a path goes only after ENOENT
through the pinned root, by name, within `max_delete`; what a comparison finds
beside the Tree goes only on a Node that is owned.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shardsync.config.settings import NodeSettings, SyncSettings
from shardsync.failpoints import Point, reach
from shardsync.journal.records import Compare
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.batch import BatchPlan, IsExcluded, chunks, plan_batch, small_first, take_big
from shardsync.ship.command import Purpose
from shardsync.ship.comparison import Difference, What
from shardsync.ship.deletions import DeletionBudget
from shardsync.ship.findings import LOOK_AT_ONCE, MOST_BESIDE, Findings, keep_gone
from shardsync.ship.fold import Pending, ancestors
from shardsync.ship.janitor import InFlight, Janitor, may_be_leftover
from shardsync.ship.links import HardLinks
from shardsync.ship.look import Looker, LookKind
from shardsync.ship.messages import FailureKind
from shardsync.ship.moves import is_half_told
from shardsync.ship.moving import Mover
from shardsync.ship.outcome import Outcome, RunResult, Trouble
from shardsync.ship.shipping import Delivered, Failed, NodeTrouble, RootLost, Shipping
from shardsync.ship.view import NodeView

_TREE_PURPOSE = {
    Compare.CONTENT: Purpose.TREE_CHECKSUM,
    Compare.CHECKSUM: Purpose.TREE_CHECKSUM,
    Compare.ATTRIBUTES: Purpose.TREE,
    Compare.ANEW: Purpose.TREE_ANEW,
    Compare.EMPTY: Purpose.TREE,
}
_FLAT_PURPOSE = {
    Compare.CONTENT: Purpose.BATCH,
    Compare.CHECKSUM: Purpose.CHECKSUM,
    Compare.ATTRIBUTES: Purpose.ATTRIBUTES,
    Compare.ANEW: Purpose.BATCH,
    Compare.EMPTY: Purpose.ATTRIBUTES,
}


_FIRST_PURPOSE = {
    Purpose.TREE: Purpose.TREE_FIRST,
    Purpose.TREE_CHECKSUM: Purpose.TREE_FIRST_CHECKSUM,
}

_DEADLINE_SECONDS = 6 * 3600.0
"""The longest that one run may take; one that makes no progress is ended much sooner."""
_FEW_DELETIONS = 5_000
_ROUNDS = 3
"""How often a directory that comes back is looked through before it is tried again later."""
_MORE = "the Node holds more beside the tree than can be deleted"
_SCOPE_OF = {Purpose.COMPARE: Scope.TREE, Purpose.COMPARE_LISTING: Scope.LISTING}
_WORTH_ENTRIES, _WORTH_BYTES = 200, 1024**2
"""A rename costs three starts of rsync; what is smaller is sent as soon."""
_WHOLE = frozenset(_TREE_PURPOSE.values())
_GONE = frozenset({LookKind.MISSING, LookKind.MISSING_ANCESTOR})


def _none(path: bytes) -> bool:
    del path
    return False


@dataclass(slots=True, kw_only=True)
class _Vacated:
    """What is left to do for the renames of one Batch.

    `entries`: old name -> how many entries of it the new one has now. `shared`: old names
    whose files new ones share. `whole`: new names that need no run of their own any more,
    `fresh`: those of them where nothing was before.
    """

    entries: dict[bytes, int] = field(default_factory=dict)
    shared: set[bytes] = field(default_factory=set)
    whole: set[bytes] = field(default_factory=set)
    fresh: set[bytes] = field(default_factory=set)


class Delivery:
    """Ships Batches to one Node; keeps no progress: the Syncer records that afterwards."""

    def __init__(
        self,
        *,
        node: NodeSettings,
        transport: Shipping,
        view: NodeView,
        is_excluded: IsExcluded,
        has_excludes: bool,
        known_foreign: Callable[[], frozenset[bytes] | None],
        budget: DeletionBudget,
        limits: SyncSettings,
        slots: contextlib.AbstractAsyncContextManager[None],
        links: HardLinks,
        mover: Mover,
        log: Log,
        is_first: Callable[[bytes], bool] | None = None,
        in_flight: InFlight | None = None,
    ) -> None:
        self._node = node
        self._in_flight = in_flight or InFlight()
        self._mover = mover
        self._is_first = is_first
        self._transport = transport
        self._view = view
        self._is_excluded = is_excluded
        self._has_excludes = has_excludes
        self._known_foreign = known_foreign
        self._budget = budget
        self._limits = limits
        self._slots = slots
        self._links = links
        self._log = log
        self._entries_allowed = 0
        self._mounts: tuple[tuple[bytes, int], ...] | None = None
        self._was_cut_off = False

    async def deliver(
        self,
        pending: Iterable[Pending],
        *,
        owned: bool,
        compare: Compare = Compare.CONTENT,
        allow_delete: bool = False,
        again: bool = False,
        live: bool = True,
        find_extraneous: bool = True,
        sweep: bool = False,
        big_bytes: float = math.inf,
        beyond: int = 0,
    ) -> Delivered:
        """Bring everything pending onto the Node; what fails alone is returned, not raised.

        Order: renamed directories, trees, then what is flat with what is gone, then old names,
        then what comparisons find beside the Tree. May be done twice, and be cut off anywhere.
        `find_extraneous`: look for what the Node has beside trees and listings.
        `again`: these paths failed before, so what they may replace is counted, too.
        `live`: Changes or their retries, which delete their own path on every Node.
        `sweep`: a run for these paths may have been killed, and have left a file of ours.
        `beyond`: so many entries more are to go after these, and count against `max_delete` now.
        `big_bytes`: files with more than that are set aside, not sent.

        Raises RootLost, NodeTrouble, TooManyDeletions: nothing then counts as shipped.
        """
        self._mounts = None
        self._check_root()
        self._mounts = self._view.root.guard.mount_numbers
        self._entries_allowed = 0
        self._was_cut_off = False
        delivered = Delivered()
        with self._looking() as looker:
            plan = plan_batch(pending, look=looker.look, is_excluded=self._is_excluded)
        if plan.linked or plan.unlinked:
            delivered.unresolved = self._add_siblings(plan)
        for path, reason in plan.unreadable.items():
            delivered.failed[path] = Failed(reason=reason, scope=Scope.TREE)
        self._spare(plan, delivered, owned=owned, live=live)
        delivered.set_aside = take_big(plan, big_bytes, keep=self._is_first or _none)
        if again or not live:
            plan.moves.clear()
        vacated = await self._vacated(plan)
        await self._check_deletions(
            plan, vacated.entries, allow_delete=allow_delete, again=again, beyond=beyond
        )
        returning = {*plan.gone, *plan.replaced}
        if plan.has_root_files:
            files = (await self._names_in_root())[1]
            plan.content.update(dict.fromkeys(files, 0))
        await self._ship_first(plan, delivered, compare)
        await self._ship_moves(plan, vacated, delivered)
        await self._ship_trees(plan, vacated.whole, delivered, compare)
        await self._ship_flat(plan, delivered, compare)
        await self._vacate(vacated, delivered)
        await self._empty_returned(returning, delivered, allow_delete=allow_delete)
        for path in vacated.fresh:
            plan.trees.pop(path, None)
        if find_extraneous and (plan.trees or plan.listings):
            await self._remove_extraneous(plan, delivered, owned=owned, allow_delete=allow_delete)
        if sweep or self._was_cut_off:
            trees = () if owned and find_extraneous else plan.trees
            await self._sweep(plan, trees, delivered, owned=owned, allow_delete=allow_delete)
        return delivered

    def is_half_told(self, pending: Mapping[bytes, Pending]) -> bool:
        """As `ship.moves.is_half_told`, of paths of the Tree; False where it cannot be seen."""
        try:
            with self._view.root.looking() as looker:
                return is_half_told(pending, look=looker.look)
        except OSError:
            return False

    async def ship_whole(
        self, paths: Sequence[bytes], purpose: Purpose, *, beside: bool
    ) -> Delivered:
        """Send these directories with what is in them, as TREE or LEVEL; deletes nothing there.

        `beside`: others may do the same meanwhile, with subtrees of their own; the directories
        above are theirs to set right who asked for that. Raises as `deliver` does.
        """
        self._mounts = None
        delivered = Delivered()
        before = _FIRST_PURPOSE.get(purpose) if self._is_first is not None else None
        if before is not None:
            await self._run(paths, (), before, Delivered(), beside=beside)
        await self._run(paths, (), purpose, delivered, beside=beside)
        return delivered

    def _spare(self, plan: BatchPlan, delivered: Delivered, *, owned: bool, live: bool) -> None:
        """Leave on the Node what is gone from the Tree, where that is the rule."""
        if not self._node.delete:
            plan.gone.clear()
        if not (live or owned):
            delivered.foreign += plan.gone
            plan.gone.clear()

    async def _vacated(self, plan: BatchPlan) -> _Vacated:
        """Take the old names of renames out of what is gone: they go last, and count by the rest.

        Nothing is lost by a rename: what counts against `max_delete` is what was at the old
        name beyond what is at the new one.
        """
        vacated = _Vacated()
        for path, move in list(plan.moves.items()):
            if not self._view.is_at_least(path, entries=_WORTH_ENTRIES, size=_WORTH_BYTES):
                del plan.moves[path]
                continue
            # One that is kept is copied from: two names would share its files for good.
            if not all(plan.deletes(origin) for origin in move.origins):
                plan.moves[path] = replace(move, is_gone=False)
            elif self._mover.may_link:
                vacated.shared.update(move.origins)
        for origin, path in plan.vacated.items():
            vacated.entries[origin] = 1 + await asyncio.to_thread(self._view.count_entries, path)
        return vacated

    async def _ship_moves(self, plan: BatchPlan, vacated: _Vacated, delivered: Delivered) -> None:
        shipped, trouble = await self._mover.ship(
            plan.moves.values(),
            check_root=self._check_root,
            deadline_seconds=_DEADLINE_SECONDS,
        )
        if trouble is not None:
            raise NodeTrouble(trouble)
        if shipped:
            reach(Point.SHIP_MOVED)
        for moved in shipped:
            path = moved.move.path
            delivered.shipped += 1
            delivered.bytes_sent += moved.result.bytes_sent
            for failed, failure in moved.result.failed.items():
                delivered.failed[failed] = self._failed(failed, failure.reason, Purpose.TREE)
            vacated.whole.add(path)
            if moved.is_fresh:
                vacated.fresh.add(path)

    async def _vacate(self, vacated: _Vacated, delivered: Delivered) -> None:
        """Delete the old names, no more below them than the new ones have and is free beside.

        Then, and only where nothing stands there any more, are they no longer shared.
        """
        if vacated.entries:
            entries = sum(vacated.entries.values())
            origins = sorted(vacated.entries)
            await self._run((), origins, Purpose.BATCH, delivered, moved_entries=entries)
        with self._looking() as looker:
            ended = {
                origin
                for origin in vacated.shared
                if looker.look(origin).kind in _GONE
                and not any(above in delivered.failed for above in (origin, *ancestors(origin)))
            }
        self._mover.sharing.end(ended)
        self._mover.sharing.leave(vacated.shared - ended)

    async def _check_deletions(
        self,
        plan: BatchPlan,
        vacated: Mapping[bytes, int],
        *,
        allow_delete: bool,
        again: bool,
        beyond: int,
    ) -> None:
        """Count what the Node loses before anything is sent; `vacated` is taken out of `gone`.

        With a comparing deletion pending, below a directory that went as a whole, or where a
        file or symlink stands for a directory now, the Changes do not tell: a dry run does.
        So it does before a Node is halted, as much that is gone never was on the Node.
        """
        for origin in vacated:
            plan.gone.pop(origin, None)
        if not self._node.delete:
            return
        gone = list(plan.gone)
        if again:
            counted = await self._entries_below(list(plan.content), gone=gone)
        else:
            counted = sum(count for path, count in plan.gone.items() if path not in plan.uncounted)
            uncounted = [path for path in plan.gone if path in plan.uncounted]
            if uncounted or plan.replaced:
                counted += await self._entries_below(list(plan.replaced), gone=uncounted)
            if gone and not allow_delete and await self._budget.refuses(counted):
                counted = await self._entries_below(list(plan.replaced), gone=gone)
        self._entries_allowed = max(self._entries_allowed, counted)
        await self._budget.spend(counted + beyond, allow=allow_delete)

    async def _ship_trees(
        self, plan: BatchPlan, done: set[bytes], delivered: Delivered, compare: Compare
    ) -> None:
        trees = [path for path in plan.trees if path and path not in done]
        if b"" in plan.trees:
            trees = (await self._names_in_root())[0]
        if trees:
            await self._run(trees, (), _TREE_PURPOSE[compare], delivered)

    async def _ship_first(self, plan: BatchPlan, delivered: Delivered, compare: Compare) -> None:
        """Send what pages refer to, of all that is pending, before any page.

        It is taken out of what is flat. Trees are gone through once more afterwards, and what
        fails here fails there again. Renamed directories have a pass of their own.
        """
        is_first = self._is_first
        if is_first is None:
            return
        trees = plan.trees.keys() - plan.moves
        for paths, purpose in (
            (plan.content, _FLAT_PURPOSE[compare]),
            (plan.siblings, Purpose.CHECKSUM),
        ):
            first = sorted(path for path in paths if is_first(path))
            for chunk in self._chunks(first, plan.sizes):
                await self._run(chunk, (), purpose, delivered)
            for path in first:
                plan.forget(path)
        before = _FIRST_PURPOSE.get(_TREE_PURPOSE[compare])
        folders = (await self._names_in_root())[0] if b"" in trees else sorted(trees)
        if folders and before is not None:
            await self._run(folders, (), before, Delivered())

    async def _ship_flat(self, plan: BatchPlan, delivered: Delivered, compare: Compare) -> None:
        if self._is_first is None:
            most = self._limits.batch_bytes
            content = small_first(plan.content, plan.sizes, max_bytes=most)
            await self._ship_list(plan, [*content, *plan.gone], delivered, compare)
            await self._ship_attributes(plan, delivered)
            return
        # No page may lead to what is deleted before the page that does not is there.
        await self._ship_list(plan, list(plan.content), delivered, compare)
        await self._ship_attributes(plan, delivered)
        await self._ship_list(plan, list(plan.gone), delivered, compare)

    async def _ship_list(
        self, plan: BatchPlan, paths: Iterable[bytes], delivered: Delivered, compare: Compare
    ) -> None:
        for chunk in self._chunks(paths, plan.sizes):
            present = [path for path in chunk if path not in plan.gone]
            gone = [path for path in chunk if path in plan.gone]
            await self._run(present, gone, _FLAT_PURPOSE[compare], delivered)

    async def _ship_attributes(self, plan: BatchPlan, delivered: Delivered) -> None:
        for chunk in self._chunks(plan.attributes, {}):
            await self._run(chunk, (), Purpose.ATTRIBUTES, delivered)
        for chunk in self._chunks(sorted(plan.siblings), {}):
            await self._run(chunk, (), Purpose.CHECKSUM, delivered)

    def _chunks(self, paths: Iterable[bytes], sizes: Mapping[bytes, int]) -> Iterable[list[bytes]]:
        return chunks(
            paths, sizes, max_paths=self._limits.batch_paths, max_bytes=self._limits.batch_bytes
        )

    async def _remove_extraneous(
        self, plan: BatchPlan, delivered: Delivered, *, owned: bool, allow_delete: bool
    ) -> None:
        """Delete what the comparison names and the Tree does not have, or list it as foreign."""
        if not self._node.delete:
            return
        more = True
        while more:
            before = delivered.deleted
            gone, beyond = await self._all_beside(plan, delivered)
            if not owned:
                delivered.foreign += sorted(gone)
                delivered.unlisted += beyond
                return
            if gone:
                await self._delete(gone, delivered, allow_delete=allow_delete, beyond=beyond)
                await self._empty_returned(gone, delivered, allow_delete=allow_delete)
            more = beyond > 0 and delivered.deleted > before
        for path in (*plan.trees, *plan.listings) if beyond else ():
            delivered.failed.setdefault(path, Failed(reason=_MORE, scope=Scope.TREE))

    async def _all_beside(self, plan: BatchPlan, delivered: Delivered) -> tuple[set[bytes], int]:
        """As `_extraneous`, of all that is compared for a Batch."""
        gone: set[bytes] = set()
        beyond = 0
        for paths, purpose in (
            (plan.trees, Purpose.COMPARE),
            (plan.listings, Purpose.COMPARE_LISTING),
        ):
            if paths:
                found, more = await self._extraneous(list(paths), purpose, delivered)
                gone |= found
                beyond += more
        return gone, beyond

    async def _delete(
        self, gone: set[bytes], delivered: Delivered, *, allow_delete: bool, beyond: int = 0
    ) -> None:
        entries = await self._entries_below((), gone=sorted(gone))
        await self._budget.spend(entries + beyond, allow=allow_delete)
        for chunk in self._chunks(sorted(gone), {}):
            await self._run((), chunk, Purpose.BATCH, delivered)

    async def _empty_returned(
        self, gone: set[bytes], delivered: Delivered, *, allow_delete: bool
    ) -> None:
        """Delete what directories held that were gone when looked at, and back when rsync looked.

        rsync sends such a directory as it is and deletes nothing in it; the Changes of what it
        held before were folded into its own, and those of its new contents do not name the old.
        """
        if not (gone and self._node.delete):
            return
        for _ in range(_ROUNDS):
            returned = self._directories(gone)
            if not returned:
                return
            gone, beyond = await self._extraneous(returned, Purpose.COMPARE, delivered)
            if not gone:
                return
            await self._delete(gone, delivered, allow_delete=allow_delete, beyond=beyond)
        for path in self._directories(gone):
            delivered.failed[path] = Failed(reason="comes and goes", scope=Scope.TREE)

    def _directories(self, paths: Iterable[bytes]) -> list[bytes]:
        """Those that are directories now, and not excluded."""
        with self._looking() as looker:
            return [
                path
                for path in sorted(paths)
                if looker.look(path).kind is LookKind.DIRECTORY
                and not self._is_excluded(path, True)
            ]

    async def _sweep(
        self,
        plan: BatchPlan,
        trees: Iterable[bytes],
        delivered: Delivered,
        *,
        owned: bool,
        allow_delete: bool,
    ) -> None:
        """Delete what killed runs of ours left beside these paths and below `trees`.

        On a Node that is not owned, not before all that is foreign there is known.
        """
        foreign = frozenset[bytes]() if owned else self._known_foreign()
        if not self._node.delete or foreign is None:
            return
        sent = {*plan.content, *plan.attributes, *plan.gone}
        beside = {path.rpartition(b"/")[0] for path in sent}
        folders = self._directories(beside - {b""}) + sorted(beside & {b""})
        found: dict[Purpose, list[Difference]] = {}
        for paths, purpose in (
            (folders, Purpose.COMPARE_LISTING),
            (list(trees), Purpose.COMPARE),
        ):
            if paths:
                found[purpose] = await self._leftovers(paths, purpose)
        self._check_root()
        with self._looking() as looker:
            left = set()
            for purpose, extraneous in found.items():
                janitor = Janitor(
                    look=looker.look,
                    listed=sent,
                    foreign=foreign,
                    only_listed=not owned and purpose is Purpose.COMPARE_LISTING,
                    is_owned=owned,
                )
                left |= {item.path for item in extraneous if janitor.is_leftover(item)}
        delivered.foreign = [path for path in delivered.foreign if path not in left]
        if left:
            self._log.info("leftovers.swept", count=len(left), example=min(left))
            await self._delete(left, delivered, allow_delete=allow_delete)

    async def _leftovers(self, paths: Sequence[bytes], purpose: Purpose) -> list[Difference]:
        """What may be one by its name; of very many the next sweep finds the rest."""
        found: list[Difference] = []
        async for difference in differences(self._transport, paths, purpose=purpose):
            if (
                difference.what is What.EXTRANEOUS
                and may_be_leftover(difference)
                and not self._in_flight.owns(difference.path)
                and len(found) < MOST_BESIDE
            ):
                found.append(difference)
        return found

    async def _extraneous(
        self, paths: list[bytes], purpose: Purpose, delivered: Delivered
    ) -> tuple[set[bytes], int]:
        """What the Node has at these places and the Tree does not: the shallowest such paths.

        And how many entries more, where it claims to have very many.
        """
        found = Findings()
        beside: list[Difference] = []
        async for difference in differences(self._transport, paths, purpose=purpose):
            if difference.what is What.EXTRANEOUS:
                if not self._in_flight.owns(difference.path):
                    beside.append(difference)
                if len(beside) >= LOOK_AT_ONCE:
                    self._look_beside(beside, found)
            elif difference.what is What.UNREADABLE:
                delivered.failed[difference.path] = Failed(
                    reason=difference.why, scope=_SCOPE_OF[purpose]
                )
        self._look_beside(beside, found)
        return found.extraneous, found.beyond

    def _look_beside(self, beside: list[Difference], found: Findings) -> None:
        self._check_root()
        with self._looking() as looker:
            for difference in beside:
                keep_gone(difference, looker, found)
        beside.clear()

    async def _run(
        self,
        paths: Sequence[bytes],
        gone: Sequence[bytes],
        purpose: Purpose,
        delivered: Delivered,
        *,
        beside: bool = False,
        moved_entries: int = 0,
    ) -> None:
        """One run; where it does not tell which paths failed, halves of it until it does."""
        async with self._slots:
            # Here, and not before the wait for a slot: a mount may have gone meanwhile.
            self._check_root()
            reach(Point.SHIP_RUN)
            result = await self._transport.ship(
                paths,
                gone=gone,
                purpose=purpose,
                deadline_seconds=_DEADLINE_SECONDS,
                # What was counted and allowed is the brake, with room for what came since; a
                # small number stays below the warm rsync's own.
                max_delete=self._brake(moved_entries),
                beside=beside,
            )
        reach(Point.SHIP_ENDED)
        if self._mounts:
            # Only the root is pinned: what is mounted below may have gone under rsync's feet, who
            # then took its files for missing. Nothing counts, so they are sent when it is back.
            self._check_root()
        self._was_cut_off |= result.cut_off
        if result.outcome is Outcome.NOTHING:
            await self._halve(paths, gone, purpose, delivered, result, beside=beside)
            return
        delivered.shipped += len(paths)
        delivered.deleted += result.deleted
        delivered.bytes_sent += result.bytes_sent
        delivered.files += result.files
        delivered.file_bytes += result.file_bytes
        self._budget.note_deleted(max(0, result.deleted - moved_entries))
        kept = await self._kept_by_excludes(gone, result)
        for path, failure in result.failed.items():
            if path not in kept:
                delivered.failed[path] = self._failed(path, failure.reason, purpose)

    def _brake(self, moved_entries: int) -> int | None:
        if moved_entries:
            return moved_entries + self._budget.free_entries()
        return 2 * self._entries_allowed if self._entries_allowed > _FEW_DELETIONS else None

    async def _kept_by_excludes(self, gone: Sequence[bytes], result: RunResult) -> set[bytes]:
        """Directories that are gone, and that excluded files of the Node hold: all is done there.

        Nothing else can be deleted in them, says a dry run; without excludes it is not asked.
        """
        held = {
            path
            for path, failure in result.failed.items()
            if failure.kind is FailureKind.NOT_EMPTY
        } & set(gone)
        if not held or not self._has_excludes or result.stopped_deletions:
            return set()
        left = await self._entries_below((), gone=sorted(held))
        return set() if left else held

    async def _halve(
        self,
        paths: Sequence[bytes],
        gone: Sequence[bytes],
        purpose: Purpose,
        delivered: Delivered,
        result: RunResult,
        *,
        beside: bool,
    ) -> None:
        if result.trouble is not Trouble.UNATTRIBUTED:
            raise NodeTrouble(result)
        everything = [*paths, *gone]
        if len(everything) == 1:
            path = everything[0]
            delivered.failed[path] = self._failed(path, result.message, purpose)
            return
        self._log.warning("batch.halved", paths=len(everything), error=result.message)
        present = len(paths)
        middle = len(everything) // 2
        for part, start in ((everything[:middle], 0), (everything[middle:], middle)):
            cut = max(0, min(len(part), present - start))
            await self._run(part[:cut], part[cut:], purpose, delivered, beside=beside)

    async def _entries_below(self, paths: Sequence[bytes], *, gone: Sequence[bytes]) -> int:
        async with self._slots:
            result = await self._transport.count_deletions(
                paths, gone=gone, deadline_seconds=_DEADLINE_SECONDS
            )
        if result.outcome is Outcome.NOTHING:
            raise NodeTrouble(result)
        self._entries_allowed = max(self._entries_allowed, result.deleted)
        return result.deleted

    def _failed(self, path: bytes, reason: str, purpose: Purpose) -> Failed:
        """A directory that failed inside a tree stands for all below it."""
        try:
            kind = self._view.look(path).kind
        except OSError:
            # The root was let go of meanwhile: nothing is known of what is below.
            kind = LookKind.DIRECTORY
        is_whole = purpose in _WHOLE and kind is LookKind.DIRECTORY
        return Failed(reason=reason, scope=Scope.TREE if is_whole else Scope.ENTRY)

    def _add_siblings(self, plan: BatchPlan) -> set[bytes]:
        """Add the other names of linked files; returns the files that may have more.

        By checksum: a name whose file did not change, as after link(2), costs no data, and a
        write that kept size and time is found.
        """
        prefix = os.fsencode(self._node.subtree)
        prefix = prefix + b"/" if prefix else b""
        in_tree = {prefix + path: file for path, file in plan.linked.items()}
        try:
            with self._view.root.looking() as looker:
                found = self._links.siblings(
                    in_tree, (prefix + path for path in plan.unlinked), looker.look
                )
        except OSError as error:
            raise RootLost(f"tree {self._node.tree}: {error.strerror}") from error
        for name in found.names:
            path = name[len(prefix) :]
            if not name.startswith(prefix) or self._is_excluded(path, False):
                continue
            if path not in plan.content:
                plan.attributes.pop(path, None)
                plan.siblings.add(path)
        return {path[len(prefix) :] for path in found.unresolved}

    def _check_root(self) -> None:
        """Raise RootLost unless all is as it was when the paths of this Batch were looked at."""
        trouble = self._view.check()
        if trouble is not None:
            raise RootLost(trouble.message)
        now = self._view.root.guard.mount_numbers
        if self._mounts is not None and now != self._mounts:
            # It was away while paths were looked at, perhaps: what was missing may be there.
            raise RootLost(f"tree {self._node.tree}: what is mounted below its root just changed")

    @contextlib.contextmanager
    def _looking(self) -> Iterator[Looker]:
        try:
            with self._view.looking() as looker:
                yield looker
        except OSError as error:
            raise RootLost(f"node {self._node.name}: its subtree: {error.strerror}") from error

    async def _names_in_root(self) -> tuple[list[bytes], list[bytes]]:
        """(directories, everything else) directly in the root, less what is excluded."""
        folders: list[bytes] = []
        files: list[bytes] = []
        try:
            names = await asyncio.to_thread(self._view.names)
        except OSError as error:
            raise RootLost(f"node {self._node.name}: its subtree: {error.strerror}") from error
        for name, is_dir in names:
            if not self._is_excluded(name, is_dir):
                (folders if is_dir else files).append(name)
        return folders, files


async def differences(
    transport: Shipping, paths: Sequence[bytes], *, purpose: Purpose
) -> AsyncGenerator[Difference]:
    """The findings of a dry run. Raises NodeTrouble, after them, where it did not run through."""
    async with transport.compare(
        paths, purpose=purpose, deadline_seconds=_DEADLINE_SECONDS
    ) as comparison:
        async for difference in comparison:
            yield difference
        if comparison.result.outcome is Outcome.NOTHING or comparison.result.stopped_deletions:
            raise NodeTrouble(comparison.result)
