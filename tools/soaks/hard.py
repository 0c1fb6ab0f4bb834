"""Faults that take something away: files of the state, a Node's files or space, the root."""

from __future__ import annotations

import contextlib
import errno
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tools.soaks.keeper import Keeper, paths_below
from tools.soaks.site import Site

_PAGE = 4096
_WAIT_SECONDS = 30.0
_HUNG_SECONDS = 60.0
"""An rsync that stands still is ended after a minute."""


class Scene:
    """What faults act on. `shards`: what the settings say just now. `wrong`: what was seen."""

    def __init__(self, *, site: Site, keeper: Keeper) -> None:
        self.site = site
        self.keeper = keeper
        self.shards = 3
        self.wrong: list[str] = []
        self.dice = random.Random(0)  # noqa: S311 (to be repeatable)
        self.old_state = site.folder / "state.old"

    def with_dice(self, dice: random.Random) -> Scene:
        """For one fault: its luck does not depend on what others do meanwhile."""
        self.dice = dice
        return self

    def keep_state(self) -> None:
        """A copy of state.db as it is now, to be put back later; else the one before is kept."""
        made = self.old_state.with_suffix(".new")
        made.unlink(missing_ok=True)
        source = sqlite3.connect(f"file:{self.site.state.state_db}?mode=ro", uri=True)
        target = sqlite3.connect(made)
        try:
            with contextlib.closing(source), contextlib.closing(target):
                source.backup(target)
        except sqlite3.OperationalError:
            return  # it was replaced under readers of this process, who share its locks
        made.rename(self.old_state)


def damage_journal(scene: Scene) -> None:
    """Some pages of one are overwritten while its Watcher is down."""
    shard = _some_shard(scene)
    if shard is None:
        return
    name, program = shard
    scene.site.supervisorctl("stop", f"shardsync:{program}")
    path = scene.site.state.journal(name)
    # As after a crash: what is damaged is found now, and not in some later round.
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as found:
        found.execute("UPDATE progress SET clean_stop = 0")
        found.commit()
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        pages = max(1, path.stat().st_size // _PAGE)
        for _ in range(max(3, pages // 4)):
            file.seek(scene.dice.randrange(pages) * _PAGE)
            file.write(scene.dice.randbytes(_PAGE))
    scene.site.supervisorctl("start", f"shardsync:{program}")


def unlink_journal(scene: Scene) -> None:
    """While its Watcher writes on."""
    shard = _some_shard(scene)
    if shard is None:
        return
    path = scene.site.state.journal(shard[0])
    with_all = scene.dice.random() < 0.5
    for suffix in ("", "-wal", "-shm") if with_all else ("",):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _some_shard(scene: Scene) -> tuple[str, str] | None:
    shards = [
        (str(shard["id"]), str(shard["program"]).rpartition(":")[2])
        for shard in scene.site.status()["shards"]
        if shard["program"]
    ]
    return scene.dice.choice(sorted(shards)) if shards else None


def restore_state(scene: Scene) -> None:
    """As from a backup of some minutes ago."""
    if not scene.old_state.exists():
        return
    scene.keeper.excused.add("cursors")
    path = scene.site.state.state_db
    scene.site.supervisorctl("stop", "shardsync:sync")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    # Another file: connections of this process share what SQLite remembers of the one before.
    made = path.with_suffix(".restored")
    shutil.copyfile(scene.old_state, made)
    made.rename(path)
    scene.site.supervisorctl("start", "shardsync:sync")


def empty_node(scene: Scene) -> None:
    """As a disk that was replaced, while the Node is away or the sync process is down."""
    name = scene.dice.choice(("web1", "web2"))
    scene.keeper.excused.add(name)
    if name == "web2":
        scene.site.daemon.stop()
    else:
        scene.site.supervisorctl("stop", "shardsync:sync")
    _empty(scene.site.nodes[name])
    if name == "web2":
        # An outage is noticed only by what is tried meanwhile.
        time.sleep(scene.dice.uniform(1.0, 3.0))
        scene.site.daemon.start()
    else:
        scene.site.supervisorctl("start", "shardsync:sync")


def _empty(folder: Path) -> None:
    """Again until nothing is left: an rsync that was killed may be at its last file yet."""
    while paths := list(folder.iterdir()):
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def fill_disk(scene: Scene) -> None:
    """The disk of web3 is full for some seconds."""
    ballast = scene.site.small_disk / f"ballast-{threading.get_ident()}"  # two may fill it at once
    try:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        time.sleep(scene.dice.uniform(1.0, 5.0))
    finally:
        ballast.unlink()


def unmount_root(scene: Scene) -> None:
    """The tree's file system goes for some seconds; meanwhile nothing is deleted anywhere."""
    site = scene.site
    is_lazy = scene.dice.random() < 0.5
    if not is_lazy:
        for name in site.nodes:
            site.command("pause", name, check=False)
        is_lazy = not _until(site.umount_tree)
    if is_lazy:
        site.umount_tree("-l")
    if not _halts(site):
        scene.wrong.append("the root was unmounted, and the Tree or a Node is not halted")
    before = {name: paths_below(folder) for name, folder in site.nodes.items()}
    for name in site.nodes:
        site.command("resume", name, check=False)
    time.sleep(scene.dice.uniform(1.0, 4.0))
    for name, folder in site.nodes.items():
        if lost := before[name] - paths_below(folder):
            scene.wrong.append(f"{name}: {min(lost)} went while the root was unmounted")
    site.mount_tree()


def _halts(site: Site) -> bool:
    if _until(lambda: _is_halted(site)):
        return True
    site.tell_rsyncs("a Node has not halted yet after the root was unmounted")
    return _until(lambda: _is_halted(site), _HUNG_SECONDS)


def _is_halted(site: Site) -> bool:
    """Whether nothing is sent any more. A Batch that had begun ends with the root it began with,
    which a lazy unmount leaves it: what it deletes was gone.
    """
    told = site.status()
    ended = {"halted", "paused", "backing_off"}
    is_tree = told["trees"][0]["state"] == "halted"
    return is_tree and all(node["state"] in ended for node in told["nodes"])


def _until(what: Callable[[], bool], seconds: float = _WAIT_SECONDS) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.2)
    return False
