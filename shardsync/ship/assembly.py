"""Puts together from its parts what serves a Tree, and what serves a Node."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping

from shardsync.clock import Clock
from shardsync.config.patterns import PathFilter, first_filter, node_filter
from shardsync.config.settings import NodeSettings, Settings, TreeSettings
from shardsync.config.windows import Window
from shardsync.journal.records import NodeKey, WorkReason
from shardsync.journal.state_reader import StateReader
from shardsync.journal.state_writer import StateWriter
from shardsync.layout import StateDirectory
from shardsync.log import Log
from shardsync.ship.audit import Auditor
from shardsync.ship.backlog import Backlog
from shardsync.ship.big_files import BigFiles
from shardsync.ship.command import Capabilities
from shardsync.ship.comparing import Comparing
from shardsync.ship.deletions import DeletionBudget
from shardsync.ship.delivery import Delivery
from shardsync.ship.dividing import Dividing
from shardsync.ship.fingerprint import Fingerprint
from shardsync.ship.first_contact import FirstContact
from shardsync.ship.janitor import InFlight
from shardsync.ship.journals import TreeJournals
from shardsync.ship.links import HardLinks
from shardsync.ship.moving import Mover, Sharing
from shardsync.ship.observer import ShipObserver
from shardsync.ship.post import Post, ServedTree
from shardsync.ship.root import RootGuard, RootIdentity
from shardsync.ship.slots import RsyncSlots
from shardsync.ship.station import Station
from shardsync.ship.syncer import Syncer
from shardsync.ship.target_folder import TargetFolder
from shardsync.ship.transport import NodeTransport
from shardsync.ship.view import NodeView, TreeRoot


class Assembly:
    """Makes the parts, and hands each what it needs of the others."""

    def __init__(
        self,
        *,
        state_dir: StateDirectory,
        state: StateWriter,
        observer: ShipObserver,
        environment: Mapping[str, str],
        clock: Clock,
        log: Log,
    ) -> None:
        self._state_dir = state_dir
        self._state = state
        self._observer = observer
        self._environment = environment
        self._clock = clock
        self._log = log

    def tree(self, tree: TreeSettings) -> ServedTree:
        """A Tree with what its Nodes share."""
        log = self._log.bind(tree=tree.name)
        root = TreeRoot(
            guard=RootGuard(
                path=os.fsencode(tree.root),
                marker=tree.marker,
                known=RootIdentity.parse(self._state.read.root_identity(tree.name)),
            ),
            clock=self._clock,
        )
        journals = TreeJournals(tree=tree.name, state_dir=self._state_dir, log=log)
        return ServedTree(
            settings=tree,
            root=root,
            journals=journals,
            backlog=Backlog(journals=journals, clock=self._clock),
            links=HardLinks(
                tree=tree.name,
                view=NodeView(root=root, subtree=b""),
                state=self._state,
                clock=self._clock,
                log=log,
            ),
        )

    def post(
        self,
        settings: Settings,
        node: NodeSettings,
        *,
        window: Window | None,
        tree: ServedTree,
        slots: RsyncSlots,
        big_turns: asyncio.Semaphore,
    ) -> Post:
        """A Node as `node` has it, which `window` is in force for."""
        log = self._log.bind(tree=node.tree, node=node.name)
        row = self._state.know_node(node.key)
        if node.paused is not row.pause_setting:
            # What an operator did since holds until the setting itself is changed.
            self._state.set_node(
                node.key,
                paused=int(node.paused),
                paused_until=None,
                pause_setting=int(node.paused),
                window_pause=0,
            )
        subtree = os.fsencode(node.subtree)
        path_filter = node_filter(node).rebased(subtree)
        first = _first(node, subtree)
        view = NodeView(root=tree.root, subtree=subtree)
        folder = TargetFolder(target=node.target)
        transport = NodeTransport(
            node=node,
            source=tree.root.guard,
            clock=self._clock,
            environment=self._environment,
            filters=tuple(path_filter.rsync_arguments()),
            first=_arguments(first, b""),
            capabilities=_capabilities(row.capabilities),
            slots=slots.of(node.key),
            on_written=folder.note,
        )
        budget = DeletionBudget(
            key=node.key,
            limit=settings.sync.max_delete,
            state=self._state.read,
            count_entries=lambda: asyncio.to_thread(view.count_entries),
            clock=self._clock,
        )
        in_flight = InFlight()
        delivery = Delivery(
            node=node,
            transport=transport,
            view=view,
            is_excluded=path_filter.excludes,
            excludes=tuple(path_filter.rsync_arguments()),
            known_foreign=lambda: _known_foreign(self._state.read, node.key),
            budget=budget,
            limits=settings.sync,
            slots=slots.of(node.key),
            links=tree.links,
            is_first=None if first is None else lambda path: not first.excludes(path, False),
            mover=Mover(
                transport=transport,
                sharing=Sharing(key=node.key, state=self._state, clock=self._clock),
                slots=slots.of(node.key),
                first_below=lambda path: _arguments(first, path),
                filters_below=lambda path: tuple(path_filter.rebased(path).rsync_arguments()),
                is_divided=lambda path: tree.journals.divides(
                    b"/".join(part for part in (subtree, path) if part)
                ),
                may_link=node.delete,
                log=log,
            ),
            log=log,
            in_flight=in_flight,
        )
        big_files = BigFiles(
            key=node.key,
            state=self._state,
            transport=transport,
            view=view,
            turns=big_turns,
            observer=self._observer,
            in_flight=in_flight,
            more_than=settings.sync.big_file_bytes,
            clock=self._clock,
            log=log,
        )
        comparing = Comparing(
            key=node.key,
            state=self._state,
            delivery=delivery,
            transport=transport,
            view=view,
            journals=tree.journals,
            subtree=node.subtree,
            is_excluded=path_filter.excludes,
            in_flight=in_flight,
            clock=self._clock,
            log=log,
        )
        dividing = Dividing(
            journals=tree.journals,
            view=view,
            is_excluded=path_filter.excludes,
            clock=self._clock,
        )
        first_contact = FirstContact(
            node=node,
            journals=tree.journals,
            state=self._state,
            transport=transport,
            view=view,
            dividing=dividing,
            folder=folder,
            fingerprint=Fingerprint(
                target=str(node.target),
                root=str(settings.tree(node.tree).root),
                subtree=node.subtree,
                filters=tuple(path_filter.rsync_arguments()),
            ),
            clock=self._clock,
            log=log,
        )
        syncer = Syncer(
            node=node,
            journals=tree.journals,
            backlog=tree.backlog,
            slots=slots.of(node.key),
            state=self._state,
            delivery=delivery,
            comparing=comparing,
            first_contact=first_contact,
            links=tree.links,
            budget=budget,
            big_files=big_files,
            limits=settings.sync,
            observer=self._observer,
            clock=self._clock,
            log=log,
        )
        station = Station(
            syncer=syncer,
            first_contact=first_contact,
            journals=tree.journals,
            root=tree.root,
            subtree=subtree,
        )
        return Post(
            node=node,
            window=window,
            sync=settings.sync,
            tree=tree,
            station=station,
            transport=transport,
            auditor=Auditor(
                node=node,
                state=self._state,
                journals=tree.journals,
                transport=transport,
                view=view,
                dividing=dividing,
                in_flight=in_flight,
                wake=syncer.wake,
                clock=self._clock,
                log=log,
            ),
        )


def _known_foreign(state: StateReader, key: NodeKey) -> frozenset[bytes] | None:
    """What is kept on a Node that is not owned; None while it is still being compared, and where
    there is more than is listed.
    """
    comparing = {WorkReason.BOOTSTRAP, WorkReason.RECONCILE}
    if not comparing.isdisjoint(state.work_reasons(key)):
        return None
    paths = frozenset(state.foreign_paths(key))
    return paths if len(paths) == state.nodes()[key].foreign_paths else None


def _first(node: NodeSettings, subtree: bytes) -> PathFilter | None:
    """What is sent before all else; None where nothing of what the Node takes is."""
    first = first_filter(node)
    if first is None or first.excludes(subtree, is_dir=True):
        return None
    return first.rebased(subtree)


def _arguments(path_filter: PathFilter | None, folder: bytes) -> tuple[str, ...]:
    return () if path_filter is None else tuple(path_filter.rebased(folder).rsync_arguments())


def _capabilities(text: str) -> Capabilities:
    """What was learned of the Node's rsync before; the best is assumed of a new one."""
    return Capabilities(**json.loads(text)) if text else Capabilities()
