"""The real command on real daemons: what an operator types, in the order he would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shardsync.control.processes import end, find
from shardsync.layout import StateDirectory
from tests.support.nodes import free_port

_SECONDS = 90


class Site:
    """A tree, two plain-folder Nodes and a settings file; `shardsync(...)` runs the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "site"
        self.web1, self.web2 = folder / "web1", folder / "web2"
        self.state = folder / "state"
        self.port = free_port()
        for path in (self.root, self.web1, self.web2):
            path.mkdir()
        self.settings = folder / "shardsync.toml"
        self.settings.write_text(
            f'[tree]\nroot = "{self.root}"\n[state]\ndir = "{self.state}"\n[shards]\ncount = 3\n'
            f'[metrics]\nlisten = "127.0.0.1:{self.port}"\n'
            f'[[node]]\nname = "web1"\ntarget = "{self.web1}"\n'
            f'[[node]]\nname = "web2"\ntarget = "{self.web2}"\n'
        )

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "XDG_STATE_HOME": str(self.folder / "home"),
        }

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "shardsync.cli.main", *words]

    def shardsync(self, *words: str, code: int = 0) -> str:
        """What the command prints on standard output; its exit code is `code`."""
        done = subprocess.run(
            self.argv(*words),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        said = done.stderr.decode()
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout!r}\n{said}"
        return done.stdout.decode()

    def json(self, *words: str, code: int = 0) -> Any:  # noqa: ANN401 (any JSON)
        return json.loads(self.shardsync(*words, "--json", code=code))

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def differences(self, node: Path) -> str:
        """What rsync itself would still do; the root's own line aside."""
        done = subprocess.run(
            ["rsync", "-naic", "--delete", f"{self.root}/", f"{node}/"],
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
        lines = done.stdout.decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.endswith(" ./"))

    def metric(self, name: str, **labels: str) -> float:
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture
def site() -> Iterator[Site]:
    # Not tmp_path: mirror's state directory must leave room for a unix socket.
    with tempfile.TemporaryDirectory(prefix="ss-") as name:
        made = Site(Path(name))
        yield made
        states = [made.state, *(made.folder / "home").glob("shardsync/mirror-*")]
        for state in (StateDirectory(path=path) for path in states):
            end(find(state), state, term_seconds=5)


@pytest.mark.timeout(300)
def test_a_day_with_two_nodes(site: Site) -> None:
    """up, write, flush, status, trace, metrics, pause, resume, replay, verify, journal, down."""
    for number in range(30):
        site.write(f"d{number % 5}/e{number % 3}/f{number}", f"{number}")
    site.shardsync("status", code=16)
    site.shardsync("check")
    site.shardsync("up")
    site.shardsync("up", code=11)
    site.shardsync("flush")
    assert site.differences(site.web1) == site.differences(site.web2) == ""

    site.write("d1/new", "new")
    os.rename(site.root / "d2", site.root / "moved")
    shutil.rmtree(site.root / "d3")
    site.write(os.fsdecode(b"odd\xff\n"), "odd")
    site.shardsync("flush")
    assert site.differences(site.web1) == site.differences(site.web2) == ""

    status = site.json("status")
    assert [shard["state"] for shard in status["shards"]] == ["following"] * 3
    assert [node["lag_changes"] for node in status["nodes"]] == [0, 0]
    trace = site.json("trace", "moved/e0")
    assert trace["observed_at"] <= trace["journaled_at"]
    assert all(node["shipped_at"] >= trace["journaled_at"] for node in trace["nodes"])
    exact = [change.get("path_b64") for change in site.json("journal")["changes"]]
    assert "b2Rk/wo=" in exact

    assert site.metric("shardsync_up") == 5
    assert site.metric("shardsync_node_lag_changes") == 0
    assert site.metric("shardsync_node_state", node="web1", state="following") == 1
    assert site.metric("shardsync_shipped_paths_total", node="web1") >= 3
    assert site.metric("shardsync_sync_latency_seconds_count", node="web2") >= 3

    before = site.folder / "before"
    shutil.copytree(site.web2, before, symlinks=True)
    site.shardsync("pause", "web2")
    site.write("d1/later", "later")
    assert "web2 (paused)" in _stderr(site, "flush", code=14)
    site.shardsync("flush", "--node", "web1")
    assert [node["identical"] for node in site.json("verify", code=3)["nodes"]] == [True, False]
    site.shardsync("resume", "web2")
    site.shardsync("flush")
    assert site.shardsync("verify") == "web1: identical\nweb2: identical\n"

    # A disk is replaced by an older copy: rsync sees another directory at the target's place.
    for name in os.listdir(site.web2):
        _remove(site.web2 / name)
    shutil.copytree(before, site.web2, symlinks=True, dirs_exist_ok=True)
    site.shardsync("verify", "--node", "web2", code=3)
    assert "d1/later" in site.shardsync("replay", "--since", "10m", "--dry-run").splitlines()
    site.shardsync("replay", "--since", "10m", "--node", "web2")
    assert site.differences(site.web2) == ""
    site.shardsync("reconcile", "--node", "web1")
    assert site.shardsync("config", "get", "shards.count") == "3\n"

    site.shardsync("down")
    assert [shard["state"] for shard in site.json("status", code=16)["shards"]] == ["stopped"] * 3
    assert site.json("trace", "d1/later")["shard"] is not None
    site.shardsync("flush", code=16)
    site.shardsync("verify")


