"""What goes wrong while the tree changes. Each fault ends in a healed world, never in silence."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tools.soaks import hard
from tools.soaks.ground import STILL
from tools.soaks.hard import Scene

_STOPPED_SECONDS = (0.5, 4.0)
_FLOOD = 12_000
"""Pairs of events in a row: more than the kernel's queue of 16,384 holds."""
_TWICE_SHARE = 0.25
_EVERY = (120, 500)
"""Operations from one fault to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`alone`: nothing else goes wrong meanwhile. `still`: nothing changes meanwhile.

    `compares`: the answer is a comparison by design. `root`: only root can do it.
    """

    weight: int
    act: Callable[[Scene], None]
    alone: bool = False
    still: bool = False
    compares: bool = False
    root: bool = False


def _pid(scene: Scene, prefix: str) -> int | None:
    """One program whose name begins so; None where none runs just now."""
    pids = [pid for name, pid in sorted(scene.site.programs().items()) if name.startswith(prefix)]
    return scene.dice.choice(pids) if pids else None


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait(scene: Scene) -> None:
    time.sleep(scene.dice.uniform(*_STOPPED_SECONDS))


def _kill(prefix: str) -> Callable[[Scene], None]:
    return lambda scene: _signal(_pid(scene, prefix), signal.SIGKILL)


def _kill_twice(scene: Scene) -> None:
    """Within the recovery."""
    for _ in range(3):
        _signal(_pid(scene, "watcher-"), signal.SIGKILL)
        time.sleep(scene.dice.uniform(0.3, 1.5))


def _kill_supervisord(scene: Scene) -> None:
    _signal(_pid(scene, "supervisord"), signal.SIGKILL)
    time.sleep(scene.dice.uniform(0.2, 2.0))
    scene.site.command("up")


def _stop(prefix: str) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        pid = _pid(scene, prefix)
        _signal(pid, signal.SIGSTOP)
        _wait(scene)
        _signal(pid, signal.SIGCONT)

    return act


def _overflow(scene: Scene) -> None:
    """All Watchers stand still while more happens than the kernel keeps for them."""
    programs = sorted(scene.site.programs().items())
    pids = [pid for name, pid in programs if name.startswith("watcher-")]
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    folders = sorted(path for path in scene.site.tree.iterdir() if path.is_dir())
    folders = [path for path in folders if not path.name.startswith(STILL.decode())]
    for folder in scene.dice.sample(folders, min(3, len(folders))):
        with contextlib.suppress(OSError):  # it may go meanwhile
            for number in range(_FLOOD):
                os.utime(folder, ns=(number, number))
    for pid in pids:
        _signal(pid, signal.SIGCONT)


def _down_up(scene: Scene) -> None:
    scene.site.command("down")
    time.sleep(scene.dice.uniform(0.0, 3.0))
    scene.site.command("up")


def _restart(scene: Scene) -> None:
    scene.site.supervisorctl("restart", "shardsync:*")


def _kill_daemon(scene: Scene) -> None:
    with scene.site.daemon_at_work:
        scene.site.daemon.stop()
        _wait(scene)
        scene.site.daemon.start()


def _stop_daemon(scene: Scene) -> None:
    with scene.site.daemon_at_work:
        scene.site.daemon.signal(signal.SIGSTOP)
        _wait(scene)
        scene.site.daemon.signal(signal.SIGCONT)


def _pause(scene: Scene) -> None:
    name = scene.dice.choice(sorted(scene.site.nodes))
    scene.site.command("pause", name, check=False)
    _wait(scene)
    scene.site.command("resume", name, check=False)


def _reload(scene: Scene) -> None:
    scene.site.write_settings(
        shards=scene.shards, delay=scene.dice.choice(("0s", "100ms", "500ms"))
    )
    scene.site.command("reload", check=False)


def _recount(scene: Scene) -> None:
    scene.shards = scene.dice.choice([count for count in range(1, 6) if count != scene.shards])
    scene.site.write_settings(shards=scene.shards)
    scene.site.command("reload", check=False)


