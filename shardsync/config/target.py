"""Target strings: what a Node's `target` may look like, and why another is refused."""

from __future__ import annotations

import ipaddress
import posixpath
import re

from shardsync.config.problems import Refusal
from shardsync.config.settings import Target, TargetKind

FORMS = '"/path", "[user@]host:/path" or "rsync://[user@]host[:port]/module[/path]"'
_NAME = r"[A-Za-z0-9_.][A-Za-z0-9_.-]*"
_HOST = rf"(?P<host>\[[^\[\]/]*\]|{_NAME})"
_USER = r"(?:(?P<user>[A-Za-z0-9_.][A-Za-z0-9_.+-]*)@)?"
_SSH = re.compile(rf"{_USER}{_HOST}:(?P<path>.*)", re.DOTALL)
_DAEMON = re.compile(rf"rsync://{_USER}{_HOST}(?::(?P<port>[^/]*))?(?:/(?P<path>.*))?", re.DOTALL)
_DOUBLE_COLON = re.compile(rf"(?P<user>[^/@:]+@)?{_HOST}::(?P<path>.*)", re.DOTALL)
_PASSWORD = re.compile(
    # scheme://user:password@, unless what follows the colon is a port
    r"(?P<before>[A-Za-z]+://[^/@:\[\]]*:)(?!\d*(?:/|$)).*@"
    # user:password@host:
    r"|(?P<plain>[^/@:\[\]]+:)[^/@][^@]*@(?=[^/@]+:)",
    re.DOTALL,
)


def parse_target(text: str) -> Target:
    """The Target that `text` spells. Raises Refusal with what to write instead."""
    _refuse_dangerous(text)
    if text.startswith("/"):
        return Target(kind=TargetKind.LOCAL, path=_folder(text))
    if "://" in text:
        return _daemon(text)
    double_colon = _DOUBLE_COLON.fullmatch(text)
    if double_colon:
        user, host, path = double_colon["user"] or "", double_colon["host"], double_colon["path"]
        raise Refusal(
            "the form with :: is not taken",
            f'write "rsync://{user}{host}/{path.lstrip("/") or "MODULE"}"',
        )
    if ":" in text.split("/", 1)[0]:
        return _ssh(text)
    raise Refusal(
        "a relative path means another folder for each process that reads it",
        f'write "/full/path/{text}" for a folder here, "{text.split("/", 1)[0]}:/path" for a host',
    )


def hide_password(text: str) -> str:
    """`text` with a password that somebody wrote into a target replaced by ***."""
    found = _PASSWORD.match(text)
    if found is None:
        return text
    return f"{found['before'] or found['plain']}***@{text[found.end() :]}"


def _refuse_dangerous(text: str) -> None:
    if not text:
        raise Refusal("is empty", f"write {FORMS}")
    if text.startswith("-"):
        raise Refusal("rsync would take it for an option", f"write {FORMS}")
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in text):
        raise Refusal("holds a control character", "write the target without it")
    if _PASSWORD.match(text):
        raise Refusal(
            "holds a password, which every user of this machine could read in the process list",
            'write it into a file of mode 0600 and name that in password_file = "/path"',
        )


def _ssh(text: str) -> Target:
    found = _SSH.fullmatch(text)
    if found is None:
        raise Refusal("is no host and path", 'write "[user@]host:/path"')
    path, where = found["path"], text[: len(text) - len(found["path"])]
    if not path.startswith("/"):
        below = path.removeprefix("~").lstrip("/")
        raise Refusal(
            "a path without a leading / lies below the home of whoever logs in",
            f'write the full path: "{where}/full/path/{below}"'.replace('/"', '"'),
        )
    return Target(
        kind=TargetKind.SSH,
        path=_folder(path),
        host=_host(found["host"]),
        user=found["user"] or "",
    )


def _daemon(text: str) -> Target:
    if not text.startswith("rsync://"):
        raise Refusal(f"{text.split('://', 1)[0]}:// is no way of rsync's", f"write {FORMS}")
    found = _DAEMON.fullmatch(text)
    if found is None:
        raise Refusal(
            "is no host, module and path", 'write "rsync://[user@]host[:port]/module[/path]"'
        )
    path = _folder("/" + (found["path"] or "")).lstrip("/")
    if not path:
        raise Refusal("names no module", f'write "{text.rstrip("/")}/MODULE"')
    return Target(
        kind=TargetKind.DAEMON,
        path=path,
        host=_host(found["host"]),
        user=found["user"] or "",
        port=_port(found["port"]),
    )


def _folder(path: str) -> str:
    """`path` without doubled or trailing slashes. Refuses `..` and what a shell would expand."""
    wild = sorted(set(path) & set("*?["))
    if wild:
        raise Refusal(
            f"holds {' '.join(wild)}, which the receiving side may expand to other names",
            "name one folder, without wildcards",
        )
    if ".." in path.split("/"):
        raise Refusal('climbs with ".."', "write the path that it leads to")
    clean = posixpath.normpath(path)
    return "/" + clean.lstrip("/")


def _host(text: str) -> str:
    if not text.startswith("["):
        return text
    try:
        ipaddress.IPv6Address(text[1:-1])
    except ValueError as error:
        raise Refusal(
            f"{text} is no IPv6 address", 'write it like "[2001:db8::1]:/path"'
        ) from error
    return text


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise Refusal(f'"{text}" is no port', "write a number from 1 to 65535")
    return int(text)
