"""When a Tree whose Shards grew apart is worth a re-plan: pure, from figures and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_LOPSIDED = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What evening out has to be worth.

    `floor_directories`: so many more than its share the heaviest Shard must
    have. `hold_seconds`: for so long without a break. `pause_seconds`: since
    the last re-plan of the Tree, or since one was found to help too little.
    """

    floor_directories: int = 5_000
    hold_seconds: float = 10.0
    pause_seconds: float = 600.0


def is_lopsided(loads: Sequence[int], shards: int, floor: int) -> bool:
    """Whether the heaviest of the Shards has twice its share of the directories or more.

    Of two Shards nobody can have more than two shares, so there it is half
    of that way. `shards`: how many the Tree is to have; fewer may observe.
    """
    share = sum(loads) / shards
    heaviest = max(loads, default=0)
    return heaviest > share + floor and heaviest > min(_LOPSIDED, (1 + shards) / 2) * share


def is_better(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a re-plan takes a fifth off the heaviest Shard: less is not worth its scans."""
    return max(after) <= 0.8 * max(before)


class Scales:
    """Remembers since when each Tree has been lopsided. Time is what the caller says it is."""

    def __init__(self, *, pace: Pace) -> None:
        self.pace = pace
        self._since: dict[str, float] = {}

    def is_due(
        self, tree: str, loads: Sequence[int], shards: int, *, now: float, since_replan: float
    ) -> bool:
        """Whether the Tree is to be evened out now.

        `now`: monotonic seconds; `since_replan`: seconds since its last
        re-plan, infinite where there was none.
        """
        if not is_lopsided(loads, shards, self.pace.floor_directories):
            self._since.pop(tree, None)
            return False
        held = now - self._since.setdefault(tree, now)
        return held >= self.pace.hold_seconds and since_replan >= self.pace.pause_seconds

    def forget(self, tree: str) -> None:
        """Nobody knows how it is just now."""
        self._since.pop(tree, None)


def shares_of(
    allotted: Mapping[str, int], present: Mapping[str, int], wanted: int
) -> dict[str, int]:
    """How many Shards each Tree may have when it alone is planned anew.

    As many as `allotted`, but no more than the others leave of all `wanted`;
    never fewer than it has.
    """
    total = sum(present.values())
    return {
        tree: max(present[tree], min(allotted[tree], wanted - (total - present[tree])))
        for tree in present
    }
