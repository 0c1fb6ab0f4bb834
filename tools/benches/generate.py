"""generate.c in Python, for machines without a compiler; the same words, the same trees."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

PROCESSES = 4


def main(words: list[str]) -> int:
    """Do what the words say (see generate.c); returns the exit code."""
    os.umask(0o022)
    if len(words) < 3:
        return 2
    kind, root, *rest = words
    os.makedirs(root, exist_ok=True)
    os.chdir(root)
    if kind == "tree":
        a, b, c, mtime = (int(word) for word in rest)
        side_by_side(PROCESSES, lambda number: make_part(range(number, a, PROCESSES), b, c, mtime))
        os.utime(".", (mtime, mtime))
    elif kind == "files":
        processes, count, per = (int(word) for word in rest)
        side_by_side(processes, lambda number: make_files(number, processes, count, per))
    elif kind == "rewrite":
        rewrite(int(rest[0]))
    else:
        return 2
    return 0


def side_by_side(processes: int, work: Callable[[int], None]) -> None:
    """Run `work` with the numbers from 0 on in children; exits with 1 if one of them fails."""
    children = []
    for number in range(processes):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work(number)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    ends = [os.waitpid(pid, 0)[1] for pid in children]
    if any(ends):
        sys.exit(1)


def make_part(numbers: range, b: int, c: int, mtime: int) -> None:
    """The given directories of the first level, whole."""
    times = (mtime, mtime)
    for i in numbers:
        top = f"d{i:02d}"
        os.makedirs(top, exist_ok=True)
        for j in range(b):
            section = f"{top}/s{j:03d}"
            os.makedirs(section, exist_ok=True)
            for k in range(c):
                leaf = f"{section}/p{k:04d}"
                os.makedirs(leaf, exist_ok=True)
                make_file(f"{leaf}/index.html", f"page {i} {j} {k}\n".encode())
                os.utime(f"{leaf}/index.html", times)
                os.utime(leaf, times)
            os.utime(section, times)
            os.write(1, b"d\n")
        os.utime(top, times)


def make_files(number: int, processes: int, count: int, per: int) -> None:
    """Every `processes`th directory of `count` files."""
    for folder in range(number, (count + per - 1) // per, processes):
        os.makedirs(f"e{folder:05d}", exist_ok=True)
        for file in range(folder * per, min((folder + 1) * per, count)):
            make_file(f"e{folder:05d}/f{file:07d}", b"a page\n")


def make_file(path: str, content: bytes) -> None:
    """Write it, with mode 0644."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    os.write(descriptor, content)
    os.close(descriptor)


def rewrite(per: int) -> None:
    """Rewrite the files that each line on stdin names, and answer it."""
    for line in sys.stdin:
        start, end = (int(word) for word in line.split())
        for number in range(start, end):
            descriptor = os.open(f"e{number // per:05d}/f{number:07d}", os.O_WRONLY)
            os.write(descriptor, b"b page\n")
            os.close(descriptor)
        print("done", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
