"""Puts a Watcher together from its parts, on the real kernel and disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from shardsync.clock import Clock
from shardsync.errors import StateUnusable
from shardsync.inotify import COOKIE_MASK, Inotify
from shardsync.journal.plan import Plan, PlannedShard
from shardsync.journal.writer import JournalWriter
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log
from shardsync.watch import guard
from shardsync.watch.agenda import Agenda
from shardsync.watch.beside import Beside
from shardsync.watch.catching_up import CatchingUp
from shardsync.watch.committing import Committing
from shardsync.watch.cookies import Cookies
from shardsync.watch.directories import DirectoryTable
from shardsync.watch.elders import Elders
from shardsync.watch.entering import Entering, Watches
from shardsync.watch.events import Fold
from shardsync.watch.forgetting import Forgetting
from shardsync.watch.gathered import Filter, Gathered
from shardsync.watch.ground import Ground
from shardsync.watch.judging import Judge, Memory
from shardsync.watch.known_root import KnownRoot
from shardsync.watch.leaving import Leaving
from shardsync.watch.ledger import Ledger
from shardsync.watch.mount_points import MountPoints
from shardsync.watch.mounts import MountsBelow, MountTable
from shardsync.watch.pending import FileProbe, PendingFiles
from shardsync.watch.polling import Polling
from shardsync.watch.prefixes import Prefixes
from shardsync.watch.recollection import Recollection
from shardsync.watch.root import WatchedRoot
from shardsync.watch.rule import Found
from shardsync.watch.scan import Scanner
from shardsync.watch.standing import Standing
from shardsync.watch.sub_roots import SubRoots
from shardsync.watch.supply import WatchSupply
from shardsync.watch.territory import Territory
from shardsync.watch.tops import Tops
from shardsync.watch.unclosed import Unclosed
from shardsync.watch.watcher import Retention, Watcher

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def prefixes_of(plan: Plan, shard: PlannedShard) -> Prefixes:
    """What `shard` owns under `plan`, and what is others'."""
    return Prefixes(mine=shard.prefixes, foreign=plan.foreign_to(shard))


