"""The rsync that Debian 12 shipped first, and which dies of --delete-missing-args.

It may also be the one that this machine has: where its security updates are not installed.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

VERSION = "3.2.7-1+deb12u6"


def old_rsync() -> str:
    """Path of that rsync's program, fetched once into the user's cache; skips where it cannot be.

    `SHARDSYNC_TEST_OLD_RSYNC` may name one that is there already.
    """
    given = os.environ.get("SHARDSYNC_TEST_OLD_RSYNC")
    if given:
        return given
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "shardsync-tests"
    program = cache / "old-rsync" / "usr" / "bin" / "rsync"
    if not program.exists():
        _fetch(cache, program)
    return str(program)


def _fetch(cache: Path, program: Path) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        pytest.skip("the old rsync comes as a Debian package")
    cache.mkdir(parents=True, exist_ok=True)
    fetched = subprocess.run(
        ["apt-get", "download", f"rsync={VERSION}"],
        cwd=cache,
        check=False,
        capture_output=True,
        timeout=90,
    )
    packages = sorted(cache.glob("rsync_*.deb"))
    if fetched.returncode or not packages:
        pytest.skip(f"rsync {VERSION} cannot be had: {fetched.stderr.decode()[-200:]}")
    folder = cache / f"unpacking-{os.getpid()}"
    subprocess.run(["dpkg", "-x", str(packages[0]), str(folder)], check=True, timeout=60)
    if program.parents[2].exists():
        shutil.rmtree(folder)
    else:
        folder.rename(program.parents[2])


@functools.cache
def takes_missing_args() -> bool:
    """Whether the rsync of this machine, as a receiver, deletes what its sender does not have."""
    with tempfile.TemporaryDirectory() as folder:
        tree, node = Path(folder, "tree"), Path(folder, "node")
        tree.mkdir()
        (tree / "present").touch()
        done = subprocess.run(
            ["rsync", "--files-from=-", "--delete-missing-args", f"{tree}/", f"{node}/"],
            input=b"/present\n/missing\n",
            check=False,
            capture_output=True,
            timeout=30,
        )
    return done.returncode == 0
