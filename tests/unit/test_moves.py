"""Which directories were renamed, from hints: pure, with a hand-written look."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shardsync.config.settings import Target, TargetKind
from shardsync.ship.command import basis_options, below_target, can_be_destination
from shardsync.ship.fold import Pending, Want
from shardsync.ship.look import Look, LookKind
from shardsync.ship.moves import (
    Move,
    find_moves,
    followed,
    has_halves,
    in_order,
    is_moved_on,
    is_taken_again,
)

FOLDER = Look(kind=LookKind.DIRECTORY)
MISSING = Look(kind=LookKind.MISSING)


def _pending(*items: tuple[bytes, bytes | None]) -> dict[bytes, Pending]:
    return {
        path: Pending(path=path, want=Want.TREE, since=1, moved_from=origin)
        for path, origin in items
    }


def _only(*there: bytes) -> Callable[[bytes], Look]:
    return lambda path: FOLDER if path in there else MISSING


def _found(pending: dict[bytes, Pending], there: Iterable[bytes]) -> dict[bytes, Move]:
    return find_moves(pending, look=_only(*there))


def test_a_chain_leads_back_to_every_name_that_is_gone() -> None:
    """The Node may know any of them, the latest first."""
    pending = _pending((b"a", None), (b"b", b"a"), (b"c", b"b"))
    assert _found(pending, [b"c"]) == {
        b"c": Move(path=b"c", origins=(b"b", b"a"), is_gone=True, is_told=True)
    }


def test_hints_that_go_round_come_to_an_end() -> None:
    """`mv a b; mv b a`, and a hint that names the path itself."""
    assert _found(_pending((b"a", b"b"), (b"b", b"a")), [b"a"])[b"a"].origins == (b"b",)
    assert _found(_pending((b"a", b"a")), [b"a"]) == {}


def test_an_old_name_that_is_there_again_is_no_more_than_a_copy() -> None:
    """Its files are another directory's now: they may not be shared."""
    move = _found(_pending((b"a", None), (b"c", b"a")), [b"a", b"c"])[b"c"]
    assert (move.origins, move.is_gone) == ((b"a",), False)


def test_halves_are_offered_to_each_other_by_name_or_where_they_are_few() -> None:
    """A guess, and told as one."""
    both = _found(_pending((b"p/y", None), (b"p/x", None), (b"q/x", None)), [b"q/x"])
    origins = (b"p/x", b"p/y")
    assert both == {b"q/x": Move(path=b"q/x", origins=origins, is_gone=True, is_told=False)}
    few = _found(_pending((b"p/y", None), (b"q/x", None)), [b"q/x"])
    assert few[b"q/x"].origins == (b"p/y",)
    many = _pending(*((b"p/%d" % number, None) for number in range(5)), (b"q/x", None))
    assert _found(many, [b"q/x"]) == {}
    assert _found(many | _pending((b"r/x", None)), [b"q/x"])[b"q/x"].origins == (b"r/x",)


def test_a_chain_that_began_in_another_shard_is_led_back_by_a_guess() -> None:
    """Its first half came without a hint; what another rename explains is none."""
    pending = _pending((b"p/x", None), (b"q/x", None), (b"q/live", b"q/x"))
    move = _found(pending, [b"q/live"])[b"q/live"]
    assert (move.origins, move.guesses) == ((b"q/x",), (b"p/x",))
    assert move.bases == (b"q/x", b"p/x")
    pending |= _pending((b"r/x", None))
    moves = _found(pending, [b"q/live", b"r/x"])
    assert (moves[b"q/live"].guesses, moves[b"r/x"].origins) == ((), (b"p/x",))


def test_what_is_pending_below_an_old_name_is_pending_below_the_new_one() -> None:
    """With what it wants; a name that only begins alike is not below it."""
    pending = _pending((b"a", None), (b"c", b"a"))
    for path in (b"a/f", b"ab/f"):
        pending[path] = Pending(path=path, want=Want.CONTENT, since=7)
    found = followed(pending.values(), _found(pending, [b"c"]))
    assert found.keys() == {b"a", b"c", b"a/f", b"ab/f", b"c/f"}
    assert (found[b"c/f"].want, found[b"c/f"].since) == (Want.CONTENT, 7)


def test_one_half_alone_waits_for_the_other() -> None:
    """Not where both are there, told or not, and not for what is no tree."""
    assert has_halves(_pending((b"a", None)).values(), look=_only(b"a"))
    assert not has_halves(_pending((b"a", None), (b"b", b"a")).values(), look=_only())
    assert not has_halves(_pending((b"a", None), (b"b", None)).values(), look=_only(b"b"))
    assert not has_halves([Pending(path=b"f", want=Want.CONTENT, since=1)], look=_only())


