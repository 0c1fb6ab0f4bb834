"""What is soaked: a tree of some Shards; a folder, a daemon's module and a small disk as Nodes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardsync.layout import StateDirectory
from tests.support.nodes import RsyncDaemon

_REPOSITORY = Path(__file__).resolve().parents[2]
_COMMAND_SECONDS = 900.0
_AUDIT_EVERY = "1m"
"""Less than a round takes: after each that has comparisons of its own the audit begins anew."""
_DISK_MIB = 512
"""What the Node with a small disk holds; the tree's own file system holds four times that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What must not grow for ever: by program in bytes and descriptors; files of the state.

    `wal_bytes`: of all databases; `longest_wal_bytes`: of the one whose is longest.
    """

    rss_bytes: dict[str, int] = field(default_factory=dict)
    descriptors: dict[str, int] = field(default_factory=dict)
    journals: int = 0
    journal_bytes: int = 0
    wal_bytes: int = 0
    longest_wal_bytes: int = 0
    state_db_bytes: int = 0
    log_bytes: int = 0


class Site:
    """All below one folder, from `begin` to `end`.

    As root the tree is a file system of its own, and one Node's disk is small and can be
    filled. `retention`: how long Journals are kept, as settings have it.
    """

    def __init__(self, folder: Path, *, retention: str) -> None:
        self.folder = folder
        self._retention = retention
        self.is_root = os.geteuid() == 0
        self.tree_disk = folder / "disk"
        self.tree = self.tree_disk / "tree" if self.is_root else folder / "tree"
        self.outside = self.tree_disk / "outside" if self.is_root else folder / "outside"
        self.small_disk = folder / "small"
        self.nodes = {
            "web1": folder / "web1",
            "web2": folder / "web2",
            "web3": self.small_disk / "web3" if self.is_root else folder / "web3",
        }
        self.state = StateDirectory(path=folder / "state")
        self.settings = folder / "shardsync.toml"
        # Else the daemon rewrites the targets of absolute symlinks (rsyncd.conf(5)).
        chroot = ("use chroot = yes",) if self.is_root else ()
        self.daemon = RsyncDaemon(workspace=folder, path=self.nodes["web2"], module_lines=chroot)
        self.daemon_at_work = threading.Lock()
        """Held by what has it away: two at once would each find what the other left."""

    def prepare(self) -> None:
        """File systems and folders."""
        if self.is_root:
            self.tree_disk.mkdir()
            image = self.folder / "disk.img"
            with image.open("wb") as made:
                made.truncate(4 * _DISK_MIB * 1024 * 1024)
            argv = ["mkfs.ext4", "-q", "-F", "-N", "200000", str(image)]
            subprocess.run(argv, check=True)
            self.mount_tree()
            self.small_disk.mkdir()
            options = f"size={_DISK_MIB}m"
            argv = ["mount", "-t", "tmpfs", "-o", options, "soak", str(self.small_disk)]
            subprocess.run(argv, check=True)
        for made_folder in (self.tree, self.outside, *self.nodes.values()):
            made_folder.mkdir(parents=True)

    def mount_tree(self) -> None:
        """The tree's file system comes (back)."""
        # The device is named, as a second `-o loop` would take another device for the same disk.
        image = self.folder / "disk.img"
        devices = _printed("losetup", "-n", "-O", "NAME", "-j", str(image)).split()
        device = devices[0] if devices else _printed("losetup", "-f", "--show", str(image)).strip()
        subprocess.run(["mount", device, self.tree_disk], check=True)

    def umount_tree(self, *options: str) -> bool:
        """The tree's file system goes; whether it could."""
        done = subprocess.run(
            ["umount", *options, self.tree_disk], check=False, capture_output=True
        )
        return done.returncode == 0

    def begin(self) -> None:
        """Settings, the daemon, `up`."""
        self.daemon.start()
        self.write_settings()
        self.command("up")

    def write_settings(self, *, shards: int = 3, delay: str = "0s") -> None:
        """The settings file, which nothing reads before a start or a reload."""
        nodes = "".join(
            f'[[node]]\nname = "{name}"\ntarget = "{self._target(name)}"\n'
            f'audit_every = "{_AUDIT_EVERY}"\n'
            for name in self.nodes
        )
        self.settings.write_text(
            f'[tree]\nroot = "{self.tree}"\nmax_open = "3s"\ndefault_excludes = false\n'
            f'[state]\ndir = "{self.state.path}"\n'
            f'retention = "{self._retention}"\njournal_max = "256MiB"\n'
            f"[shards]\ncount = {shards}\n"
            '[sync]\nmax_delete = 100000000\nbig_file_bytes = "2MB"\n'
            f'delay = "{delay}"\n[metrics]\nlisten = ""\n{nodes}'
        )

    def _target(self, name: str) -> str:
        return self.daemon.url if name == "web2" else str(self.nodes[name])

    def end(self) -> None:
        """Down, whatever state it is in; nothing stays mounted."""
        self.command("down", check=False)
        self.daemon.stop()
        if self.is_root:
            self.umount_tree("-l")
            subprocess.run(["umount", "-l", self.small_disk], check=False, capture_output=True)
            image = str(self.folder / "disk.img")
            for device in _printed("losetup", "-n", "-O", "NAME", "-j", image).split():
                subprocess.run(["losetup", "-d", device], check=False)

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
        for line in self.supervisorctl("status").splitlines():
            words = line.split()
            if len(words) > 3 and words[1] == "RUNNING":
                found[words[0].partition(":")[2]] = int(words[3].rstrip(","))
        with contextlib.suppress(OSError, ValueError):  # just being written, or none
            found["supervisord"] = int((self.state.path / "supervisord.pid").read_text())
        return found

    def tell_rsyncs(self, why: str) -> None:
        """Print what the Nodes' states are and what each rsync waits for, for whoever looks."""
        nodes = {node["name"]: node["state"] for node in self.status()["nodes"]}
        told = _printed("ps", "-eo", "pid,ppid,stat,wchan:24,etimes,args", "--width", "200")
        lines = [line for line in told.splitlines() if "rsync" in line]
        print(f"{why}: {nodes}", *lines, sep="\n", file=sys.stderr)

    def sizes(self) -> Sizes:
        """What the programs and the state directory take now; one that ends meanwhile is left."""
        rss: Counter[str] = Counter()
        descriptors: Counter[str] = Counter()
        for name, pid in self.programs().items():
            try:
                status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
                count = len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                continue
            lines = [line for line in status.splitlines() if line.startswith("VmRSS:")]
            rss[name] = sum(1024 * int(line.split()[1]) for line in lines)
            descriptors[name] = count
        journals, logs = self._bytes_of("journal-*.db"), self._bytes_of("logs/*")
        wals = self._bytes_of("*.db-wal")
        return Sizes(
            rss_bytes=dict(rss),
            descriptors=dict(descriptors),
            journals=len(journals),
            journal_bytes=sum(journals),
            wal_bytes=sum(wals),
            longest_wal_bytes=max(wals, default=0),
            state_db_bytes=sum(self._bytes_of("state.db")),
            log_bytes=sum(logs),
        )

    def _bytes_of(self, pattern: str) -> list[int]:
        found = []
        for file in self.state.path.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                found.append(file.stat().st_size)
        return found

    def said(self, event: str, *, since: str) -> list[str]:
        """The log lines of this event from this moment on (RFC 3339), of all programs."""
        lines = []
        for log in sorted((self.state.path / "logs").glob("*")):
            text = log.read_text(errors="replace")
            lines += [
                line
                for line in text.splitlines()
                if f" {event} " in f"{line} " and line[:27] >= since
            ]
        return lines

    def supervisorctl(self, *words: str) -> str:
        """What `supervisorctl WORDS` prints."""
        argv = [sys.executable, "-m", "supervisor.supervisorctl"]
        argv += ["-c", str(self.state.supervisord_conf), *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout


def _printed(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
