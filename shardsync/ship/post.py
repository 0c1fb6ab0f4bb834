"""What serves one Node, all its parts together, and what the Nodes of a Tree share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from shardsync.config.settings import NodeSettings, SyncSettings, TreeSettings
from shardsync.config.windows import Window
from shardsync.ship.audit import Auditor
from shardsync.ship.backlog import Backlog
from shardsync.ship.journals import TreeJournals
from shardsync.ship.links import HardLinks
from shardsync.ship.station import Station
from shardsync.ship.transport import NodeTransport
from shardsync.ship.view import TreeRoot

STOP_SECONDS = 20.0
"""What is under way may take so long to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Tasks of one part, which end soon after `stopping` is set."""

    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def end(self) -> None:
        """Wait for what was told to stop; cut off what takes too long."""
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=STOP_SECONDS)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTree:
    """One Tree with what its Nodes share."""

    settings: TreeSettings
    root: TreeRoot
    journals: TreeJournals
    backlog: Backlog
    links: HardLinks
    work: Work = field(default_factory=Work)

    @property
    def name(self) -> str:
        return self.settings.name

    def fits(self, settings: TreeSettings | None) -> bool:
        """Whether it is what these settings ask for; excludes are each Node's own affair."""
        own = (self.settings.root, self.settings.marker)
        return settings is not None and own == (settings.root, settings.marker)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One Node with all its parts, and the settings that they were made of."""

    node: NodeSettings
    window: Window | None
    sync: SyncSettings
    tree: ServedTree
    station: Station
    transport: NodeTransport
    auditor: Auditor
    work: Work = field(default_factory=Work)

    def stop(self) -> None:
        self.work.stopping.set()
        self.station.syncer.wake()
