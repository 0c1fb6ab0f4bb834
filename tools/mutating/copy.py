"""A copy of the repository with an interpreter of its own, for which the copy is the product.

The project is installed by path into .venv, so an interpreter shared with the
repository would find the repository's product wherever a test starts a program with
a clean environment. The copy's own has the same packages, by symbolic links.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_LEFT_OUT = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
_WHERE = "import shardsync; print(shardsync.__file__)"


class Copy:
    """The repository in `folder/r`; make one per mutant and throw the folder away."""

    def __init__(self, *, folder: Path) -> None:
        self.root = folder / "r"
        self.python = self.root / ".venv/bin/python"

    def make(self) -> None:
        """Copy, and see that any program of the copy's interpreter has the copy's product.

        Raises RuntimeError where it has not.
        """
        left_out = shutil.ignore_patterns(*_LEFT_OUT)
        shutil.copytree(REPOSITORY, self.root, symlinks=True, ignore=left_out)
        _make_interpreter(self.root)
        # -I: whatever the environment and the working directory are.
        found = subprocess.run(
            [self.python, "-I", "-c", _WHERE],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        if Path(found) != self.root / "shardsync/__init__.py":
            raise RuntimeError(f"the copy's interpreter has the product from {found}")


def _make_interpreter(root: Path) -> None:
    """`.venv` anew: the same interpreter and packages, another place for the project."""
    old, new = Path(sys.prefix), root / ".venv"
    packages = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
    (new / packages).mkdir(parents=True)
    (new / "bin").mkdir()
    shutil.copy2(old / "pyvenv.cfg", new)
    (new / "bin/python").symlink_to(Path(sys.executable).resolve())
    for entry in (old / packages).iterdir():
        if not entry.name.startswith("__editable__"):
            (new / packages / entry.name).symlink_to(entry)
    (new / packages / "copy.pth").write_text(f"{root}\n")
    for script in ("shardsync", "supervisorctl", "supervisord"):
        text = (old / "bin" / script).read_text()
        (new / "bin" / script).write_text(text.replace(str(old), str(new)))
        (new / "bin" / script).chmod(0o755)
