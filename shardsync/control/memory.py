"""What the Coordinator remembers from run to run: which slots it has had started, and for what.

Without it an operator's `stop` of a Watcher would be undone by the next
restart of the Coordinator. Losing the file costs only that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shardsync.files import replace_file
from shardsync.model import ShardId

MEMORY_FILE = "coordinator.json"
"""Its name in the state directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """`supervisord`: which life of supervisord `started` is about (another one: an `up`).

    `started`: slot -> the Shard it was started for. `made_for`: the settings
    that the Plan was last brought to, as text to compare. `roots`: Tree ->
    the root that its Shards observe. `replanned_at_us`: Tree -> when it was
    last planned anew, or found to be as even as can be; Unix microseconds.
    `settings`: the mark of those that the Coordinator goes by. `stuck`: Tree -> why its Plan is
    not brought to them, and what an operator must do about it.
    """

    supervisord: str = ""
    started: Mapping[int, ShardId] = field(default_factory=dict)
    made_for: str = ""
    roots: Mapping[str, str] = field(default_factory=dict)
    replanned_at_us: Mapping[str, int] = field(default_factory=dict)
    settings: str = ""
    stuck: Mapping[str, str] = field(default_factory=dict)


def read_memory(path: Path) -> Memory:
    """What was remembered; an unreadable file counts as none."""
    try:
        raw = json.loads(path.read_text("utf-8"))
        return Memory(
            supervisord=str(raw["supervisord"]),
            started={int(slot): ShardId(shard) for slot, shard in raw["started"].items()},
            made_for=str(raw["made_for"]),
            roots={str(tree): str(root) for tree, root in raw["roots"].items()},
            replanned_at_us={str(tree): int(at) for tree, at in raw["replanned_at_us"].items()},
            settings=str(raw.get("settings", "")),
            stuck={str(tree): str(why) for tree, why in raw.get("stuck", {}).items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Memory()


def write_memory(path: Path, memory: Memory) -> None:
    """Replace what is remembered. Raises OSError."""
    replace_file(
        path,
        json.dumps(
            {
                "supervisord": memory.supervisord,
                "started": {str(slot): shard for slot, shard in memory.started.items()},
                "made_for": memory.made_for,
                "roots": dict(memory.roots),
                "replanned_at_us": dict(memory.replanned_at_us),
                "settings": memory.settings,
                "stuck": dict(memory.stuck),
            }
        ),
    )
