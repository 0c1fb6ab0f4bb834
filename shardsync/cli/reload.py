"""`shardsync reload`: the running daemons take up the settings file as it is now."""

from __future__ import annotations

import contextlib
import time

import click

from shardsync.cli.daemons import SYNC_PROGRAM, tell_stuck_plans
from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, duration, examples
from shardsync.cli.output import Meter, say
from shardsync.config.load import refuse_other_state_dir
from shardsync.config.marks import settings_mark, tree_mark
from shardsync.config.settings import TreeSettings
from shardsync.control.memory import MEMORY_FILE, read_memory
from shardsync.control.processes import state_of_settings
from shardsync.control.programs import COORDINATOR, slot_program
from shardsync.control.rootlock import RootLock
from shardsync.control.supervisord import ProgramFailed, ProgramState, SupervisorClient
from shardsync.errors import NodesFailed, NotRunning, SettingsError, StateUnusable
from shardsync.journal.plan import Plan, PlannedShard
from shardsync.journal.reader import JournalReader
from shardsync.journal.state_reader import StateReader
from shardsync.observe.reader import observed_roots
from shardsync.units import human_duration

_LOOK_SECONDS = 0.1
_TELL_SECONDS = 5.0


@click.command(epilog=examples("shardsync check && shardsync reload"))
@config_option
@click.option(
    "--timeout", type=duration, default="5m", show_default=True, help="Give up after that long."
)
@click.pass_obj
def reload(call: Invocation, timeout: float) -> None:
    """Have the running daemons take up the settings; return when they run them.

    A wrong file changes nothing and exits 10. Only what changed is touched: a
    new node is filled, one with another exclude is compared, the others go on.
    """
    began = call.clock.monotonic()
    turn = _Reload(call=call)
    turn.refuse()
    turn.tell()
    with Meter(title="reload", clock=call.clock) as meter:
        while waiting := turn.waiting():
            if call.clock.monotonic() - began >= timeout:
                raise NodesFailed(
                    f"reload: timed out after {human_duration(timeout)}, still waiting for"
                    f" {', '.join(waiting)}",
                    hint=f"what they log is in {call.state.logs}",
                )
            meter.show(f"waiting for {', '.join(waiting)}")
            time.sleep(_LOOK_SECONDS)
            turn.tell_again()
    say(f"reloaded in {human_duration(call.clock.monotonic() - began)}")
    tell_stuck_plans(call)


class _Reload:
    """One change of the settings, told to each program that runs."""

    def __init__(self, *, call: Invocation) -> None:
        self._call = call
        self._client = SupervisorClient(socket=call.state.supervisor_socket)
        self._mark = settings_mark(call.settings)
        self._told_at = 0.0

    def refuse(self) -> None:
        """Raise what speaks against these settings, before anything is told of them."""
        call = self._call
        running = state_of_settings(call.settings.source.absolute())
        if running is not None:
            refuse_other_state_dir(call.settings, running)
        call.require_state()
        if call.liveness.coordinator() is None and call.liveness.sync() is None:
            raise NotRunning(f"nothing runs in {call.state.path}")
        held = set(observed_roots(call.state).values())
        for tree in call.settings.trees:
            if str(tree.root) not in held:
                _refuse_taken(tree)

    def tell(self) -> None:
        """SIGHUP to all that run and have other settings; what is stopped stays so."""
        self._told_at = self._call.clock.monotonic()
        plan = self._call.plan()
        for program in self._client.programs():
            if program.state is ProgramState.RUNNING and self._has_other(program.name, plan):
                with contextlib.suppress(ProgramFailed):  # it has ended just now
                    self._client.signal(program.name, "HUP")

    def tell_again(self) -> None:
        """Now and then: one that was starting may have read the old file, and missed the word."""
        if self._call.clock.monotonic() - self._told_at >= _TELL_SECONDS:
            self.tell()

    def waiting(self) -> list[str]:
        """The programs, and Trees, that do not go by the settings yet."""
        plan = self._call.plan()
        found = [
            program.name
            for program in self._client.programs()
            if program.is_up and self._has_other(program.name, plan)
        ]
        planned = {shard.tree for shard in plan.observing()}
        wanted = {tree.name for tree in self._call.settings.trees}
        return found + [f"the plan of tree {name}" for name in sorted(wanted ^ planned)]

    def _has_other(self, program: str, plan: Plan) -> bool:
        """Whether a program goes by other settings than these, as far as they concern it."""
        try:
            if program == COORDINATOR:
                return read_memory(self._call.state.path / MEMORY_FILE).settings != self._mark
            if program == SYNC_PROGRAM:
                with contextlib.closing(StateReader(self._call.state.state_db)) as reader:
                    return reader.settings() != self._mark
            shards = {slot_program(shard.slot): shard for shard in plan.observing()}
            return program in shards and self._watches_by_other(shards[program])
        except StateUnusable:
            return True

    def _watches_by_other(self, shard: PlannedShard) -> bool:
        """Whether its Watcher does; one of a Tree that is gone ends when the Plan says so."""
        settings = self._call.settings
        if shard.tree not in {tree.name for tree in settings.trees}:
            return False
        with contextlib.closing(JournalReader(self._call.state.journal(shard.id))) as reader:
            return reader.progress().settings != tree_mark(settings, shard.tree)


def _refuse_taken(tree: TreeSettings) -> None:
    """Raise AlreadyRunning where another instance has a root that is new here.

    Raises SettingsError where there is nothing to watch at it.
    """
    try:
        RootLock.acquire(tree.root).release()
    except OSError as error:
        raise SettingsError(
            f"tree {tree.name}: root {tree.root}: {error.strerror}",
            hint="create it, mount it, or correct the path, then `shardsync reload`",
        ) from error
