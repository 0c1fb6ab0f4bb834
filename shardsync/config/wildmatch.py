"""One rsync filter pattern: what it matches, as a regular expression over bytes.

The semantics are rsync's own (rsync(1), "PATTERN MATCHING RULES", and for the
corners what rsync 3.5.0 does; tests/contract compares the two), a byte at a
time: `?` and `[...]` match one byte, never `/`.
"""

from __future__ import annotations

import enum
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

_WILD_BYTES = b"*?["
_SLASH = 0x2F
_BACKSLASH = 0x5C
_NO_BYTES: frozenset[int] = frozenset()
_ALL_BYTES = frozenset(range(256))

_CLASSES = {
    name: frozenset(chars.encode())
    for name, chars in {
        "alnum": string.ascii_letters + string.digits,
        "alpha": string.ascii_letters,
        "blank": " \t",
        "cntrl": "".join(map(chr, range(0x20))) + "\x7f",
        "digit": string.digits,
        "graph": "".join(map(chr, range(0x21, 0x7F))),
        "lower": string.ascii_lowercase,
        "print": "".join(map(chr, range(0x20, 0x7F))),
        "punct": string.punctuation,
        "space": " \t\n\v\f\r",
        "upper": string.ascii_uppercase,
        "xdigit": string.hexdigits,
    }.items()
}
"""Under LC_ALL=C.UTF-8, which every rsync of ours runs with, no byte above 0x7f is in a class."""


class Malformed(ValueError):
    """The pattern can never match; the message says why."""


class TokenKind(enum.Enum):
    """What one part of a pattern stands for."""

    BYTE = enum.auto()
    """One given byte."""
    ONE = enum.auto()
    """`?` or `[...]`: one byte out of a set."""
    STAR = enum.auto()
    """`*`: any bytes but `/`."""
    STARS = enum.auto()
    """`**` or more: any bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One part of a pattern: how it is spelled, and for BYTE and ONE which bytes it takes."""

    kind: TokenKind
    raw: bytes
    takes: frozenset[int] = _NO_BYTES

    @property
    def is_slash(self) -> bool:
        """Whether it is the `/` between two names."""
        return self.kind is TokenKind.BYTE and _SLASH in self.takes


_ANY_BUT_SLASH = _ALL_BYTES - {_SLASH}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One pattern, taken apart. `tokens` are without the anchor's and the trailing slash."""

    tokens: tuple[Token, ...]
    anchored: bool
    directories_only: bool

    @classmethod
    def parse(cls, text: bytes) -> Pattern:
        """The Pattern that `text` spells. Raises Malformed if it could never match anything."""
        directories_only = len(text) > 1 and text.endswith(b"/")
        body = text[:-1] if directories_only else text
        anchored = body.startswith(b"/")
        wild = any(byte in _WILD_BYTES for byte in body)
        body = body[1:] if anchored else body
        # Without a wildcard rsync compares literally, backslashes included.
        tokens = tuple(_tokens(body)) if wild else tuple(_byte(byte) for byte in body)
        return cls(tokens=tokens, anchored=anchored, directories_only=directories_only)

    def spelled(self) -> bytes:
        """The pattern as rsync reads it."""
        wild = any(
            token.kind is not TokenKind.BYTE or token.takes & set(_WILD_BYTES)
            for token in self.tokens
        )
        body = b"".join(_spelled(token) if wild else bytes(token.takes) for token in self.tokens)
        return b"/" * self.anchored + body + b"/" * self.directories_only

    @property
    def name_only(self) -> bool:
        """Whether it is compared with the last name of a path alone."""
        return not (self.anchored or self._deep or any(token.is_slash for token in self.tokens))

    @property
    def takes_trailing_slash(self) -> bool:
        """`***` at the end: a directory is compared with a slash behind its name."""
        return self.spelled().removesuffix(b"/").endswith(b"***")

    @property
    def _deep(self) -> bool:
        # As rsync, by the text: an escaped star before a star counts too.
        return b"**" in self.spelled()

    @property
    def starts_with_stars(self) -> bool:
        """`**` at the front: compared with the whole path, a slash before it."""
        return self.spelled().startswith(b"**")

    def expression(self) -> bytes:
        """A regular expression (DOTALL, fullmatch): over the last name if `name_only`,
        else over `/path`.
        """
        body = b"".join(_expression(token) for token in self.tokens)
        if self.name_only or self.starts_with_stars:
            return body
        return b"/" + body if self.anchored else b".*/" + body

    def below(self) -> Pattern:
        """The pattern of everything below what this one matches."""
        return Pattern(
            tokens=(*self.tokens, _byte(_SLASH), _stars(2)),
            anchored=self.anchored,
            directories_only=False,
        )

    def parents(self) -> Iterator[Pattern]:
        """Patterns of the directories that lead to what this one may match."""
        if not self.anchored:
            yield Pattern(
                tokens=(Token(kind=TokenKind.STAR, raw=b"*"),),
                anchored=False,
                directories_only=True,
            )
            return
        for index, token in enumerate(self.tokens):
            if token.kind is TokenKind.STARS:
                yield Pattern(
                    tokens=(*self.tokens[:index], _stars(2)), anchored=True, directories_only=True
                )
            elif token.is_slash:
                yield Pattern(tokens=self.tokens[:index], anchored=True, directories_only=True)

    def rebased(self, folder: bytes) -> Iterator[Pattern]:
        """Patterns that match `x` below `folder` just where this one matches `folder/x`."""
        if self.name_only:
            yield self
            return
        prefix = folder + b"/"
        if self.starts_with_stars:
            starts = [b"/" + prefix]
        elif self.anchored:
            starts = [prefix]
        else:
            yield self
            names = prefix.split(b"/")
            starts = [b"/".join(names[index:]) for index in range(len(names) - 1)]
        found = sorted({rest for start in starts for rest in self._after(start)})
        for index in found:
            yield Pattern(
                tokens=self.tokens[index:],
                anchored=True,
                directories_only=self.directories_only,
            )

    def _after(self, text: bytes) -> set[int]:
        """Where in `tokens` one may stand after `text` was matched; the end itself left out."""
        places = {0}
        for byte in text:
            places = {
                after
                for place in self._skipping(places)
                if place < len(self.tokens)
                for after in _step(self.tokens[place], place, byte)
            }
        return {place for place in places if place < len(self.tokens)}

    def _skipping(self, places: set[int]) -> set[int]:
        """`places`, and those behind stars that match nothing."""
        found = set(places)
        for place in sorted(places):
            at = place
            while at < len(self.tokens) and self.tokens[at].kind in {
                TokenKind.STAR, TokenKind.STARS,
            }:  # fmt: skip
                at += 1
                found.add(at)
        return found


