"""A request under way: which Nodes it is about, and what is to be reached on each."""

from __future__ import annotations

from dataclasses import dataclass, field

from shardsync.journal.records import NodeKey
from shardsync.journal.requests import Request


@dataclass(slots=True, kw_only=True)
class Running:
    """A request under way. `until`: per Node the Cursors that answer it; `total` of its pieces.

    `stalled_us`: since when nothing of it went on, as all that is left backs off; 0: it did.
    `joined`: later requests. What is open for this one, and asked for again, bears their ids.
    """

    request: Request
    began_us: int
    keys: list[NodeKey]
    until: dict[NodeKey, dict[str, int]] = field(default_factory=dict)
    total: int = 0
    stalled_us: int = 0
    joined: set[str] = field(default_factory=set)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the requests that its open work may bear."""
        return (self.request.id, *self.joined)
