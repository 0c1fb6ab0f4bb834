"""A safety rule taken out of the product: exact pieces of its source, and what stands there then.

Pure: text in, text out.
"""

from __future__ import annotations

from dataclasses import dataclass


class Lost(Exception):
    """The source is no longer what a mutant was written for: it must be written anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One rule, broken on purpose.

    `rule`: what holds without it, as a sentence. `file`: relative to the repository. `edits`:
    (old, new); each old stands there exactly once. `tests`: node ids, every one of which must
    fail with it; few and quick.
    """

    name: str
    rule: str
    file: str
    edits: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The text of `file` with the rule taken out. Raises Lost."""
        for old, new in self.edits:
            count = text.count(old)
            if count != 1:
                raise Lost(f"{self.name}: {count} times in {self.file}: {old!r}")
            text = text.replace(old, new)
        return text
