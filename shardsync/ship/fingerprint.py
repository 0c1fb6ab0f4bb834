"""What of the settings decides which files a Node holds, and where, as state.db remembers it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What of the settings decides which files a Node holds, and where."""

    target: str
    root: str
    subtree: str
    filters: tuple[str, ...]

    @property
    def text(self) -> str:
        """For state.db."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Fingerprint | None:
        """What `text` gave; None for "" (a new Node)."""
        if not text:
            return None
        values = json.loads(text)
        return cls(**{**values, "filters": tuple(values["filters"])})
