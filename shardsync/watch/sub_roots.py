"""The file systems that a Shard's directories lie on, by number: inodes repeat across them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from shardsync.clock import Clock
from shardsync.watch.rule import COARSE_US, Rule

_COUNTING_LINKS = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs"})
"""File systems whose directories count their subdirectories; btrfs, overlay and FUSE do not."""


class SubRoots:
    """Device -> number, which the Journal keeps: a device's own is another after each boot.

    `tops`: watch -> number, of the directories that begin a sub-root or a prefix.
    `remember(path, identity)`: the Journal's number; `identify(device)`: what tells it apart.
    """

    def __init__(
        self,
        *,
        remember: Callable[[bytes, str], int],
        identify: Callable[[int], str],
        clock: Clock,
    ) -> None:
        self.tops: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._counts_links: dict[int, bool] = {}
        self._remember = remember
        self._identify = identify
        self._clock = clock

    def number(self, device: int) -> int:
        """Of a device that a scan came to; 0 for others."""
        return self._numbers.get(device, 0)

    def numbers(self) -> tuple[int, ...]:
        """Of all devices that a scan came to."""
        return (*self._numbers.values(),)

    def forget(self) -> None:
        """Another Journal is written from now on, with numbers of its own."""
        self._numbers.clear()

    def fit(self, rule: Rule, device: int) -> Rule:
        """The rule for a directory on this device, where the one above it may lie on another."""
        number = self._numbers.get(device)
        if number is None:
            identity = self._identify(device)
            self._counts_links[device] = identity.partition(" ")[0] in _COUNTING_LINKS
            number = self._remember(os.fsencode(identity), identity)
            self._numbers[device] = number
        return replace(
            rule, sub_root=number, device=device, counts_links=self._counts_links[device]
        )

    def rule_of_newcomers(self, *, device: int, everything: bool = False) -> Rule:
        """For a subtree that appears while following: made just now, or moved in just now."""
        return Rule(
            everything=everything,
            since_us=self._clock.wall_us() - COARSE_US,
            unknown=True,
            sub_root=self.number(device),
            device=device,
        )
