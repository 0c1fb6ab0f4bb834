"""All programs real: a file system comes and goes below the root, and the Node loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.compare import differences
from tests.support.instances import Instance, eventually, instance


def shardsync(made: Instance, *words: str) -> int:
    """The exit code of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "shardsync.cli.main", *words],
        env={**os.environ, "SHARDSYNC_CONFIG": str(made.config)},
        capture_output=True,
        timeout=90,
        check=False,
    )
    return done.returncode


@pytest.mark.fault("root-unmounted")
@pytest.mark.root
@pytest.mark.timeout(240)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("options", [(), ("-l",)])
def test_a_mount_is_delivered_and_an_unmount_deletes_nothing(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """A flush after mounting delivers; the umount halts the Tree; mounted again, it goes on."""
    with instance(tmp_path) as made:
        point, other = made.root / "vol", tmp_path / "other"
        other.mkdir()
        for number in range(20):
            (other / f"d{number}").mkdir()
            (other / f"d{number}/page").write_text(f"{number}")
        point.mkdir()
        (made.root / "a").mkdir()
        (made.root / "a/f").write_text("f")
        made.lifecycle().up(made.settings())
        eventually(lambda: shardsync(made, "flush") == 0)
        bind = ["mount", "--bind", str(other), str(point)]
        try:
            subprocess.run(bind, check=True, timeout=30)
            assert shardsync(made, "flush") == 0
            assert differences(made.root, made.node) == []
            (point / "d3/page").write_text("rewritten")
            assert shardsync(made, "flush") == 0
            assert (made.node / "vol/d3/page").read_text() == "rewritten"
            held = os.open(point / "d1", os.O_RDONLY) if options else -1
            subprocess.run(["umount", *options, str(point)], check=True, timeout=30)
            (made.root / "a/f").write_text("while unmounted")
            assert shardsync(made, "flush") == 14
            assert len(list((made.node / "vol").iterdir())) == 20
            assert (made.node / "vol/d3/page").read_text() == "rewritten"
            subprocess.run(bind, check=True, timeout=30)
            (point / "d4/page").unlink()
            eventually(lambda: shardsync(made, "flush") == 0)
            assert differences(made.root, made.node) == []
            assert not (made.node / "vol/d4/page").exists()
            if held >= 0:
                os.close(held)
        finally:
            subprocess.run(
                ["umount", "-l", str(point)], check=False, stderr=subprocess.DEVNULL, timeout=30
            )
