"""rsync filter patterns."""

from __future__ import annotations

from shardsync.config.problems import Refusal


def check_pattern(text: str) -> Refusal | None:
    """What is wrong with `text` as a pattern, None if nothing."""
    if not text.strip("/"):
        return Refusal("is empty, it would match nothing", 'write a pattern: "*.tmp", "/cache/"')
    if "\0" in text or "\n" in text:
        return Refusal("holds a control character that rsync's rules end at", "write it as ?")
    return None
