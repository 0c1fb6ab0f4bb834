"""The oracle: rsync's own comparison, which shares no code with the product."""

from __future__ import annotations

import subprocess
from pathlib import Path


def differences(tree: Path, node: Path | str) -> list[str]:
    """What `rsync -naic --delete` names from tree to node, the root's own line aside."""
    found = subprocess.run(
        ["rsync", "-naic", "--delete", f"{tree}/", f"{node}/"],
        capture_output=True,
        check=True,
        timeout=120,
    )
    lines = found.stdout.decode("utf-8", "backslashreplace").splitlines()
    return [line for line in lines if not line.endswith(" ./")]
