"""Random operations on a tree, as sites, editors, deployments and attackers do them.

Everything follows from the seed and from what the tree holds, which nobody else
changes: the same seed does the same again.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tools.soaks import files, folders
from tools.soaks.ground import Ground

Operation = Callable[[Ground], None]

OPERATIONS: dict[str, tuple[int, Operation]] = {
    "create": (20, files.create),
    "rewrite": (12, files.rewrite),
    "append": (10, files.append),
    "truncate": (3, files.truncate),
    "replace by rename": (10, files.replace),
    "rename": (8, files.rename),
    "rename directory": (8, folders.rename_directory),
    "exchange": (2, folders.exchange),
    "move out": (2, folders.move_out),
    "move in": (3, folders.move_in),
    "unlink": (9, files.unlink),
    "mkdir -p": (8, folders.make_deep),
    "rmtree": (4, folders.remove_tree),
    "change type": (5, folders.change_type),
    "copy": (2, files.copy),
    "copy directory": (2, folders.copy_directory),
    "hard link": (3, files.link),
    "symlink": (3, files.symlink),
    "chmod": (4, folders.chmod),
    "utime": (4, folders.utime),
    "hold open": (2, files.hold_open),
    "write to what is held": (2, files.write_held),
    "let go": (2, files.let_go),
    "mmap": (2, files.map_and_write),
    "O_TMPFILE and linkat": (2, files.nameless),
    "sparse": (1, files.sparse),
    "big": (1, files.big),
    "fifo or socket": (1, files.special),
}
BLIND: dict[str, tuple[int, Operation]] = {
    "mmap held": (3, files.map_and_hold),
    "munmap": (2, files.unmap),
    "link to outside": (4, files.link_out),
    "write from outside": (6, files.write_outside),
}
"""What inotify tells nobody of, or only later."""
_THINNING = {"rmtree": 20, "unlink": 20}
_COUNT_EVERY = 200


@dataclass(slots=True)
class Done:
    """How often each operation was done, and how often one was refused by the file system."""

    operations: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Operations that took effect."""
        return sum(self.operations.values())


class Churn:
    """`step()` does one operation. `outside`: a folder beside the tree, on its file system.

    `most_entries`, `most_bytes`: beyond them more is removed than made. `with_blind`: also do
    what inotify cannot see; may be set at any time between two steps.
    """

    def __init__(
        self,
        *,
        root: bytes,
        outside: bytes,
        seed: int,
        say: Callable[[str], None] | None = None,
        most_entries: int = 3_000,
        most_bytes: int = 100_000_000,
    ) -> None:
        self.done = Done()
        self.with_blind = False
        self.ground = Ground(root=root, outside=outside, dice=random.Random(seed))  # noqa: S311 (to be repeatable)
        self._say = say or (lambda _: None)
        self._most_entries = most_entries
        self._most_bytes = most_bytes

    def step(self) -> None:
        """One operation; one that the file system refuses is counted as refused."""
        if self.ground.count % _COUNT_EVERY == 0:
            self._weigh()
        table = {**OPERATIONS, **BLIND} if self.with_blind else OPERATIONS
        weights = [self._weight(name, weight) for name, (weight, _) in table.items()]
        name = self.ground.dice.choices(list(table), weights)[0]
        self.ground.count += 1
        self.ground.chosen.clear()
        result = "done"
        try:
            table[name][1](self.ground)
        except OSError as error:
            self.done.refused[name] += 1
            result = errno.errorcode.get(error.errno or 0, "?")
        else:
            self.done.operations[name] += 1
        chosen = " ".join(map(repr, self.ground.chosen))
        self._say(f"{self.ground.count} {name}: {result} {chosen}")

    def blind_paths(self) -> list[bytes]:
        """Where the files lie now that changed unseen; they are forgotten with that."""
        found = []
        for folder, _, names in os.walk(self.ground.root):
            for name in names:
                status = os.lstat(folder + b"/" + name)
                if (status.st_dev, status.st_ino) in self.ground.blind:
                    found.append(os.path.relpath(folder + b"/" + name, self.ground.root))
        self.ground.blind.clear()
        return sorted(found)

    def _weight(self, name: str, weight: int) -> int:
        return _THINNING.get(name, weight) if self.ground.is_crowded else weight

    def _weigh(self) -> None:
        entries = size = 0
        for folder, directories, names in os.walk(self.ground.root):
            entries += len(directories) + len(names)
            size += sum(os.lstat(folder + b"/" + name).st_size for name in names)
        self.ground.is_crowded = entries > self._most_entries
        self.ground.is_heavy = size > self._most_bytes
