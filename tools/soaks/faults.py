"""What goes wrong while the tree changes. Each fault ends in a healed world, never in silence."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from tools.soaks.site import Site

_STOPPED_SECONDS = (0.5, 4.0)


class Faults:
    """`strike()` has one fault happen. The same seed gives the same order of faults."""

    def __init__(self, *, site: Site, seed: int, say: Callable[[str], None]) -> None:
        self.struck: Counter[str] = Counter()
        self._site = site
        self._dice = random.Random(seed)  # noqa: S311 (to be repeatable)
        self._say = say
        self._kinds: dict[str, tuple[int, Callable[[], None]]] = {
            "kill -9 of a watcher": (6, lambda: self._kill("watcher-")),
            "kill -9 of sync": (4, lambda: self._kill("sync")),
            "kill -9 of the coordinator": (2, lambda: self._kill("coordinator")),
            "kill -9 of supervisord": (2, self._kill_supervisord),
            "a watcher stopped for a while": (3, self._stop_watcher),
            "sync stopped for a while": (2, lambda: self._stop("sync")),
            "down and up": (2, self._down_up),
            "the daemon killed": (3, self._kill_daemon),
            "the daemon stopped for a while": (2, self._stop_daemon),
            "a Node paused": (2, self._pause),
        }

    def strike(self) -> None:
        """One fault, and what heals it."""
        weights = [weight for weight, _ in self._kinds.values()]
        name = self._dice.choices(list(self._kinds), weights)[0]
        self.struck[name] += 1
        self._say(f"fault: {name}")
        self._kinds[name][1]()

    def _seconds(self) -> float:
        return self._dice.uniform(*_STOPPED_SECONDS)

    def _pid(self, prefix: str) -> int | None:
        """One program whose name begins so; None where none runs just now."""
        pids = [
            pid for name, pid in sorted(self._site.programs().items()) if name.startswith(prefix)
        ]
        return self._dice.choice(pids) if pids else None

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _kill(self, prefix: str) -> None:
        pid = self._pid(prefix)
        if pid is not None:
            self._signal(pid, signal.SIGKILL)

    def _kill_supervisord(self) -> None:
        self._kill("supervisord")
        time.sleep(self._dice.uniform(0.2, 2.0))
        self._site.command("up")

    def _stop(self, prefix: str) -> None:
        pid = self._pid(prefix)
        if pid is None:
            return
        self._signal(pid, signal.SIGSTOP)
        time.sleep(self._seconds())
        self._signal(pid, signal.SIGCONT)

    def _stop_watcher(self) -> None:
        self._stop("watcher-")

    def _down_up(self) -> None:
        self._site.command("down")
        time.sleep(self._dice.uniform(0.0, 3.0))
        self._site.command("up")

    def _kill_daemon(self) -> None:
        self._site.daemon.stop()
        time.sleep(self._seconds())
        self._site.daemon.start()

    def _stop_daemon(self) -> None:
        self._site.daemon.signal(signal.SIGSTOP)
        time.sleep(self._seconds())
        self._site.daemon.signal(signal.SIGCONT)

    def _pause(self) -> None:
        name = self._dice.choice(("web1", "web2"))
        self._site.command("pause", name, check=False)
        time.sleep(self._seconds())
        self._site.command("resume", name, check=False)
