"""`up` and `down` with a real supervisord and the real Coordinator; stand-ins for the rest."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from shardsync.control.lifecycle import Started
from shardsync.control.processes import find
from shardsync.control.supervisord import ProgramState, SupervisorClient
from shardsync.errors import AlreadyRunning, NotRunning, StateUnusable
from shardsync.journal.locks import FileLock, holder
from shardsync.journal.plan import PlanState, read_plan
from tests.support.instances import Instance, eventually, instance


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Instance]:
    """An instance in a folder whose name would break a careless supervisord.conf."""
    folder = tmp_path / "a b%c #d ;e"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / "tree" / name).mkdir(parents=True)
    with instance(folder) as yielded:
        yield yielded


def up(made: Instance) -> Started:
    started = made.lifecycle().up(made.settings(), programs=made.standins())
    assert started is not None
    return started


def trace(made: Instance) -> list[str]:
    return (made.state.path / "trace").read_text().splitlines()


def test_up_returns_when_the_programs_run_and_down_stops_them_cleanly(made: Instance) -> None:
    """Names, states and modes are those of the contract; `down` ends all with SIGTERM."""
    started = up(made)
    assert [(p.name, p.state) for p in started.programs] == [
        ("shardsync:coordinator", ProgramState.RUNNING),
        ("shardsync:sync", ProgramState.RUNNING),
        ("shardsync:watcher-00", ProgramState.RUNNING),
        ("shardsync:watcher-01", ProgramState.RUNNING),
    ]
    assert [p.name for p in made.client.programs()][-1] == "shardsync:watcher-03"
    assert stat.S_IMODE(os.stat(made.state.supervisor_socket).st_mode) == 0o700
    modes = {stat.S_IMODE(os.stat(path).st_mode) for path in made.state.logs.iterdir()}
    assert modes == {0o600}
    stopped = made.lifecycle().down()
    assert stopped.pid == started.pid
    assert len(stopped.programs) == 4
    assert find(made.state) == ()
    assert sorted(line.rpartition(" ")[0] for line in trace(made) if "ended" in line) == [
        "slot-00 ended",
        "slot-01 ended",
        "sync ended",
    ]


def test_up_and_down_say_what_is_already_so(made: Instance) -> None:
    """A second `up` is refused, a second `down` finds nothing; `up` after `down` works."""
    assert made.lifecycle().down().pid is None
    up(made)
    with pytest.raises(AlreadyRunning, match="all programs run"):
        up(made)
    made.lifecycle().down()
    assert made.lifecycle().down().programs == ()
    up(made)


def test_a_state_directory_that_cannot_be_written_is_no_bug(made: Instance) -> None:
    """As on a full disk: `up` says which file, and exits 12."""
    made.state.make()
    made.state.supervisord_conf.with_name("supervisord.conf.new").mkdir()
    with pytest.raises(StateUnusable, match=r"supervisord\.conf: Is a directory"):
        up(made)


def test_supervisorctl_drives_every_program(made: Instance) -> None:
    """`start|stop|restart|status` work on `shardsync:*` and on each; an operator's stop stays."""
    up(made)
    assert "shardsync:watcher-00: stopped" in made.supervisorctl("stop", "shardsync:watcher-00")
    made.supervisorctl("restart", "shardsync:coordinator")
    eventually(lambda: made.program("coordinator").state is ProgramState.RUNNING)
    assert made.program("watcher-00").state is ProgramState.STOPPED
    made.supervisorctl("stop", "shardsync:*")
    assert {p.state for p in made.client.programs()} == {ProgramState.STOPPED}
    assert "shardsync:watcher-03: started" in made.supervisorctl("start", "shardsync:*")
    assert "shardsync:sync" in made.supervisorctl("status")


