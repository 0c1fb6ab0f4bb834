"""Single values of the settings, each parsed or refused with what to write."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

from shardsync import units
from shardsync.config.problems import Refusal
from shardsync.config.settings import SAFE_ORDER, DeleteLimit

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def name(text: str) -> str:
    """A name fit for file names, labels and `SHARD:N`."""
    if not _NAME.fullmatch(text) or len(text) > 64:
        raise Refusal("does not fit as a name", "use letters, digits, . _ and -, at most 64")
    if text.startswith(("-", ".")):
        raise Refusal(f"begins with {text[0]}", "begin it with a letter, a digit or _")
    return text


def duration(text: str, *, low: float, high: float) -> float:
    """Seconds within bounds."""
    try:
        seconds = units.duration_seconds(text)
    except ValueError as error:
        raise Refusal("is not a duration", 'write it like "10s", "5m", "2h", "7d"') from error
    if not low <= seconds <= high:
        raise Refusal(
            "is out of range",
            f"write at least {units.human_duration(low)}, at most {units.human_duration(high)}",
        )
    return seconds


def size(text: str, *, low: int) -> int:
    """Bytes, `low` or more."""
    try:
        count = units.size_bytes(text)
    except ValueError as error:
        raise Refusal("is not a size", 'write it like "512KiB", "64MiB", "2GiB"') from error
    if not low <= count <= 2**60:
        raise Refusal("is out of range", f"write at least {units.human_bytes(low)}")
    return count


def bounded(number: int, low: int, high: int) -> int:
    """A number within bounds."""
    if not low <= number <= high:
        raise Refusal("is out of range", f"write a number from {low} to {high}")
    return number


def order(text: str) -> str:
    """How a Node's Changes are ordered within a Batch."""
    if text not in {"", SAFE_ORDER}:
        raise Refusal("is no order", f'write "{SAFE_ORDER}", or leave it out')
    return text


def bandwidth(text: str) -> str:
    """A rate as rsync's --bwlimit takes it, always with its unit; "" is no limit."""
    if not text:
        return ""
    rate = text.removesuffix("/s").replace(" ", "")
    remedy = 'write bytes a second with a unit: "512KiB", "5MiB"'
    if rate.isdigit():
        raise Refusal("has no unit: rsync would read KiB, people read bytes", remedy)
    try:
        count = units.size_bytes(rate)
    except ValueError as error:
        raise Refusal("is not a rate", remedy) from error
    if count < 1024:
        raise Refusal("is too little to ever finish", remedy)
    return rate


def full_path(text: str) -> Path:
    """An absolute path without `..`, doubled slashes or a slash at its end."""
    if not text:
        raise Refusal("is empty", 'write a full path: "/..."')
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise Refusal("holds a control character", "write the path without it")
    if not os.path.isabs(text):
        below = text.removeprefix("~").removeprefix("./").lstrip("/")
        raise Refusal("is not a full path", f'write it from the root: "/full/path/{below}"')
    if ".." in text.split("/"):
        raise Refusal('climbs with ".."', f'write "{os.path.normpath(text)}"')
    return Path("/" + os.path.normpath(text).lstrip("/"))


def folder_below(text: str) -> str:
    """A path below the Tree's root, without slashes at its ends; "" stays ""."""
    parts = [part for part in text.split("/") if part]
    if any(part in {".", ".."} for part in parts) or "\0" in text:
        raise Refusal('holds "." or ".."', 'write the path from the Tree\'s root: "news/sport"')
    return "/".join(parts)


def delete_limit(value: int | str) -> DeleteLimit:
    """`max_delete`: a number of entries, or "N%" of the Tree."""
    remedy = 'write a number of entries (2000), or a share from "1%" to "100%"'
    if isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise Refusal("is out of range", remedy)
    if isinstance(value, int):
        return DeleteLimit(entries=value, share=None)
    found = _SHARE.fullmatch(value.strip())
    if found is None:
        raise Refusal("is neither a number nor a share", remedy)
    share = float(found[1]) / 100
    if not 0 < share <= 1:
        raise Refusal("is out of range", remedy)
    return DeleteLimit(share=share)


def listen_address(text: str) -> tuple[str, int] | None:
    """(host, port); None for "", which opens no port."""
    if not text:
        return None
    remedy = 'write "127.0.0.1:9750", "[::1]:9750", or "" for none'
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise Refusal("names no port", remedy)
    if not host:
        raise Refusal("names no address", f'for all addresses write "0.0.0.0:{port}"')
    if not 1 <= int(port[:6]) <= 65535:
        raise Refusal("the port is out of range", "write a port from 1 to 65535")
    return _listen_host(host, remedy), int(port)


def _listen_host(host: str, remedy: str) -> str:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if bare != host or not _HOST_NAME.fullmatch(host):
            raise Refusal("is no address", remedy) from None
        return host