def boot_id() -> str:
    """What tells this boot from all others."""
    try:
        with open(_BOOT_ID, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def open_watcher(
    *,
    shard: PlannedShard,
    plan: Plan,
    root: bytes,
    state: StateDirectory,
    open_journal: Callable[[], JournalWriter],
    excluded: Filter,
    max_open_seconds: float,
    retention: Retention,
    clock: Clock,
    log: Log,
    wake_fd: int | None = None,
) -> Watcher:
    """A Watcher ready to `start`; its cookie directory is watched before all else.

    `root`: resolved. Raises OSError (no inotify instance or watch to be had)
    and StateUnusable.
    """
    journal = open_journal()
    folder = os.fsencode(state.cookies)
    inotify, cookie_wd = _watched_cookies(folder, journal)
    table, gathered = DirectoryTable(), Gathered()
    probe = FileProbe(root=root)
    pending = PendingFiles(probe=probe, max_open_seconds=max_open_seconds)
    beside = Beside(kind=probe.kind)
    prefixes = prefixes_of(plan, shard)
    ledger = Ledger(
        journal=journal,
        gathered=gathered,
        table=table,
        excluded=excluded,
        beside=beside,
        clock=clock,
        log=log,
        boot_id=boot_id(),
        identify=guard.file_system,
        elders=Elders(state.journal(giver) for giver in shard.takes_from),
    )
    ground = Ground(root=root)
    watches = WatchSupply(inotify=inotify, table=table, ground=ground)
    sub_roots = SubRoots(remember=ledger.sub_root, identify=guard.file_system, clock=clock)
    recollection = Recollection(memory=ledger)
    scanner = scanner_of(
        ground=ground,
        watches=watches,
        table=table,
        memory=recollection,
        sub_roots=sub_roots,
        gathered=gathered,
        excluded=excluded,
        clock=clock,
        prefixes=prefixes,
    )
    forgetting = Forgetting(table=table, remembered=ledger.remembered, tops=sub_roots.tops)
    leaving = Leaving(
        watches=watches,
        table=table,
        agenda=scanner.agenda,
        sub_roots=sub_roots,
        found=scanner.found,
    )
    tops = Tops(
        prefixes=prefixes.mine,
        watches=watches,
        table=table,
        scanner=scanner,
        gathered=gathered,
        leave=leaving.leave,
        clock=clock,
    )
    mount_points = MountPoints(
        watches=watches,
        table=table,
        scanner=scanner,
        tops=tops,
        leaving=leaving,
        gathered=gathered,
        excluded=excluded,
    )
    territory = Territory(
        watches=watches,
        table=table,
        scanner=scanner,
        tops=tops,
        leaving=leaving,
        mount_points=mount_points,
        forgetting=forgetting,
        gathered=gathered,
        excluded=excluded,
    )
    fold = Fold(
        gathered=gathered, surroundings=territory, opened=pending.opened, cookie_wd=cookie_wd
    )
    cookies = Cookies(folder=folder, shard=shard.id)
    standing = Standing(
        scanner=scanner,
        territory=territory,
        mount_points=mount_points,
        pending=pending,
        fold=fold,
        forgetting=forgetting,
        clock=clock,
    )
    polling = Polling(
        standing=standing,
        scanner=scanner,
        territory=territory,
        mount_points=mount_points,
        recollection=recollection,
        cookies=cookies,
        clock=clock,
        log=log,
    )
    catching_up = CatchingUp(
        standing=standing,
        scanner=scanner,
        territory=territory,
        ledger=ledger,
        fold=fold,
        gathered=gathered,
        cookies=cookies,
        polling=polling,
        forgetting=forgetting,
        recollection=recollection,
        clock=clock,
        log=log,
    )
    mounts = MountsBelow(
        table=MountTable(root=root), points=mount_points, territory=territory, log=log
    )
    return Watcher(
        shard=shard,
        generation=plan.generation,
        inotify=inotify,
        cookies=cookies,
        fold=fold,
        gathered=gathered,
        pending=pending,
        beside=beside,
        unclosed=Unclosed(
            fold=fold,
            gathered=gathered,
            pending=pending,
            probe=probe,
            scanner=scanner,
            excluded=excluded,
            clock=clock,
        ),
        scanner=scanner,
        territory=territory,
        leaving=leaving,
        mount_points=mount_points,
        ledger=ledger,
        standing=standing,
        forgetting=forgetting,
        polling=polling,
        catching_up=catching_up,
        root=WatchedRoot(
            path=root,
            standing=standing,
            scanner=scanner,
            territory=territory,
            ledger=ledger,
            cookies=cookies,
            catching_up=catching_up,
            known=KnownRoot(state_db=state.state_db, tree=shard.tree, boot_id=boot_id()),
            said=ChangeOnly(clock=clock),
            log=log,
        ),
        committing=Committing(
            standing=standing,
            scanner=scanner,
            territory=territory,
            leaving=leaving,
            mount_points=mount_points,
            ledger=ledger,
            gathered=gathered,
            pending=pending,
            beside=beside,
            fold=fold,
            cookies=cookies,
            polling=polling,
            catching_up=catching_up,
            mounts=mounts,
            clock=clock,
        ),
        mounts=mounts,
        reopen=open_journal,
        retention=retention,
        clock=clock,
        log=log,
        wake_fd=wake_fd,
    )


def scanner_of(
    *,
    ground: Ground,
    watches: Watches,
    table: DirectoryTable,
    memory: Memory,
    sub_roots: SubRoots,
    gathered: Gathered,
    excluded: Filter,
    clock: Clock,
    prefixes: Prefixes,
) -> Scanner:
    """A Scanner that has nothing to scan yet."""
    found = Found()
    judge = Judge(
        ground=ground,
        memory=memory,
        sub_roots=sub_roots,
        gathered=gathered,
        found=found,
        clock=clock,
    )
    return Scanner(
        ground=ground,
        watches=watches,
        table=table,
        agenda=Agenda(table=table),
        judge=judge,
        entering=Entering(
            ground=ground,
            watches=watches,
            table=table,
            judge=judge,
            sub_roots=sub_roots,
            found=found,
        ),
        sub_roots=sub_roots,
        found=found,
        gathered=gathered,
        excluded=excluded,
        clock=clock,
        prefixes=prefixes,
    )


def _watched_cookies(folder: bytes, journal: JournalWriter) -> tuple[Inotify, int]:
    """The inotify instance, with its first watch. Raises OSError, and `status` says why."""
    inotify = None
    try:
        inotify = Inotify.open()
        return inotify, inotify.add(folder, COOKIE_MASK)
    except OSError as error:
        if inotify is not None:
            inotify.close()
        with contextlib.suppress(StateUnusable):
            journal.commit(progress={"last_error": error.strerror or str(error)})
        journal.close()
        raise