def test_up_completes_what_was_stopped(made: Instance) -> None:
    """With supervisord running, `up` starts what should run and does not."""
    up(made)
    made.supervisorctl("stop", "shardsync:sync", "shardsync:watcher-01")
    assert {p.state for p in up(made).programs} == {ProgramState.RUNNING}


def test_killed_programs_come_back(made: Instance) -> None:
    """A kill -9 of any program is followed by a new process of it."""
    up(made)
    for name in ("coordinator", "sync", "watcher-01"):
        pid = made.program(name).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(partial(has_new_process, made, name, pid))


def has_new_process(made: Instance, name: str, old: int) -> bool:
    program = made.program(name)
    return program.state is ProgramState.RUNNING and program.pid != old


@pytest.mark.fault("supervisord-killed")
def test_a_killed_supervisord_leaves_no_second_writers(made: Instance) -> None:
    """Its orphans live on and hold their locks; the next `up` ends them, and none is refused."""
    first = up(made)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: len(find(made.state)) == 4)
    with pytest.raises(AlreadyRunning):
        FileLock.acquire(made.state.lock("sync"))
    again = up(made)
    assert sorted(process.pid for process in again.ended) == sorted(
        program.pid for program in first.programs if program.pid
    )
    assert not any("refused" in line for line in trace(made))
    assert holder(made.state.lock("sync")) == made.program("sync").pid


def test_down_ends_the_orphans_too(made: Instance) -> None:
    """`down` after a killed supervisord leaves nothing running."""
    os.kill(up(made).pid, signal.SIGKILL)
    with pytest.raises(NotRunning):
        eventually_gone(made)
    assert len(made.lifecycle().down().ended) == 4
    assert find(made.state) == ()


def eventually_gone(made: Instance) -> None:
    eventually(lambda: not any(process.module == "supervisord" for process in find(made.state)))
    SupervisorClient(socket=made.state.supervisor_socket).pid()


@pytest.mark.fault("second-instance")
def test_a_root_has_one_instance(made: Instance) -> None:
    """Another state directory on the same root is refused, and told which process has it."""
    up(made)
    with instance(made.folder, state="other") as other:
        pid = made.program("coordinator").pid
        with pytest.raises(AlreadyRunning, match=f"process {pid}"):
            up(other)
        assert find(other.state) == ()


def test_a_replan_at_run_time_ends_with_new_shards(made: Instance) -> None:
    """SIGHUP with another number: new slots start beside the old; a wrong file changes nothing."""
    up(made)
    made.config.write_text("nonsense = [")
    made.client.signal("shardsync:coordinator", "HUP")
    log = made.state.logs / "coordinator.log"
    eventually(lambda: "settings.refused" in log.read_text())
    made.write_settings(shards=1)
    made.client.signal("shardsync:coordinator", "HUP")
    # Stand-ins never follow, so the re-plan waits and says for whom.
    eventually(lambda: "not yet following: main-00, main-01" in log.read_text())
    plan = read_plan(made.state.plan)
    assert plan is not None
    assert [(s.id, s.state) for s in plan.shards] == [
        ("main-00", PlanState.ACTIVE),
        ("main-01", PlanState.ACTIVE),
    ]


def test_foreground_becomes_supervisord(made: Instance) -> None:
    """`up --foreground` replaces this process, after the same checks."""
    seen: list[list[str]] = []
    lifecycle = made.lifecycle()
    lifecycle._execute = lambda program, argv: seen.append([program, *argv])
    before = os.umask(0o022)
    assert lifecycle.up(made.settings(), foreground=True, programs=made.standins()) is None
    assert os.umask(before) == 0o077
    assert seen[0][-4:] == ["supervisor.supervisord", "-n", "-c", str(made.state.supervisord_conf)]


def test_programs_get_more_open_files_than_the_shell_gives(made: Instance) -> None:
    """Up to what the system allows: many Nodes have many pipes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
    try:
        up(made)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{made.program('sync').pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert int(line.split()[3]) == 1024
    made.lifecycle().down()