def _step(token: Token, place: int, byte: int) -> tuple[int, ...]:
    if token.kind is TokenKind.STARS or (token.kind is TokenKind.STAR and byte != _SLASH):
        return (place,)
    return (place + 1,) if byte in token.takes else ()


def _tokens(body: bytes) -> Iterator[Token]:
    at = 0
    while at < len(body):
        byte = body[at]
        if byte == ord("*"):
            run = len(body[at:]) - len(body[at:].lstrip(b"*"))
            yield _stars(run)
            at += run
        elif byte == ord("?"):
            yield Token(kind=TokenKind.ONE, raw=b"?", takes=_ANY_BUT_SLASH)
            at += 1
        elif byte == ord("["):
            takes, end = _set(body, at)
            yield Token(kind=TokenKind.ONE, raw=body[at:end], takes=takes)
            at = end
        else:
            at += byte == _BACKSLASH
            if at == len(body):
                raise Malformed("it ends with a backslash that escapes nothing")
            yield _byte(body[at])
            at += 1


def _stars(run: int) -> Token:
    kind = TokenKind.STAR if run == 1 else TokenKind.STARS
    return Token(kind=kind, raw=b"*" * run)


def _byte(byte: int) -> Token:
    return Token(kind=TokenKind.BYTE, raw=bytes([byte]), takes=frozenset({byte}))


def _set(body: bytes, start: int) -> tuple[frozenset[int], int]:
    """The bytes that the `[...]` at `start` takes, and where it ends."""
    at = start + 1
    negated = body[at : at + 1] in {b"!", b"^"}
    at += negated
    takes: set[int] = set()
    previous = 0
    first = True
    while first or body[at : at + 1] != b"]":
        first = False
        if at >= len(body):
            raise Malformed("its [ has no ]")
        found, previous, at = _set_item(body, at, previous)
        takes |= found
    if _SLASH in body[start:at]:
        # rsync counts it as a slash between two names, whatever stands around it.
        raise Malformed("a / stands between [ and ], which never match one")
    chosen = _ALL_BYTES - takes if negated else frozenset(takes)
    return chosen & _ANY_BUT_SLASH, at + 1


def _set_item(body: bytes, at: int, previous: int) -> tuple[frozenset[int], int, int]:
    """(bytes taken, what a following `-` starts from, where the next item begins)."""
    if body[at : at + 2] == b"[:":
        end = body.find(b"]", at + 2)
        if end < 0:
            raise Malformed("its [ has no ]")
        if end >= at + 3 and body[end - 1 : end] == b":":
            return _named(body[at + 2 : end - 1]), 0, end + 1
    if body[at] == ord("-") and previous and body[at + 1 : at + 2] not in {b"", b"]"}:
        last, end = _set_byte(body, at + 1)
        return frozenset(range(previous, last + 1)), 0, end
    byte, end = _set_byte(body, at)
    return frozenset({byte}), byte, end


def _set_byte(body: bytes, at: int) -> tuple[int, int]:
    at += body[at] == _BACKSLASH
    if at >= len(body):
        raise Malformed("its [ has no ]")
    return body[at], at + 1


def _named(name: bytes) -> frozenset[int]:
    found = _CLASSES.get(name.decode("latin-1"))
    if found is None:
        raise Malformed(f"there is no class [:{name.decode('latin-1')}:]")
    return found


def _spelled(token: Token) -> bytes:
    if token.kind is TokenKind.BYTE and token.raw[0] in b"*?[\\":
        return b"\\" + token.raw
    return token.raw


def _expression(token: Token) -> bytes:
    if token.kind is TokenKind.STARS:
        return b".*"
    if token.kind is TokenKind.STAR:
        return b"[^/]*"
    if token.kind is TokenKind.BYTE:
        return re.escape(token.raw)
    if token.takes == _ANY_BUT_SLASH:
        return b"[^/]"
    if not token.takes:
        return b"(?!)"
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(token.takes)) + b"]"
