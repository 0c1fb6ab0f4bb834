"""Marks of settings: equal marks, equal settings. How `reload` sees who runs which.

The file's own place is left out: two spellings of its path are no difference. So is what
only says how the file is written.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from shardsync.config.settings import Settings


def settings_mark(settings: Settings) -> str:
    """The mark of all settings: what the sync process and the Coordinator note."""
    plain = replace(settings, source=Path(), include_files=(), node_defaults=None)
    return _mark(repr(plain))


def tree_mark(settings: Settings, tree: str) -> str:
    """The mark of what a Watcher of this Tree goes by. Raises KeyError for an unknown Tree."""
    kept = (settings.retention_seconds, settings.journal_max_bytes)
    return _mark(repr((settings.tree(tree), kept)))


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
