"""tune, check and up on a kernel with too little: told in words, with the command that helps.

Each in a user namespace of its own, whose limits bind nobody else, and with /proc/sys read-only
wherever the machine's own could be written.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.control.processes import end, find
from shardsync.control.tuning import SYSCTL_FILE, read_sysctls
from shardsync.layout import StateDirectory
from tests.support.instances import eventually

_SECONDS = 60
_READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"
_NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount"]

pytestmark = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*_NAMESPACES, "sh", "-c", _READ_ONLY], check=False).returncode != 0,
    reason="user namespaces are not to be had here",
)


class Place:
    """A tree of 150 directories, one Node and settings; `run` in namespaces of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = StateDirectory(path=folder / "state")
        self.config = folder / "shardsync.toml"
        for number in range(149):
            (folder / f"tree/d{number}").mkdir(parents=True)
        (folder / "node").mkdir()
        self.config.write_text(
            f'[tree]\nroot = "{folder}/tree"\n[state]\ndir = "{self.state.path}"\n'
            f'[shards]\ncount = 1\n[metrics]\nlisten = ""\n'
            f'[[node]]\nname = "web1"\ntarget = "{folder}/node"\n'
        )

    def run(
        self, *words: str, before: str = "true", as_root: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`shardsync WORDS` after the shell commands `before`, as root of a user namespace.

        Without `as_root` in one more below that, as nobody.
        """
        script = f'{before} && {_READ_ONLY} && exec "$0" "$@"'
        argv = [sys.executable, "-m", "shardsync.cli.main", *words]
        if not as_root:
            argv = ["unshare", "--user", *argv]
        return subprocess.run(
            [*_NAMESPACES, "sh", "-c", script, *argv],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )


@pytest.fixture
def place() -> Iterator[Place]:
    # Not tmp_path: the state directory must leave room for a unix socket.
    with tempfile.TemporaryDirectory(prefix="ss-") as name:
        made = Place(Path(name))
        yield made
        end(find(made.state), made.state, term_seconds=5)


def polled(place: Place) -> int:
    document = json.loads(place.run("status", "--json").stdout)
    return int(document["shards"][0]["polled_directories"])


FEW_WATCHES = "echo 100 > /proc/sys/user/max_inotify_watches"


def test_check_complains_of_each_limit_and_exits_0(place: Place) -> None:
    """What, how many there are, how many are needed, what happens otherwise, what to type."""
    few = f"{FEW_WATCHES} && echo 20 > /proc/sys/user/max_inotify_instances"
    done = place.run("check", before=few)
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 2
    assert warned[0].startswith("warning: user.max_inotify_watches: 100, where 217 are needed: ")
    assert "about 117 directories are polled" in warned[0]
    assert "`sysctl -w user.max_inotify_watches=" in warned[0]
    assert "user.max_inotify_instances: 20, where 34 are needed" in warned[1]


def test_check_tells_what_to_do_about_a_missing_marker(place: Place) -> None:
    """Either the mount is missing, or the marker: not the root."""
    text = place.config.read_text().replace("[state]", 'marker = ".is here"\n[state]')
    place.config.write_text(text)
    done = place.run("check")
    assert done.returncode == 14
    assert f"touch '{place.folder}/tree/.is here'" in done.stderr
    (place.folder / "tree/.is here").touch()
    assert place.run("check").returncode == 0


def test_check_says_when_there_is_enough(place: Place) -> None:
    """And for how many directories."""
    done = place.run("check")
    assert done.returncode == 0
    assert "limits: enough for about 150 directories\n" in done.stdout


def test_up_warns_in_a_line_and_goes_on(place: Place) -> None:
    """On standard error; the programs run, and what has no watch is polled, and counted once."""
    done = place.run("up", before=FEW_WATCHES)
    assert done.returncode == 0, done.stderr
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: user.max_inotify_watches: 100, where 217 are needed: ")
    assert "up: supervisord is pid" in done.stdout
    eventually(lambda: 0 < polled(place) < 150)
    assert json.loads(place.run("plan", "--json").stdout)["directories"] == 150
    assert "100, where 217 are needed: " in place.run("check", before=FEW_WATCHES).stdout
    place.run("down")


def test_tune_prints_what_is_needed_and_changes_nothing(place: Place) -> None:
    """The file on standard output, what to type to have it loaded beside."""
    done = place.run("tune", "--directories", "3000000")
    printed = place.folder / "printed.conf"
    printed.write_text(done.stdout)
    assert done.returncode == 0
    assert read_sysctls(printed)["fs.inotify.max_user_watches"] >= 6_000_000
    assert "about 3,000,000 watched directories" in done.stdout
    command = f"sudo shardsync tune --apply --config {place.config}"
    assert done.stderr.rstrip().endswith(command)


def test_tune_counts_what_the_settings_name(place: Place) -> None:
    """Without them it takes a million directories, and refused ones still name the root."""
    assert "about 150 watched" in place.run("tune").stdout
    place.config.write_text(place.config.read_text() + "[nonsense]\nx = 1\n")
    done = place.run("tune")
    assert done.returncode == 0
    assert "about 150 watched" in done.stdout
    assert "the settings are refused" in done.stderr
    place.config.unlink()
    if not Path("/etc/shardsync/shardsync.toml").exists():
        assert "about 1,000,000 watched" in place.run("tune").stdout


def test_tune_needs_a_main_file_that_parses(place: Place) -> None:
    """Anything else of it may be wrong."""
    place.config.write_text("[tree\n")
    done = place.run("tune")
    assert done.returncode == 10
    assert "line 1" in done.stderr


def test_tune_apply_where_the_kernel_s_files_are_read_only(place: Place) -> None:
    """As in a container: what to do on the host, and no file left behind."""
    had_one = SYSCTL_FILE.exists()
    done = place.run("tune", "--apply", "--directories", "900000000")
    assert done.returncode == 2
    assert "fs.inotify.max_user_watches" in done.stderr
    assert "Read-only file system" in done.stderr
    assert "on the host" in done.stderr
    assert SYSCTL_FILE.exists() is had_one


def test_tune_apply_names_sudo_to_anybody_but_root(place: Place) -> None:
    """Before anything is counted or written."""
    done = place.run("tune", "--apply", as_root=False)
    assert done.returncode == 2
    assert "must be run as root" in done.stderr
    assert f"try: sudo shardsync tune --apply --config {place.config}" in done.stderr
