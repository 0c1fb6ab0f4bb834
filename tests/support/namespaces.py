"""User namespaces with inotify limits of their own: the machine's are everybody's."""

from __future__ import annotations

import subprocess

WATCHES = "/proc/sys/user/max_inotify_watches"
INSTANCES = "/proc/sys/user/max_inotify_instances"


def limited(file: str, number: int) -> tuple[str, ...]:
    """What to put before a command so that it and its children have this limit."""
    return ("unshare", "-Ur", "sh", "-c", f'echo {number} >{file}; exec "$@"', "sh")


def set_limit(pid: int, file: str, number: int) -> None:
    """Change a limit in the user namespace of a process."""
    enter = ["nsenter", "-t", str(pid), "-U", "--preserve-credentials"]
    subprocess.run([*enter, "sh", "-c", f"echo {number} >{file}"], check=True, timeout=30)
