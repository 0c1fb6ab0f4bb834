"""Runs the Watcher of one Shard inside a slot: opens it, ticks it, follows the Plan, stops it.

Whatever fails for a while (settings being edited, no inotify instance left, a
full disk) is logged and tried again; only a stop or the Plan ends this loop, or
settings that ask for another Watcher: the slot then opens it at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shardsync.clock import SystemClock
from shardsync.config.load import load_again, load_settings
from shardsync.config.marks import tree_mark
from shardsync.config.patterns import tree_filter
from shardsync.config.settings import Settings, TreeSettings
from shardsync.errors import ShardsyncError, StateUnusable
from shardsync.failpoints import Point, reach
from shardsync.journal.plan import Plan, PlannedShard, PlanState, read_plan
from shardsync.journal.writer import JournalWriter
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log
from shardsync.watch.assemble import open_watcher, prefixes_of
from shardsync.watch.pending import FileProbe
from shardsync.watch.root import root_of
from shardsync.watch.watcher import Retention, Watcher

if TYPE_CHECKING:
    from shardsync.watch.slot import Stop

RETRY_SECONDS = 2.0


def observe(
    *,
    shard: PlannedShard,
    plan: Plan,
    state: StateDirectory,
    settings_file: Path | None,
    stop: Stop,
    log: Log,
) -> None:
    """Watch `shard` until `stop`, or until the Plan takes it from this slot.

    The caller holds the Journal's lock.
    """
    FileProbe.ignore_lease_signals()
    said = ChangeOnly(clock=SystemClock())
    while not stop.wanted and _still_ours(shard, read_plan(state.plan)):
        stop.take_reload()
        try:
            settings = load_settings(settings_file, os.environ, Path.cwd(), root_must_exist=False)
            watcher = _open(shard, plan, state, settings, stop, log)
            watcher.start()
            _take(watcher, settings, plan)
        except (ShardsyncError, OSError, KeyError) as error:
            if said.is_due(str(error)):
                log.error("watcher.waits", error=error)  # noqa: TRY400 (an operator wants the error, not a trace)
            stop.wait(RETRY_SECONDS)
            continue
        _tick(watcher, plan, state, settings, stop, log)
        watcher.stop()
        return


def _tick(
    watcher: Watcher,
    plan: Plan,
    state: StateDirectory,
    settings: Settings,
    stop: Stop,
    log: Log,
) -> None:
    while not stop.wanted:
        plan_changed = watcher.tick().plan_changed
        if stop.take_reload() and _is_another_wanted(watcher, plan, state, settings, log):
            return
        if not plan_changed:
            continue
        try:
            fresh = read_plan(state.plan) or plan
        except StateUnusable as error:
            log.error("plan.unusable", error=error)  # noqa: TRY400 (as above)
            continue
        shard = _still_ours(watcher.shard, fresh)
        if shard is None:
            log.info("shard.retired")
            reach(Point.WATCH_RETIRED)
            return
        if fresh.generation != plan.generation:
            plan = fresh
            watcher.follow(shard, generation=plan.generation, prefixes=prefixes_of(plan, shard))


def _is_another_wanted(
    watcher: Watcher, plan: Plan, state: StateDirectory, settings: Settings, log: Log
) -> bool:
    """Read the settings again. Whether they ask for a Watcher that goes by other rules.

    Wrong ones change nothing. Another root is the Plan's affair: it retires this Shard.
    """
    try:
        fresh = load_again(settings.source, os.environ, Path.cwd(), state_dir=state.path)
    except ShardsyncError as error:
        log.error("settings.refused", error=error, hint=error.remedy)  # noqa: TRY400 (as above)
        return False
    tree = settings.tree(watcher.shard.tree)
    new = next((item for item in fresh.trees if item.name == tree.name), None)
    if new is None or new.root != tree.root:
        log.info("settings.wait", until="the plan follows them")
        return False
    if _rules(new) == _rules(tree):
        _take(watcher, fresh, plan)
        return False
    log.info("settings.loaded", answer="the shard is opened anew")
    return True


def _rules(tree: TreeSettings) -> tuple[object, ...]:
    """What cannot be changed under a running Watcher."""
    return (tree.exclude, tree.include, tree.max_open_seconds)


def _take(watcher: Watcher, settings: Settings, plan: Plan) -> None:
    """Have it run what can be changed while it does, and note whose settings these are."""
    mark = tree_mark(settings, watcher.shard.tree)
    watcher.take_settings(_retention(settings, plan), mark=mark)


def _still_ours(shard: PlannedShard, plan: Plan | None) -> PlannedShard | None:
    """The Shard as the Plan has it now, None if this slot is not to observe it any more."""
    now = plan.shard(shard.id) if plan else None
    if now is None or now.state is PlanState.RETIRED or now.slot != shard.slot:
        return None
    return now


def _open(
    shard: PlannedShard,
    plan: Plan,
    state: StateDirectory,
    settings: Settings,
    stop: Stop,
    log: Log,
) -> Watcher:
    clock = SystemClock()
    tree = settings.tree(shard.tree)
    return open_watcher(
        shard=shard,
        plan=plan,
        root=root_of(tree.root),
        state=state,
        open_journal=lambda: JournalWriter.open(
            state.journal(shard.id), shard=shard.id, tree=shard.tree, clock=clock
        ),
        excluded=tree_filter(tree),
        max_open_seconds=tree.max_open_seconds,
        retention=_retention(settings, plan),
        clock=clock,
        log=log,
        wake_fd=stop.fd,
    )


def _retention(settings: Settings, plan: Plan) -> Retention:
    """`journal_max` is for all Journals together."""
    share = settings.journal_max_bytes // max(1, len(plan.shards))
    return Retention(seconds=settings.retention_seconds, max_bytes=share)
