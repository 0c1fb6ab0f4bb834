"""What a Node is asked apart from its files, and what its answers teach."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

from shardsync.ship.command import Capabilities
from shardsync.ship.outcome import Outcome, RunResult, Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The names at the top of a Node's target: none if it is empty, or not there yet.

    `result` tells whether `names` can be believed; `is_cut`: there are more. `is_missing`:
    rsync would have to make the folder (told for plain folders and ssh).
    """

    names: tuple[bytes, ...]
    is_missing: bool
    is_cut: bool
    result: RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a Node answered: its abilities, or `result` with the trouble."""

    capabilities: Capabilities
    result: RunResult


def learned(able: Capabilities, result: RunResult) -> Capabilities:
    """What a refusal teaches; each ability is lost once, so whoever repeats comes to an end."""
    said = " ".join([result.message, *result.unattributed])
    if result.trouble is Trouble.MISSING_ARGS:
        return replace(able, delete_missing_args=False)
    refused = "modify-window" in said or "rrsync error" in said
    if result.outcome is Outcome.NOTHING and refused:
        return replace(able, modify_window=False)
    return able


def joined(first: RunResult, second: RunResult) -> RunResult:
    """Two runs as one: the worse outcome, all failures, added figures."""
    worse = second if second.outcome is not Outcome.SHIPPED else first
    return replace(
        worse,
        listed=first.listed + second.listed,
        sent=first.sent + second.sent,
        deleted=first.deleted + second.deleted,
        bytes_sent=first.bytes_sent + second.bytes_sent,
        failed={**first.failed, **second.failed},
        vanished=(*first.vanished, *second.vanished),
        notes=(*first.notes, *second.notes),
        stopped_deletions=first.stopped_deletions or second.stopped_deletions,
        seconds=first.seconds + second.seconds,
    )


@contextlib.contextmanager
def open_to_all() -> Iterator[str]:
    """A folder of ours to be read as a source: with `run_as`, by another user."""
    with tempfile.TemporaryDirectory(prefix="shardsync-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 (nothing but the name of a probe is in it)
        yield folder
