"""Named steps at which a test has this process die, stop or meet an error.

Each place where a crash could lose or spoil something calls `reach` with its
Point, which does nothing unless the environment names a folder of failpoints in
SHARDSYNC_FAILPOINT. No loop over events, files or paths calls it.

A failpoint is an empty file in that folder, `POINT:N:ACTION`, which strikes the
first process that passes the point for the N-th time: `kill` (SIGKILL), `stop`
(SIGSTOP) or the name of an error (`EIO`), raised as an OSError. It strikes once,
for the file goes first; steps joined by commas follow each other, so that
`journal.commit:1:kill,watch.scanning:1:kill` hits the recovery, too. Files may
come and go while the processes run.
"""

from __future__ import annotations

import enum
import errno
import os
import signal
from collections.abc import Callable

VARIABLE = "SHARDSYNC_FAILPOINT"


class Point(enum.Enum):
    """Every step that has a name. What a crash there costs: docs/guarantees.md."""

    WATCH_READ = "watch.read"
    WATCH_ADDED = "watch.added"
    WATCH_SCANNING = "watch.scanning"
    WATCH_SCANNED = "watch.scanned"
    WATCH_PLAN_TAKEN = "watch.plan-taken"
    WATCH_RETIRED = "watch.retired"
    WATCH_STOPPING = "watch.stopping"

    JOURNAL_MADE = "journal.made"
    JOURNAL_EPOCH = "journal.epoch"
    JOURNAL_EPOCH_BEGUN = "journal.epoch-begun"
    JOURNAL_COMMIT = "journal.commit"
    JOURNAL_COMMITTED = "journal.committed"
    JOURNAL_WATERMARK = "journal.watermark"
    JOURNAL_PRUNE = "journal.prune"
    JOURNAL_PRUNED = "journal.pruned"

    STATE_CURSORS = "state.cursors"
    STATE_CURSORS_MOVED = "state.cursors-moved"
    STATE_WORK = "state.work"
    STATE_WORK_DONE = "state.work-done"
    STATE_RESTART = "state.restart"

    SHIP_RUN = "ship.run"
    SHIP_SPAWN = "ship.spawn"
    SHIP_SPAWNED = "ship.spawned"
    SHIP_LIST = "ship.list"
    SHIP_OUTPUT = "ship.output"
    SHIP_ENDED = "ship.ended"
    SHIP_MOVED = "ship.moved"
    SHIP_BIG_FILE = "ship.big-file"
    SHIP_CONTACT = "ship.contact"
    SHIP_CONTACTED = "ship.contacted"
    SHIP_PIECE = "ship.piece"
    SHIP_REQUEST = "ship.request"
    SHIP_REQUEST_TAKEN = "ship.request-taken"
    SHIP_ANSWER = "ship.answer"

    CONTROL_FILE = "control.file"
    CONTROL_DECIDED = "control.decided"
    CONTROL_JOURNALS_MADE = "control.journals-made"
    CONTROL_PLAN_WRITTEN = "control.plan-written"
    CONTROL_COOKIE_PUT = "control.cookie-put"
    CONTROL_SLOT_STARTED = "control.slot-started"
    CONTROL_SLOT_NOTED = "control.slot-noted"
    CONTROL_PRUNED = "control.pruned"
    CONTROL_FORGOTTEN = "control.forgotten"
    CONTROL_REMOVED = "control.removed"


class Failpoints:
    """The failpoints of one folder, as one process passes them."""

    def __init__(self, *, folder: str, send: Callable[[int, int], None] = os.kill) -> None:
        self._folder = folder
        self._send = send
        self._passed: dict[str, int] = {}

    def reach(self, point: Point) -> None:
        """Strike if a failpoint says so.

        Raises ValueError for one that means nothing, and the OSError that one asks for.
        """
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return
        for name in names:
            step, _, later = name.partition(",")
            at, number, action = _parsed(step)
            if at is not point:
                continue
            self._passed[name] = self._passed.get(name, 0) + 1
            if self._passed[name] >= number and self._is_mine(name, later):
                self._strike(point, action)

    def _is_mine(self, name: str, later: str) -> bool:
        """Take it away, or leave what follows it; False where another process was quicker."""
        path = os.path.join(self._folder, name)
        try:
            if later:
                os.rename(path, os.path.join(self._folder, later))
            else:
                os.unlink(path)
        except FileNotFoundError:
            return False
        return True

    def _strike(self, point: Point, action: str) -> None:
        if action == "kill":
            self._send(os.getpid(), signal.SIGKILL)
        elif action == "stop":
            self._send(os.getpid(), signal.SIGSTOP)
        else:
            number = getattr(errno, action)
            raise OSError(number, os.strerror(number), point.value)


def _parsed(step: str) -> tuple[Point, int, str]:
    """(where, at which passage, what). Raises ValueError."""
    name, _, rest = step.partition(":")
    number, _, action = rest.partition(":")
    if action not in {"kill", "stop", *errno.errorcode.values()}:
        raise ValueError(f"failpoint {step!r}: not POINT:N:ACTION")
    return Point(name), int(number), action


def _nothing(point: Point) -> None:
    """Go on."""


reach: Callable[[Point], None] = _nothing
"""Tell that this process is at a step. Bound once, so that it costs a bare call (50 ns)."""
if folder := os.environ.get(VARIABLE):
    reach = Failpoints(folder=folder).reach