def test_two_halves_that_both_went_wait_for_what_came() -> None:
    """Renamed on by two Shards, and the third tells a moment later; many are no rename."""
    assert has_halves(_pending((b"a", None), (b"b", None)).values(), look=_only())
    many = _pending(*((b"%d" % number, None) for number in range(5)))
    assert not has_halves(many.values(), look=_only())


def test_a_directory_that_was_renamed_on_waits_for_its_next_name() -> None:
    """Not where that is told, nor where it was removed, which a Change of its own tells."""
    once = _pending((b"a", None), (b"b", b"a"))
    assert is_moved_on(once, look=_only())
    assert not is_moved_on(once, look=_only(b"b"))
    twice = _pending((b"a", None), (b"b", b"a"), (b"c", b"b"))
    assert not is_moved_on(twice, look=_only(b"c"))
    assert is_moved_on(twice, look=_only())
    once[b"b"].want |= Want.CONTENT
    assert not is_moved_on(once, look=_only())
    assert not is_moved_on(_pending((b"a", None)), look=_only())


def test_a_basis_is_told_relative_to_the_new_place() -> None:
    """From the destination, not from where we are; to a daemon from its module's root."""
    local = Target(kind=TargetKind.LOCAL, path="/n")
    daemon = Target(kind=TargetKind.DAEMON, host="h", path="site/sub")
    assert basis_options(b"b/c/new", (b"b/old", b"x"), link=True, target=local) == (
        "--link-dest=../../old",
        "--link-dest=../../../x",
    )
    assert basis_options(b"new", (b"old",), link=False, target=local) == ("--copy-dest=../old",)
    assert basis_options(b"new", (b"p/old",), link=True, target=daemon) == (
        "--link-dest=/sub/p/old",
    )


def test_a_name_with_wildcards_is_no_destination_of_a_remote_node() -> None:
    """A remote shell and a daemon would expand them."""
    local = Target(kind=TargetKind.LOCAL, path="/n")
    daemon = Target(kind=TargetKind.DAEMON, host="h", path="site")
    for name in (b"a*", b"a?", b"[a]", b"a\\", b"a\nb"):
        assert can_be_destination(name, local)
        assert not can_be_destination(name, daemon)
    assert can_be_destination(b"it's a {name}", daemon)
    assert below_target(daemon, b"a/b").path == "site/a/b"
    assert below_target(Target(kind=TargetKind.LOCAL, path="/"), b"a").path == "/a"
    assert below_target(Target(kind=TargetKind.SSH, host="h", path=""), b"a").path == "a"


def test_a_place_that_is_taken_again_waits_for_what_came() -> None:
    """Not where that is told, be it a rename or a directory made anew."""
    pending = _pending((b"live", None), (b"prev", b"live"))
    assert is_taken_again(pending, look=_only(b"live", b"prev"))
    assert not is_taken_again(pending, look=_only(b"prev"))
    pending[b"live"].want |= Want.CONTENT
    assert not is_taken_again(pending, look=_only(b"live", b"prev"))
    told = _pending((b"live", b"next"), (b"prev", b"live"), (b"next", None))
    assert not is_taken_again(told, look=_only(b"live", b"prev"))


def _order(*moves: tuple[bytes, bytes]) -> list[bytes]:
    told = [
        Move(path=path, origins=(origin,), is_gone=False, is_told=True) for path, origin in moves
    ]
    return [move.path for move in in_order(told)]


def test_what_is_made_of_a_place_comes_before_what_changes_it() -> None:
    """A release swapped in, old ones rotated, a place made anew inside; else the deepest first."""
    assert _order((b"live", b"next"), (b"prev", b"live")) == [b"prev", b"live"]
    assert _order((b"r1", b"r0"), (b"r2", b"r1"), (b"r3", b"r2")) == [b"r3", b"r2", b"r1"]
    assert _order((b"a/x", b"n"), (b"b", b"a/x/y")) == [b"b", b"a/x"]
    assert _order((b"a/x", b"n"), (b"b", b"a")) == [b"b", b"a/x"]
    assert _order((b"b", b"a"), (b"b/x", b"a/y"), (b"a", b"c")) == [b"b/x", b"b", b"a"]


def test_two_that_took_each_others_place_come_one_after_the_other() -> None:
    """Nobody can be first without loss; none is left out, however many are in the ring."""
    assert sorted(_order((b"a", b"b"), (b"b", b"a"))) == [b"a", b"b"]
    ring = [(b"%d" % number, b"%d" % ((number + 1) % 3000)) for number in range(3000)]
    assert len(_order(*ring)) == 3000
