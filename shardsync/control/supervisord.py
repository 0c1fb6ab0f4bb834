"""supervisord as seen from outside: its unix socket, spoken to by XML-RPC.

Everything foreign (faults, sockets, HTTP) ends here and leaves as an error of
ours. Nothing here decides what should run.
"""

from __future__ import annotations

import enum
import http.client
import subprocess
import sys
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardsync.control.programs import slot_program
from shardsync.errors import NotRunning
from shardsync.layout import StateDirectory

_ANSWER_SECONDS = 10.0
_START_SECONDS = 60.0
PRIVATE_UMASK = 0o077
_ALREADY_STARTED = 60
_NOT_RUNNING = 70
"""supervisor.xmlrpc.Faults."""


class ProgramFailed(NotRunning):
    """A program does not start, or does not stay up."""

    hint = "its log in the state directory's logs/ tells why"


class ProgramState(enum.StrEnum):
    """Supervisord's own words for the state of a program."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FATAL = "FATAL"
    UNKNOWN = "UNKNOWN"


_UP = frozenset(
    {ProgramState.STARTING, ProgramState.RUNNING, ProgramState.BACKOFF, ProgramState.EXITED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program as supervisord tells it. `pid` None: no process."""

    name: str
    state: ProgramState
    pid: int | None
    description: str

    @property
    def is_up(self) -> bool:
        """Whether a process of it lives, or supervisord is about to try again.

        One that was killed is EXITED for as much as a second before it is started anew.
        """
        return self.state in _UP


class SupervisorClient:
    """One supervisord. Each method raises NotRunning where it does not answer."""

    def __init__(self, *, socket: Path) -> None:
        self._socket = socket

    def programs(self) -> tuple[Program, ...]:
        """All programs, in the order of their names."""
        return tuple(
            sorted(
                (
                    Program(
                        name=f"{item['group']}:{item['name']}",
                        state=ProgramState(item["statename"]),
                        pid=int(item["pid"]) or None,
                        description=str(item["description"]),
                    )
                    for item in self._call("getAllProcessInfo")
                ),
                key=lambda program: program.name,
            )
        )

    def pid(self) -> int:
        """Supervisord's own pid."""
        return int(self._call("getPID"))

    def start(self, name: str) -> bool:
        """Have a program started, without waiting; False where it runs already.

        Raises ProgramFailed where it is unknown or cannot be spawned.
        """
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _ALREADY_STARTED:
                return False
            raise ProgramFailed(f"program {name}: {fault.faultString}") from fault
        return True

    def stop(self, name: str) -> bool:
        """Have a program stopped, without waiting; False where it does not run."""
        try:
            self._call("stopProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _NOT_RUNNING:
                return False
            raise ProgramFailed(f"program {name}: {fault.faultString}") from fault
        return True

    def signal(self, name: str, signal_name: str) -> None:
        """Send a program a signal (`HUP`). Raises ProgramFailed where it does not run."""
        try:
            self._call("signalProcess", name, signal_name)
        except xmlrpc.client.Fault as fault:
            raise ProgramFailed(f"program {name}: {fault.faultString}") from fault

    def shutdown(self) -> None:
        """Have everything stopped, in order, and supervisord end. Does not wait."""
        self._call("shutdown")

    def _call(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 (XML-RPC is untyped)
        # Imported here: 100 ms that a command which never asks supervisord need not pay.
        from supervisor.xmlrpc import SupervisorTransport  # noqa: PLC0415 (as above)

        transport = SupervisorTransport("", "", f"unix://{self._socket}")
        transport._get_connection = self._connect  # noqa: SLF001 (it has no timeout of its own)
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise NotRunning(f"supervisord does not answer on {self._socket}: {error}") from error
        finally:
            transport.close()

    def _connect(self) -> http.client.HTTPConnection:
        # As in `_call`.
        from supervisor.xmlrpc import UnixStreamHTTPConnection  # noqa: PLC0415 (as above)

        connection: http.client.HTTPConnection = UnixStreamHTTPConnection("localhost")
        connection.socketfile = str(self._socket)  # type: ignore[attr-defined]  # supervisor's
        try:
            connection.connect()
        except OSError:
            connection.close()
            raise
        connection.sock.settimeout(_ANSWER_SECONDS)
        return connection


def supervisord_argv(state: StateDirectory, *, foreground: bool) -> list[str]:
    """The command that runs supervisord with the interpreter that runs us."""
    options = ["-n"] if foreground else []
    conf = str(state.supervisord_conf)
    return [sys.executable, "-m", "supervisor.supervisord", *options, "-c", conf]


def start_supervisord(state: StateDirectory) -> None:
    """Start supervisord as a daemon. It may not answer yet. Raises ProgramFailed."""
    argv = supervisord_argv(state, foreground=False)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_START_SECONDS,
            check=False,
            # Its own log is opened before it looks at the umask in its settings.
            umask=PRIVATE_UMASK,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProgramFailed(f"supervisord: {error}") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise ProgramFailed(f"supervisord ended with {done.returncode}: {said}")


class SupervisorSlots:
    """The Watcher slots of a running supervisord, for the Coordinator."""

    def __init__(self, *, client: SupervisorClient) -> None:
        self._client = client

    def life(self) -> str:
        pid = self._client.pid()
        try:
            with open(f"/proc/{pid}/stat", "rb") as stream:
                # Field 22, proc_pid_stat(5): start time, counted behind the name's parenthesis.
                started = stream.read().rpartition(b")")[2].split()[19].decode()
        except (OSError, IndexError) as error:
            raise NotRunning(f"supervisord {pid}: {error}") from error
        return f"{pid}@{started}"

    def start(self, slot: int) -> None:
        self._client.start(slot_program(slot))

    def count(self) -> int:
        prefix = slot_program(0)[:-2]
        return sum(program.name.startswith(prefix) for program in self._client.programs())