FAULTS: dict[str, Fault] = {
    "kill -9 of a watcher": Fault(weight=6, act=_kill("watcher-")),
    "kill -9 of a watcher that starts": Fault(weight=2, act=_kill_twice),
    "kill -9 of sync": Fault(weight=5, act=_kill("sync")),
    "kill -9 of the coordinator": Fault(weight=2, act=_kill("coordinator")),
    "kill -9 of supervisord": Fault(weight=2, act=_kill_supervisord, alone=True),
    "a watcher stopped for a while": Fault(weight=3, act=_stop("watcher-")),
    "sync stopped for a while": Fault(weight=2, act=_stop("sync")),
    "the coordinator stopped for a while": Fault(weight=1, act=_stop("coordinator")),
    "overflow of the kernel's queue": Fault(weight=3, act=_overflow),
    "down and up": Fault(weight=2, act=_down_up, alone=True),
    "restart of all programs": Fault(weight=1, act=_restart, alone=True),
    "the daemon killed": Fault(weight=3, act=_kill_daemon),
    "the daemon stopped for a while": Fault(weight=2, act=_stop_daemon),
    "a Node paused": Fault(weight=2, act=_pause),
    "a Node's disk full": Fault(weight=2, act=hard.fill_disk, root=True),
    "a reload": Fault(weight=2, act=_reload, alone=True),
    "another shards.count": Fault(weight=2, act=_recount, alone=True),
    "the root unmounted": Fault(
        weight=1, act=hard.unmount_root, alone=True, still=True, root=True
    ),
    "a Journal damaged": Fault(weight=2, act=hard.damage_journal, alone=True, compares=True),
    "a Journal unlinked": Fault(weight=2, act=hard.unlink_journal, alone=True, compares=True),
    "an old state.db": Fault(weight=2, act=hard.restore_state, alone=True, compares=True),
    "a Node emptied": Fault(weight=2, act=hard.empty_node, alone=True, compares=True),
}


class Faults:
    """`due(operation)` strikes what is to go wrong by then. The same seed, the same faults.

    `hard`: whether also those may strike whose answer is a comparison. `release`: have the
    churn let go of its files.
    """

    def __init__(
        self, *, scene: Scene, seed: int, say: Callable[[str], None], release: Callable[[], None]
    ) -> None:
        self.struck: Counter[str] = Counter()
        self.hard = False
        self.trouble: list[BaseException] = []
        self._scene = scene
        self._dice = random.Random(f"{seed} faults")  # noqa: S311 (to be repeatable)
        self._say = say
        self._release = release
        self._next = self._dice.randint(*_EVERY)
        self._active: list[tuple[Fault, threading.Thread]] = []

    def due(self, operation: int) -> None:
        """Strike, if it is time."""
        if self.trouble:
            raise self.trouble[0]
        if operation < self._next:
            return
        self._next = operation + self._dice.randint(*_EVERY)
        for _ in range(2 if self._dice.random() < _TWICE_SHARE else 1):
            self._strike(operation)

    def settle(self) -> None:
        """Wait until all that struck is healed."""
        while self._active:
            self._active.pop()[1].join()
        if self.trouble:
            raise self.trouble[0]

    def _strike(self, operation: int) -> None:
        table = {
            name: fault
            for name, fault in FAULTS.items()
            if (self.hard or not fault.compares) and (self._scene.site.is_root or not fault.root)
        }
        weights = [fault.weight * (4 if fault.compares else 1) for fault in table.values()]
        name = self._dice.choices(list(table), weights)[0]
        fault, luck = table[name], self._dice.random()
        self._active = [item for item in self._active if item[1].is_alive()]
        if fault.alone or any(item[0].alone for item in self._active):
            self.settle()
        if fault.still:
            self._release()
        self.struck[name] += 1
        self._say(f"operation {operation}: {name}")
        thread = threading.Thread(target=self._act, args=(fault, luck))
        self._active.append((fault, thread))
        thread.start()
        if fault.still:
            thread.join()

    def _act(self, fault: Fault, luck: float) -> None:
        try:
            fault.act(self._scene.with_dice(random.Random(luck)))  # noqa: S311 (to be repeatable)
        except BaseException as error:  # noqa: BLE001 (raised by `due` and `settle`)
            self.trouble.append(error)
