"""Real Nodes for tests: an `rsync --daemon` and an sshd, both on loopback.

Use them as context managers; `stop()` and `start()` in between make an outage
on the same port. Only processes started here are ended, by their own group.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from shardsync.config.settings import NodeSettings, Target, TargetKind

_START_SECONDS = 10.0
_FIRST_PORT = 1024
_PORTS = 15_000
_PORTS_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""ip(7)."""
_NO_PORT = 10
"""Exit code of a daemon that cannot have its port: RERR_SOCKETIO."""


def local_node(path: Path, *, name: str = "web1", tree: str = "main") -> NodeSettings:
    """A Node that is a plain folder."""
    return NodeSettings(name=name, tree=tree, target=Target(kind=TargetKind.LOCAL, path=str(path)))


class RsyncDaemon:
    """An rsync daemon with one module, `site`, which is the folder `path`.

    `user` and `password` together ask for authentication; `binary` may be an
    older rsync; `module_lines` go into the module's section as they are.
    """

    def __init__(
        self,
        *,
        workspace: Path,
        path: Path,
        user: str = "",
        password: str = "",
        binary: str = "rsync",
        module_lines: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.user = user
        self.password_file = workspace / f"rsyncd-{self.port}.password" if user else None
        self._password = password
        self._folder = path
        self._binary = binary
        self._module_lines = tuple(module_lines)
        self._config = workspace / f"rsyncd-{self.port}.conf"
        self._log = workspace / f"rsyncd-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The Node's target as settings spell it."""
        user = f"{self.user}@" if self.user else ""
        return f"rsync://{user}127.0.0.1:{self.port}/site"

    @property
    def target(self) -> Target:
        """The Node's target as a value."""
        return Target(
            kind=TargetKind.DAEMON,
            host="127.0.0.1",
            user=self.user,
            port=self.port,
            path="site",
        )

    def node(self, *, name: str = "web2", tree: str = "main") -> NodeSettings:
        """The daemon as a Node."""
        return NodeSettings(
            name=name, tree=tree, target=self.target, password_file=self.password_file
        )

    def log_text(self) -> str:
        """What the daemon logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start it and wait until it listens.

        During an outage somebody's connection may have been given the port: then once more.
        """
        self._write_config()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self._process = subprocess.Popen(
                [self._binary, "--daemon", "--no-detach", f"--config={self._config}"],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                _await_listening(self.port, self._process)
            except AssertionError:
                if self._process.poll() != _NO_PORT or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        """End it and all its connections at once (SIGTERM would take it 2 s)."""
        if self._process is not None:
            end_group(self._process)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal (SIGSTOP, SIGCONT, SIGKILL) to the daemon and its connections."""
        assert self._process is not None, "start it first"
        os.killpg(self._process.pid, number)

    def _write_config(self) -> None:
        lines = [
            f"port = {self.port}",
            "address = 127.0.0.1",
            f"log file = {self._log}",
            "use chroot = no",
            "[site]",
            f"path = {self._folder}",
            "read only = no",
            # A daemon without chroot rewrites symlinks unless told not to (rsyncd.conf(5)).
            "munge symlinks = no",
            *(["uid = 0", "gid = 0"] if os.geteuid() == 0 else []),
            *self._module_lines,
        ]
        if self.password_file is not None:
            secrets = self._config.with_suffix(".secrets")
            _write_private(secrets, f"{self.user}:{self._password}\n")
            _write_private(self.password_file, f"{self._password}\n")
            lines += [f"auth users = {self.user}", f"secrets file = {secrets}"]
        self._config.write_text("\n".join(lines) + "\n")


class Sshd:
    """An sshd for the user who runs the tests, with a key pair of its own.

    `forced_command`, if any, is what every login runs (rrsync for instance). `lines` go into
    its configuration as they are.
    """

    def __init__(
        self,
        *,
        workspace: Path,
        forced_command: str = "",
        log_level: str = "ERROR",
        lines: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self._workspace = workspace
        self._forced_command = forced_command
        self._lines = (f"LogLevel {log_level}", *lines)
        self._log = workspace / f"sshd-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._config = workspace / f"sshd-{self.port}.conf"
        self._host_key = workspace / f"sshd-{self.port}.host"
        self._client_key = workspace / f"sshd-{self.port}.client"
        self._known_hosts = workspace / f"sshd-{self.port}.known"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def ssh_options(self) -> tuple[str, ...]:
        """What a Node's `ssh_options` must hold to log in here."""
        return (
            "-F",
            "/dev/null",
            "-p",
            str(self.port),
            "-i",
            str(self._client_key),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            f"UserKnownHostsFile={self._known_hosts}",
            "-o",
            "LogLevel=ERROR",
        )

    @property
    def pid(self) -> int:
        """The process that listens."""
        assert self._process is not None, "start it first"
        return self._process.pid

    def log_text(self) -> str:
        """What it logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def target(self, path: Path) -> Target:
        """A folder behind this sshd as a Node's target."""
        return Target(kind=TargetKind.SSH, host="127.0.0.1", path=str(path))

    def node(self, path: Path, *, name: str = "web3", tree: str = "main") -> NodeSettings:
        """A folder behind this sshd as a Node."""
        return NodeSettings(
            name=name, tree=tree, target=self.target(path), ssh_options=self.ssh_options
        )

    def start(self) -> None:
        """Make the keys at the first call, start sshd and wait until it listens."""
        if not self._host_key.exists():
            self._make_keys()
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert sshd, "apt-get install openssh-server"
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(self._config)],
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        _await_listening(self.port, self._process)

    def stop(self) -> None:
        """End it; sessions under way are ended too, as far as they are in its group."""
        if self._process is not None:
            end_group(self._process)
            self._process = None

    def _make_keys(self) -> None:
        for key in (self._host_key, self._client_key):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)],
                check=True,
                timeout=30,
                stdin=subprocess.DEVNULL,
            )
        authorized = self._config.with_suffix(".authorized")
        line = self._client_key.with_name(self._client_key.name + ".pub").read_text()
        if self._forced_command:
            line = f'command="{self._forced_command}",restrict {line}'
        _write_private(authorized, line)
        self._config.write_text(
            "\n".join(
                [
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self._host_key}",
                    f"AuthorizedKeysFile {authorized}",
                    f"PidFile {self._config.with_suffix('.pid')}",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "PermitRootLogin yes",
                    # The temporary folder of a test may be group-writable.
                    "StrictModes no",
                    "MaxStartups 100",
                    # No file of whoever runs the tests says anything at a login.
                    f"SetEnv HOME={self._config.parent}",
                    *self._lines,
                ]
            )
            + "\n"
        )


def free_port() -> int:
    """A loopback TCP port that nobody listens on at the moment.

    Below those that connections are given, so that none is given it during an outage.
    """
    end = int(_PORTS_GIVEN.read_text().split()[0])
    while True:
        port = end - 1 - secrets.randbelow(min(_PORTS, end - _FIRST_PORT))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own group (start_new_session), children too; reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)


def _await_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ended at once with {process.returncode}"
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on port {port} after {_START_SECONDS} s")


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