@pytest.mark.fault("flush-cut-off")
@pytest.mark.timeout(200)
def test_a_flush_waits_through_a_kill(site: Site) -> None:
    """Kill -9 of a Watcher and of the sync process: flush waits for their return, nothing lost."""
    site.write("a/b", "1")
    site.shardsync("up")
    site.shardsync("flush")
    status = site.json("status")
    metrics_pid = int((site.state / "locks/sync.lock").read_text())
    for pid in (*(shard["pid"] for shard in status["shards"]), metrics_pid):
        os.kill(pid, signal.SIGKILL)
    for number in range(200):
        site.write(f"a/{number % 7}/{number}", "x")
    site.shardsync("flush", "--timeout", "60s")
    assert site.differences(site.web1) == site.differences(site.web2) == ""
    assert site.metric("shardsync_epochs_total", reason="crash") >= 1
    site.shardsync("down")


@pytest.mark.timeout(200)
def test_what_an_operator_stopped_is_not_waited_for(site: Site) -> None:
    """`supervisorctl stop shardsync:sync`: flush says so at once (14), pause needs it (16)."""
    site.write("a/b", "1")
    site.shardsync("up")
    site.shardsync("flush")
    supervisorctl = [sys.executable, "-m", "supervisor.supervisorctl"]
    supervisorctl += ["-c", str(site.state / "supervisord.conf")]
    subprocess.run([*supervisorctl, "stop", "shardsync:sync"], check=True, timeout=_SECONDS)
    site.write("a/c", "1")
    assert "not done: web1, web2" in _stderr(site, "flush", code=14)
    assert [node["lag_changes"] for node in site.json("status", code=14)["nodes"]] == [1, 1]
    site.shardsync("pause", "web1", code=16)
    subprocess.run([*supervisorctl, "start", "shardsync:sync"], check=True, timeout=_SECONDS)
    site.shardsync("flush")
    assert site.differences(site.web1) == ""
    site.shardsync("down")


@pytest.mark.timeout(200)
def test_broken_settings_do_not_hide_what_runs(site: Site) -> None:
    """However wrong or gone the file is, the daemons that were started with it are found."""
    site.write("a", "1")
    site.shardsync("up")
    site.shardsync("flush")
    for text in ("[tree", '[state]\ndir = "/no/such/place"\n', None):
        site.settings.unlink()
        if text is not None:
            site.settings.write_text(text)
        file = str(site.settings)
        nodes = site.json("--config", file, "status")["nodes"]
        assert [node["state"] for node in nodes] == ["following", "following"]
        site.shardsync("--config", file, "flush")
        site.shardsync("--config", file, "check", code=10)
    assert site.shardsync("--config", file, "down") == "down\n"
    assert "there is no such file" in _stderr(site, "--config", file, "trace", "a", code=10)


