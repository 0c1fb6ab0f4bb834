from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.nodes import RsyncDaemon, Sshd


def test_daemon_takes_files_with_its_password_and_survives_a_restart(tmp_path: Path) -> None:
    """The test daemon asks for its password, and listens on the same port after an outage."""
    source, node = tmp_path / "source", tmp_path / "node"
    source.mkdir()
    node.mkdir()
    (source / "a").write_text("1")
    with RsyncDaemon(workspace=tmp_path, path=node, user="push", password="secret") as daemon:
        plain = ["rsync", "-a", f"{source}/", f"{daemon.url}/"]
        command = [*plain, f"--password-file={daemon.password_file}"]
        subprocess.run(command, check=True, timeout=20)
        assert (node / "a").read_text() == "1"
        daemon.stop()
        assert (
            subprocess.run(command, check=False, timeout=20, capture_output=True).returncode == 10
        )
        daemon.start()
        subprocess.run(command, check=True, timeout=20)
        daemon.stop()


def test_sshd_runs_rsync_for_us(tmp_path: Path) -> None:
    """The test sshd lets us in with its own key, and rsync through it works."""
    source, node = tmp_path / "source", tmp_path / "node"
    source.mkdir()
    (source / "a").write_text("1")
    with Sshd(workspace=tmp_path) as sshd:
        shell = "ssh " + " ".join(sshd.ssh_options)
        subprocess.run(
            ["rsync", "-a", "-e", shell, f"{source}/", f"127.0.0.1:{node}/"],
            check=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
        )
    assert (node / "a").read_text() == "1"
