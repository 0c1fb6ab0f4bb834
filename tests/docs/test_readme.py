"""Every command block of the README is run, in order, as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compare import differences
from tests.support.nodes import RsyncDaemon, free_port

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()
BLOCK_SECONDS = 120


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def _is_about_the_repository(block: str) -> bool:
    return "tools/" in block or "$PWD/.venv" in block


def _environment(**more: str) -> dict[str, str]:
    path = f"{REPOSITORY}/.venv/bin:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **more}


def _run(block: str, *, folder: Path, environment: dict[str, str]) -> str:
    """The block in a shell that stops at the first failure; what it printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BLOCK_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A state folder whose path leaves room for a unix socket, which tmp_path does not."""
    with tempfile.TemporaryDirectory(prefix="ss-") as folder:
        yield Path(folder)


@pytest.mark.timeout(600)
def test_the_daemon_chapter_works_as_written(tmp_path: Path, short_folder: Path) -> None:
    """mirror, check, up, flush, trace, verify, pause, replay, supervisorctl, metrics, down."""
    site, state = tmp_path / "site", tmp_path / "state"
    for folder in ("site/a/b", "web1", "web2", "backup"):
        (tmp_path / folder).mkdir(parents=True)
    (site / "a" / "b" / "index.html").write_text("<h1>home</h1>\n")
    port = free_port()
    with RsyncDaemon(workspace=tmp_path, path=tmp_path / "web2") as daemon:
        places = {
            "/var/www/html": str(site),
            "/backup/html": str(tmp_path / "backup/html"),
            "/srv/web1": str(tmp_path / "web1"),
            "/var/lib/shardsync": str(state),
            # The reader's daemon runs for days when it is asked for the last hour.
            "--since 1h": "--since 1s",
            "127.0.0.1:8730": f"127.0.0.1:{daemon.port}",
            "127.0.0.1:9750": f"127.0.0.1:{port}",
        }

        def here(text: str) -> str:
            for written, real in places.items():
                text = text.replace(written, real)
            return text

        (settings,) = _blocks("toml")
        (tmp_path / "shardsync.toml").write_text(here(settings))
        environment = _environment(XDG_STATE_HOME=str(short_folder))
        printed = ""
        try:
            for block in _blocks("sh"):
                if not _is_about_the_repository(block):
                    printed += _run(here(block), folder=tmp_path, environment=environment)
        finally:
            subprocess.run(
                [REPOSITORY / ".venv/bin/shardsync", "down"],
                cwd=tmp_path,
                env=environment,
                check=False,
                capture_output=True,
                timeout=BLOCK_SECONDS,
            )
        assert differences(site, tmp_path / "backup/html") != []
        assert differences(site, tmp_path / "web1") == []
        assert differences(site, tmp_path / "web2") == []
    assert "shardsync_node_lag_seconds" in printed
    assert "shardsync:watcher-00" in printed


@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", [b for b in _blocks("sh") if _is_about_the_repository(b)])
def test_the_tools_blocks_run(block: str) -> None:
    """Set-up, demo, check; the tests themselves are collected only, as this is one of them."""
    environment = _environment(PYTEST_ADDOPTS="--collect-only -q", NO_COLOR="1")
    _run(block, folder=REPOSITORY, environment=environment)


def test_every_exit_code_in_the_readme_is_one_of_ours() -> None:
    """The table names each code once, in order."""
    table = re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)
    assert [int(code) for code in table] == [0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 16]