@pytest.mark.timeout(200)
def test_mirror_without_settings(site: Site) -> None:
    """`mirror --once` fills, keeps what is foreign, resumes; in the foreground it follows."""
    site.write("a/one", "1")
    (site.web2 / "foreign").write_text("?")
    source, targets = str(site.root), (str(site.web1), str(site.web2))
    printed = site.shardsync("mirror", "--once", source, *targets)
    assert "web1: up to date after " in printed
    assert site.differences(site.web1) == ""
    assert (site.web2 / "foreign").exists()

    site.write("a/two", "2")
    site.shardsync("mirror", "--once", "--adopt", source, *targets)
    assert site.differences(site.web1) == site.differences(site.web2) == ""

    with subprocess.Popen(
        site.argv("mirror", source, str(site.web1)),
        cwd=site.folder,
        env=site.environment(),
        stdout=subprocess.PIPE,
    ) as following:
        _await("node main/web1 following", following)
        site.write("a/three", "3")
        _await_path(site.web1 / "a/three")
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=_SECONDS) == 0
    site.write("a/four", "4")
    site.shardsync("mirror", "--once", source, str(site.web1))
    assert site.differences(site.web1) == ""
    assert "does not exist" in _stderr(site, "mirror", "/no/such", str(site.web1), code=10)


@pytest.mark.timeout(100)
def test_mirror_tells_a_node_that_cannot_be_reached(site: Site) -> None:
    """One target fails, the other is brought up to date; exit 14 names the one."""
    site.write("a", "1")
    far = f"rsync://127.0.0.1:{free_port()}/module"
    said = _stderr(site, "mirror", "--once", str(site.root), str(site.web1), far, code=14)
    assert "mirror: failed: 127.0.0.1" in said
    assert site.differences(site.web1) == ""


@pytest.mark.timeout(200)
def test_mirror_ends_when_a_node_that_followed_is_lost(site: Site) -> None:
    """A target whose parent went away since the last run fails by name; the other gets all."""
    site.write("a/one", "1")
    lost = site.folder / "disk" / "copy"
    lost.parent.mkdir()
    words = ("mirror", "--once", str(site.root), str(site.web1), str(lost))
    site.shardsync(*words)
    shutil.rmtree(lost.parent)
    site.write("a/two", "2")
    said = _stderr(site, *words, code=14)
    assert "mirror: failed: copy" in said
    assert site.differences(site.web1) == ""
    lost.parent.mkdir()
    site.shardsync(*words)
    assert site.differences(lost) == ""


@pytest.mark.fault("second-instance")
@pytest.mark.timeout(200)
def test_a_second_mirror_leaves_the_first_alone(site: Site) -> None:
    """One mirror of a SRC at a time; the one that is refused changes nothing of the first's."""
    site.write("a", "1")
    with subprocess.Popen(
        site.argv("mirror", str(site.root), str(site.web1)),
        cwd=site.folder,
        env=site.environment(),
        stdout=subprocess.PIPE,
    ) as first:
        _await("node main/web1 following", first)
        (file,) = (site.folder / "home").glob("shardsync/mirror-*/shardsync.toml")
        before = file.read_text()
        said = _stderr(site, "mirror", str(site.root), str(site.web2), code=11)
        assert f"{site.root} is being mirrored already" in said
        assert file.read_text() == before
        assert file.stat().st_mode & 0o777 == 0o600
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=_SECONDS) == 0
    assert "type it anew" in _stderr(
        site, "mirror", str(site.root), str(site.root / "in"), code=10
    )


def _stderr(site: Site, *words: str, code: int) -> str:
    done = subprocess.run(
        site.argv(*words),
        cwd=site.folder,
        env=site.environment(),
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stderr.decode()}"
    return done.stderr.decode()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _await(words: str, process: subprocess.Popen[bytes]) -> None:
    assert process.stdout
    for line in process.stdout:
        if words in line.decode():
            return
    raise AssertionError(f"never said: {words}")


def _await_path(path: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.05)
