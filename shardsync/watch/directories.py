"""Watch descriptor -> directory, in 22 bytes and a name each, so that a million fit anywhere.

Watch descriptors are integers that only grow, so plain arrays in pages are
indexed by them; a page whose directories are all gone is given back. A rename
of a subtree changes one entry, for children know their parent, not their path.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Mapping

TOP = -1
"""Parent of a directory whose name is its whole path (a Shard's prefix)."""

_FREE = 0  # inotify hands out watch descriptors from 1 on
_DETACHED = -2
_BITS = 12
_SIZE = 1 << _BITS
_LAST = _SIZE - 1
_DEEPEST = 20_000  # a loop of parents, which no file system has, ends here
_GARBAGE_BYTES = 1 << 16


class _Page:
    """4,096 directories. `names`: each name ends with a zero byte, as no name holds one."""

    __slots__ = ("inodes", "live", "names", "offsets", "parents", "seen")

    def __init__(self) -> None:
        self.parents = array("i", bytes(4 * _SIZE))
        self.offsets = array("I", bytes(4 * _SIZE))
        self.inodes = array("Q", bytes(8 * _SIZE))
        self.seen = bytearray(_SIZE)
        self.names = bytearray()
        self.live = 0

    def name(self, index: int) -> bytes:
        start = self.offsets[index]
        return bytes(self.names[start : self.names.index(0, start)])

    def put_name(self, index: int, name: bytes) -> None:
        end = len(self.names)
        if end > _GARBAGE_BYTES and end > _GARBAGE_BYTES + 64 * self.live:
            self._compact(index)
            end = len(self.names)
        self.offsets[index] = end
        self.names += name + b"\0"

    def _compact(self, without: int) -> None:
        old = self.names
        self.names = bytearray()
        for index in range(_SIZE):
            if self.parents[index] != _FREE and index != without:
                start = self.offsets[index]
                self.offsets[index] = len(self.names)
                self.names += old[start : old.index(0, start) + 1]


class DirectoryTable:
    """What each watch of a Watcher stands for. Pure: knows neither kernel nor disk."""

    def __init__(self) -> None:
        self._pages: dict[int, _Page] = {}
        self._round = 0
        self.live = 0
        self.detached = 0

    def __len__(self) -> int:
        return self.live

    def bind(self, wd: int, parent: int, name: bytes, inode: int) -> None:
        """Say what `wd` stands for, whatever it stood for before, and mark it as seen.

        `parent`: watch descriptor, or TOP with the whole path as `name`.
        """
        page = self._pages.get(wd >> _BITS)
        if page is None:
            page = self._pages[wd >> _BITS] = _Page()
        index = wd & _LAST
        old = page.parents[index]
        if old == _FREE:
            page.live += 1
            self.live += 1
            page.put_name(index, name)
        else:
            if old == _DETACHED:
                self.detached -= 1
            if page.name(index) != name:
                page.put_name(index, name)
        page.parents[index] = parent
        page.inodes[index] = inode
        page.seen[index] = self._round

    def binding(self, wd: int) -> tuple[int, bytes] | None:
        """(parent, name) of a bound, not detached directory, else None."""
        page = self._pages.get(wd >> _BITS)
        if page is None:
            return None
        parent = page.parents[wd & _LAST]
        if parent in {_FREE, _DETACHED}:
            return None
        return parent, page.name(wd & _LAST)

    def knows(self, wd: int) -> bool:
        """Whether `wd` is bound, detached ones included."""
        page = self._pages.get(wd >> _BITS)
        return page is not None and page.parents[wd & _LAST] != _FREE

    def inode(self, wd: int) -> int:
        """Inode of a known directory; 0 for an unknown one."""
        page = self._pages.get(wd >> _BITS)
        return page.inodes[wd & _LAST] if page is not None else 0

    def path(self, wd: int) -> bytes | None:
        """Path below the root; None where unknown, or moved out of the Tree."""
        parts: list[bytes] = []
        pages = self._pages
        while len(parts) < _DEEPEST:
            page = pages.get(wd >> _BITS)
            if page is None:
                return None
            index = wd & _LAST
            parent = page.parents[index]
            if parent in {_FREE, _DETACHED}:
                return None
            start = page.offsets[index]
            parts.append(bytes(page.names[start : page.names.index(0, start)]))
            if parent == TOP:
                if not parts[-1]:
                    parts.pop()
                parts.reverse()
                return b"/".join(parts)
            wd = parent
        return None

    def detach(self, wd: int) -> None:
        """The directory left the Tree: it and all below it have no path from now on."""
        page = self._pages.get(wd >> _BITS)
        if page is None or page.parents[wd & _LAST] in {_FREE, _DETACHED}:
            return
        page.parents[wd & _LAST] = _DETACHED
        self.detached += 1

    def forget(self, wd: int) -> None:
        """The watch has ended. Idempotent."""
        number = wd >> _BITS
        page = self._pages.get(number)
        if page is None or page.parents[wd & _LAST] == _FREE:
            return
        if page.parents[wd & _LAST] == _DETACHED:
            self.detached -= 1
        page.parents[wd & _LAST] = _FREE
        page.inodes[wd & _LAST] = 0
        page.live -= 1
        self.live -= 1
        if not page.live:
            del self._pages[number]

    def bound_to(self, parent: int, name: bytes) -> list[int]:
        """The watches that stand for `name` in `parent`: several where one covers another."""
        return [
            wd
            for wd, page, i in self._known()
            if page.parents[i] == parent and page.name(i) == name
        ]

    def last_leaves(self, count: int, *, but: set[int]) -> list[int]:
        """At most `count` of the newest watches that no known directory lies below, nor is `but`.

        Never one of a directory whose name is its whole path.
        """
        some = 64 * count  # of a deep chain only the lowest is a leaf
        newest = {wd for wd, page, i in self._known() if page.parents[i] > _FREE} - but
        newest = set(heapq.nlargest(some, newest))
        for _, page, i in self._known():
            newest.discard(page.parents[i])
        return heapq.nlargest(count, newest)

    def begin_round(self) -> None:
        """From now on `is_seen` asks whether a directory was bound since this call."""
        self._round = (self._round + 1) & 0xFF

    def is_seen(self, wd: int) -> bool:
        """Whether `wd` was bound in this round."""
        page = self._pages.get(wd >> _BITS)
        if page is None or page.parents[wd & _LAST] == _FREE:
            return False
        return page.seen[wd & _LAST] == self._round

    def unseen(self) -> list[int]:
        """All watches not bound in this round: what they stood for is gone."""
        found: list[int] = []
        for number, page in self._pages.items():
            if page.live == _SIZE == page.seen.count(self._round):
                continue  # the rule at a million directories: 250 pages, each full and seen
            found += [
                (number << _BITS) + i
                for i in range(_SIZE)
                if page.parents[i] != _FREE and page.seen[i] != self._round
            ]
        return found

    def outside(self) -> Iterator[list[int]]:
        """Watches without a path, page by page: what was detached and everything below it.

        The table may change between two steps; each page is judged as it is then.
        """
        for number in sorted(self._pages):
            page = self._pages.get(number)
            verdicts: dict[int, bool] = {}
            yield [
                wd
                for i in (range(_SIZE) if page is not None else ())
                if page is not None and page.parents[i] != _FREE
                for wd in [(number << _BITS) + i]
                if self._is_outside(wd, verdicts)
            ]

    def _is_outside(self, wd: int, verdicts: dict[int, bool]) -> bool:
        """`verdicts`: of directories above, as found for others of the same page."""
        parent = self._parent(wd)
        if parent not in verdicts:
            verdicts[parent] = parent != TOP and self.path(parent) is None
        return verdicts[parent]

    def _parent(self, wd: int) -> int:
        """As bound; _DETACHED for what was detached, itself a watch that nothing has."""
        page = self._pages.get(wd >> _BITS)
        return page.parents[wd & _LAST] if page is not None else _DETACHED

    def inode_pages(self) -> Iterator[array[int]]:
        """The inodes of all directories, page by page; the table may change between two steps."""
        for number in sorted(self._pages):
            page = self._pages.get(number)
            if page is not None:
                yield page.inodes

    def inodes_by_top(self, tops: Mapping[int, int]) -> Iterator[list[tuple[int, int]]]:
        """(what `tops` says of the nearest watch at or above it, inode) of all, page by page.

        Without those that lie below none of them. The table may change between two steps.
        """
        for number in sorted(self._pages):
            page = self._pages.get(number)
            verdicts: dict[int, int | None] = {}
            yield [
                (top, page.inodes[i])
                for i in (range(_SIZE) if page is not None else ())
                if page is not None and page.parents[i] != _FREE
                for top in [self._top((number << _BITS) + i, tops, verdicts)]
                if top is not None
            ]

    def _top(
        self, wd: int, tops: Mapping[int, int], verdicts: dict[int, int | None]
    ) -> int | None:
        passed: list[int] = []
        top: int | None = None
        while wd > _FREE and len(passed) < _DEEPEST:
            if wd in tops or wd in verdicts:
                top = tops[wd] if wd in tops else verdicts[wd]
                break
            passed.append(wd)
            wd = self._parent(wd)
        for each in passed:
            verdicts[each] = top
        return top

    def _known(self) -> Iterator[tuple[int, _Page, int]]:
        for number, page in self._pages.items():
            for index in range(_SIZE):
                if page.parents[index] != _FREE:
                    yield (number << _BITS) + index, page, index
