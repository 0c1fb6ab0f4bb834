"""Whether there is anybody to ask: told by flocks, and by supervisord for what will be back."""

from __future__ import annotations

from shardsync.cli.invocation import Invocation
from shardsync.cli.output import tell
from shardsync.control.memory import MEMORY_FILE, read_memory
from shardsync.control.supervisord import Program, SupervisorClient
from shardsync.errors import NotRunning

SYNC_PROGRAM = "shardsync:sync"


class StoppedByHand(NotRunning):
    """Supervisord runs, but an operator has stopped the program that is needed."""


class Daemons:
    """The daemons of one state directory, as far as commands must know of them."""

    def __init__(self, *, call: Invocation) -> None:
        self._call = call
        self._client = SupervisorClient(socket=call.state.supervisor_socket)

    def programs(self) -> dict[str, Program]:
        """What supervisord says by name; nothing where it does not answer."""
        try:
            return {program.name: program for program in self._client.programs()}
        except NotRunning:
            return {}

    def is_sync_coming(self) -> bool:
        """Whether the sync process lives, or supervisord is about to have it live."""
        if self._call.liveness.sync() is not None:
            return True
        program = self.programs().get(SYNC_PROGRAM)
        return program is not None and program.is_up

    def is_watcher_coming(self, shard: str, program_name: str) -> bool:
        """Whether the Watcher of a Shard lives, or supervisord is about to have it live."""
        if self._call.liveness.watcher(shard) is not None:
            return True
        program = self.programs().get(program_name)
        return program is not None and program.is_up

    def require_sync(self) -> None:
        """Raise NotRunning where nobody would answer, StateUnusable where we may not even look."""
        self._call.require_state()
        if self.is_sync_coming():
            return
        if self.programs():
            raise StoppedByHand(
                "the sync process is stopped",
                hint=f"supervisorctl -c {self._call.state.supervisord_conf} start {SYNC_PROGRAM}",
            )
        raise NotRunning(f"nothing runs in {self._call.state.path}")


def tell_stuck_plans(call: Invocation) -> None:
    """A line for each Tree whose Plan cannot be brought to the settings that the daemons took."""
    if call.liveness.coordinator() is None:
        return
    for tree, why in read_memory(call.state.path / MEMORY_FILE).stuck.items():
        tell(f"the shards of tree {tree} stay as they are: the plan {why}")
