"""Pieces of a Tree that change hands until all have about the same: the planner's workbench.

In memory only, and the same result for the same counts.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping

PREFIXES_MAX = 131_072
"""In one Tree's Plan. A flat directory can need one for each of its subdirectories; each costs
every reader of the Plan some 100 bytes, and a microsecond at each new Plan."""

_CLOSE = 0.01
"""Who lacks no more than this part of a share is full."""

_TOLERATED = 1.15
"""Who has at most so many shares gives nothing away: what moves must be scanned anew."""

_Piece = tuple[int, bytes]
"""(-directories, prefix): the heaviest first in a heap."""


class Board:
    """Who owns which prefix, and how many directories each has.

    `owner`: listed prefix -> number. `loads`: number -> directories. A piece
    is a prefix less what is listed on its own below it.
    """

    def __init__(
        self, *, counts: Mapping[bytes, int], owner: dict[bytes, int], loads: list[int]
    ) -> None:
        self.owner = owner
        self.loads = loads
        self._parents = _parents(counts)
        self._children = _children(self._parents)
        self._weights = dict(counts)
        for prefix in owner:
            self._lighten(prefix, counts.get(prefix, 0))
        self._leaving: frozenset[int] = frozenset()
        self._giving: frozenset[int] = frozenset()
        # May hold pieces that were given, split or made lighter since: `_next` looks.
        self._offered: list[_Piece] = []

    def add(self, how_many: int) -> None:
        """So many more owners, with nothing."""
        self.loads += [0] * how_many

    def dissolve(self, how_many: int) -> None:
        """Have so many of the lightest give all away. The owner of b"" always stays."""
        others = [number for number in range(len(self.loads)) if number != self.owner[b""]]
        others.sort(key=lambda number: (self.loads[number], number))
        self._leaving = frozenset(others[: max(how_many, 0)])

    def even_out(self) -> None:
        """Move pieces from those that have too much, or leave, to those that have least."""
        staying = [n for n in range(len(self.loads)) if n not in self._leaving]
        share = sum(self.loads) / len(staying)
        heavy = {n for n in staying if self.loads[n] > _TOLERATED * share}
        self._giving = self._leaving | heavy
        self._offer()
        takers = sorted(set(staying) - heavy, key=lambda n: (self.loads[n], n))
        waiting = set(staying)
        for number, taker in enumerate(takers):
            # What one is short of, or has beyond its share, is shared by all that come after it.
            weight = sum(self.loads[n] for n in waiting | self._leaving)
            prefixes = (PREFIXES_MAX - len(self.owner)) // (len(takers) - number)
            self._fill(taker, weight / len(waiting), prefixes)
            waiting.discard(taker)
        self._place_rest(staying)

    def _offer(self) -> None:
        for prefix, number in list(self.owner.items()):
            if number in self._giving and prefix:
                self._put(prefix)
            elif number in self._giving:
                # The root itself stays where it is.
                self._split(prefix)

    def _put(self, prefix: bytes) -> None:
        if self._weights.get(prefix, 0):
            heapq.heappush(self._offered, (-self._weights[prefix], prefix))

    def _next(self) -> bytes | None:
        """The heaviest piece that somebody still has to give."""
        while self._offered:
            weight, prefix = heapq.heappop(self._offered)
            if self._weights[prefix] != -weight:
                self._put(prefix)
            elif self._giver(prefix) in self._giving:
                return prefix
        return None

    def _giver(self, prefix: bytes) -> int:
        while prefix not in self.owner:
            prefix = self._above(prefix)
        return self.owner[prefix]

    def _fill(self, taker: int, share: float, prefixes: int) -> None:
        """Give the taker the largest pieces that fit; split one where none does."""
        too_large: list[bytes] = []
        whole: list[bytes] = []
        close = _CLOSE * share
        listed_max = len(self.owner) + prefixes
        while self.loads[taker] < share - close and len(self.owner) < listed_max:
            piece = self._next()
            if piece is not None and self._fits(piece, taker, share, close):
                self._give(piece, taker)
            elif piece is not None:
                too_large.append(piece)
            elif too_large:
                # The smallest of them: nothing is split more than it must be.
                piece = too_large.pop()
                self._split(piece)
                whole.append(piece)
            else:
                self._settle_for_one(whole, taker, share)
                break
        for piece in (*too_large, *whole):
            self._put(piece)

    def _fits(self, piece: bytes, taker: int, share: float, close: float) -> bool:
        """Whether the taker does not get too much, nor the giver keep too little."""
        weight, giver = self._weights[piece], self._giver(piece)
        keeps_enough = giver in self._leaving or self.loads[giver] - weight >= share - close
        return keeps_enough and self.loads[taker] + weight <= share + close

    def _give(self, piece: bytes, taker: int) -> None:
        weight, giver = self._weights.get(piece, 0), self._giver(piece)
        if piece not in self.owner:
            self._lighten(piece, weight)
        self.loads[giver] -= weight
        self.loads[taker] += weight
        self.owner[piece] = taker

    def _split(self, piece: bytes) -> None:
        """Offer what is below it too."""
        for child in self._children.pop(piece, ()):
            if child not in self.owner:
                self._put(child)

    def _settle_for_one(self, whole: list[bytes], taker: int, share: float) -> None:
        """Nothing fits, and nothing can be split: one piece too large, where that evens out."""
        short = share - self.loads[taker]

        def is_better(piece: bytes) -> bool:
            weight, giver = self._weights[piece], self.loads[self._giver(piece)]
            if not self.loads[taker]:
                return weight < giver
            return weight < 2 * short and giver - weight >= share - short

        better = [piece for piece in whole if self._weights[piece] and is_better(piece)]
        if better:
            self._give(min(better, key=lambda piece: (self._weights[piece], piece)), taker)

    def _place_rest(self, staying: list[int]) -> None:
        """What those that leave still have goes to whoever has least."""
        lightest = [(self.loads[number], number) for number in staying]
        heapq.heapify(lightest)
        rest = [prefix for prefix, number in self.owner.items() if number in self._leaving]
        for prefix in sorted(rest, key=lambda prefix: (-self._weights.get(prefix, 0), prefix)):
            number = lightest[0][1]
            self._give(prefix, number)
            heapq.heapreplace(lightest, (self.loads[number], number))

    def _lighten(self, prefix: bytes, weight: int) -> None:
        """What is listed at `prefix` is none of the pieces' above any more."""
        while weight and prefix:
            prefix = self._above(prefix)
            if prefix in self._weights:
                self._weights[prefix] = max(self._weights[prefix] - weight, 0)
            if prefix in self.owner:
                break

    def _above(self, prefix: bytes) -> bytes:
        found = self._parents.get(prefix)
        return prefix.rpartition(b"/")[0] if found is None else found


def _parents(counts: Mapping[bytes, int]) -> dict[bytes, bytes]:
    """Prefix -> the one above. The very objects: their hashes are known, also of long paths."""
    same = {prefix: prefix for prefix in counts}
    return {prefix: same.get(above := prefix.rpartition(b"/")[0], above) for prefix in counts}


def _children(parents: Mapping[bytes, bytes]) -> dict[bytes, list[bytes]]:
    """Prefix -> its direct children that were counted."""
    children: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for prefix, above in parents.items():
        if prefix:
            children[above].append(prefix)
    return dict(children)
