"""What is soaked: a tree of three Shards, a plain folder and a real rsync daemon as Nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardsync.layout import StateDirectory
from tests.support.nodes import RsyncDaemon

_REPOSITORY = Path(__file__).resolve().parents[2]
_COMMAND_SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What must not grow for ever. Bytes; descriptors of all processes together."""

    rss_bytes: int
    descriptors: int
    state_bytes: int


class Site:
    """All below one folder. The daemon runs from `begin` to `end`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.outside = folder / "outside"
        self.nodes = (folder / "web1", folder / "web2")
        self.state = StateDirectory(path=folder / "state")
        self.settings = folder / "shardsync.toml"
        for made in (self.tree, self.outside, *self.nodes):
            made.mkdir(parents=True)
        # Else the daemon rewrites the targets of absolute symlinks (rsyncd.conf(5)).
        chroot = ("use chroot = yes",) if os.geteuid() == 0 else ()
        self.daemon = RsyncDaemon(workspace=folder, path=self.nodes[1], module_lines=chroot)

    def begin(self) -> None:
        """Settings, the daemon, `up`."""
        self.daemon.start()
        self.settings.write_text(
            f'[tree]\nroot = "{self.tree}"\n[state]\ndir = "{self.state.path}"\n'
            f'[shards]\ncount = 3\n[sync]\nmax_delete = 100000000\n[metrics]\nlisten = ""\n'
            f'[[node]]\nname = "web1"\ntarget = "{self.nodes[0]}"\n'
            f'[[node]]\nname = "web2"\ntarget = "{self.daemon.url}"\n'
        )
        self.command("up")

    def end(self) -> None:
        """Down, whatever state it is in."""
        self.command("down", check=False)
        self.daemon.stop()

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`shardsync WORDS`. Raises CalledProcessError, after telling what it printed."""
        argv = [sys.executable, "-m", "shardsync.cli.start", "--config", str(self.settings)]
        done = subprocess.run(
            [*argv, *words],
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            cwd=_REPOSITORY,
            check=False,
        )
        if check and done.returncode:
            print(done.stdout, done.stderr, sep="", file=sys.stderr)
            done.check_returncode()
        return done

    def status(self) -> dict[str, Any]:
        """`status --json`."""
        found: dict[str, Any] = json.loads(self.command("status", "--json", check=False).stdout)
        return found

    def programs(self) -> dict[str, int]:
        """The pid of every program that runs, supervisord's too."""
        found = {}
        for line in self._supervisorctl("status").splitlines():
            words = line.split()
            if len(words) > 3 and words[1] == "RUNNING":
                found[words[0].partition(":")[2]] = int(words[3].rstrip(","))
        pid = self.state.path / "supervisord.pid"
        if pid.exists():
            found["supervisord"] = int(pid.read_text())
        return found

    def sizes(self) -> Sizes:
        """What the programs and the state directory take now."""
        rss = descriptors = 0
        for pid in self.programs().values():
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
            lines = [line for line in status.splitlines() if line.startswith("VmRSS:")]
            rss += sum(1024 * int(line.split()[1]) for line in lines)
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        files = self.state.path.glob("*.db*")
        return Sizes(
            rss_bytes=rss,
            descriptors=descriptors,
            state_bytes=sum(file.stat().st_size for file in files),
        )

    def said(self, event: str) -> list[str]:
        """The log lines of this event, of all programs."""
        lines = []
        for log in sorted((self.state.path / "logs").glob("*")):
            text = log.read_text(errors="replace")
            lines += [line for line in text.splitlines() if f" {event} " in f"{line} "]
        return lines

    def _supervisorctl(self, *words: str) -> str:
        argv = [sys.executable, "-m", "supervisor.supervisorctl"]
        argv += ["-c", str(self.state.supervisord_conf), *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout
