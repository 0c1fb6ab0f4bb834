"""The rules that are taken out, in the order of docs/guarantees.md."""

from __future__ import annotations

from tools.mutating.mutant import Mutant
from tools.mutating.rules import deletion, journal, root, ship, surroundings, watch

GROUPS: dict[str, tuple[Mutant, ...]] = {
    "Watching": watch.MUTANTS,
    "Journals and Cursors": journal.MUTANTS,
    "The root, and one path": root.MUTANTS,
    "How much is deleted, and whose": deletion.MUTANTS,
    "rsync": ship.MUTANTS,
    "Surroundings": surroundings.MUTANTS,
}
MUTANTS = tuple(mutant for group in GROUPS.values() for mutant in group)
