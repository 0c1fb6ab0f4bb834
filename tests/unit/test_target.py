"""Target strings: read as rsync would read them, or refused with what to write."""

from __future__ import annotations

import pytest

from shardsync.config.problems import Refusal
from shardsync.config.settings import Target, TargetKind
from shardsync.config.target import hide_password, parse_target

LOCAL, SSH, DAEMON = TargetKind.LOCAL, TargetKind.SSH, TargetKind.DAEMON


@pytest.mark.parametrize(
    ("text", "target", "printed"),
    [
        ("/var/www", Target(kind=LOCAL, path="/var/www"), "/var/www"),
        ("/var//www/", Target(kind=LOCAL, path="/var/www"), "/var/www"),
        ("//srv", Target(kind=LOCAL, path="/srv"), "/srv"),
        ("/a b:c", Target(kind=LOCAL, path="/a b:c"), "/a b:c"),
        ("h:/x", Target(kind=SSH, path="/x", host="h"), "h:/x"),
        ("h:/", Target(kind=SSH, path="/", host="h"), "h:/"),
        ("u@h.example:/x/", Target(kind=SSH, path="/x", host="h.example", user="u"),
         "u@h.example:/x"),
        ("[::1]:/x", Target(kind=SSH, path="/x", host="[::1]"), "[::1]:/x"),
        ("u@[fe80::1%eth0]:/x", Target(kind=SSH, path="/x", host="[fe80::1%eth0]", user="u"),
         "u@[fe80::1%eth0]:/x"),
        ("rsync://h/m", Target(kind=DAEMON, path="m", host="h"), "rsync://h/m"),
        ("rsync://u@h:873/m/x/", Target(kind=DAEMON, path="m/x", host="h", user="u", port=873),
         "rsync://u@h:873/m/x"),
        ("rsync://[2001:db8::1]:8730/m",
         Target(kind=DAEMON, path="m", host="[2001:db8::1]", port=8730),
         "rsync://[2001:db8::1]:8730/m"),
    ],
)  # fmt: skip
def test_targets(text: str, target: Target, printed: str) -> None:
    """Each form is taken apart, and prints as it was meant."""
    assert parse_target(text) == target
    assert str(target) == printed


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("", "is empty", "write "),
        ("-rsh", "rsync would take it for an option", "write "),
        ("--rsh=x:/y", "rsync would take it for an option", "write "),
        ("/a\nb", "holds a control character", "write the target without it"),
        ("/a\x9bb", "holds a control character", "write the target without it"),
        ("html", "a relative path means another folder for each process that reads it",
         'write "/full/path/html" for a folder here, "html:/path" for a host'),
        ("h:x", "a path without a leading / lies below the home of whoever logs in",
         'write the full path: "h:/full/path/x"'),
        ("h:~/x", "a path without a leading / lies below the home of whoever logs in",
         'write the full path: "h:/full/path/x"'),
        ("h:", "a path without a leading / lies below the home of whoever logs in",
         'write the full path: "h:/full/path"'),
        ("h::m/x", "the form with :: is not taken", 'write "rsync://h/m/x"'),
        ("u@h::m", "the form with :: is not taken", 'write "rsync://u@h/m"'),
        ("h::", "the form with :: is not taken", 'write "rsync://h/MODULE"'),
        ("rsync://h", "names no module", 'write "rsync://h/MODULE"'),
        ("rsync://h/", "names no module", 'write "rsync://h/MODULE"'),
        ("rsync://h:x/m", '"x" is no port', "write a number from 1 to 65535"),
        ("rsync://h:/m", '"" is no port', "write a number from 1 to 65535"),
        ("rsync://h:70000/m", '"70000" is no port', "write a number from 1 to 65535"),
        ("rsync:///m", "is no host, module and path",
         'write "rsync://[user@]host[:port]/module[/path]"'),
        ("ssh://h/x", "ssh:// is no way of rsync's", "write "),
        ("[::zz]:/x", "[::zz] is no IPv6 address", 'write it like "[2001:db8::1]:/path"'),
        ("-h@x y:/z", "rsync would take it for an option", "write "),
        ("u@-h:/x", "is no host and path", 'write "[user@]host:/path"'),
        ("h;reboot:/x", "is no host and path", 'write "[user@]host:/path"'),
        ("/a/*/b", "holds *, which the receiving side may expand to other names",
         "name one folder, without wildcards"),
        ("h:/a[1]?", "holds ? [, which the receiving side may expand to other names",
         "name one folder, without wildcards"),
        ("rsync://h/m*", "holds *, which the receiving side may expand to other names",
         "name one folder, without wildcards"),
        ("/a/../b", 'climbs with ".."', "write the path that it leads to"),
        ("rsync://h/m/../n", 'climbs with ".."', "write the path that it leads to"),
    ],
)  # fmt: skip
def test_refused_targets(text: str, message: str, remedy: str) -> None:
    """Each refusal says what is wrong and what to write."""
    with pytest.raises(Refusal) as refused:
        parse_target(text)
    assert refused.value.message == message
    assert refused.value.remedy.startswith(remedy)


@pytest.mark.parametrize(
    "text",
    ["rsync://u:pw@h/m", "u:pw@h:/x", "rsync://:pw@h/m", "rsync://u:a/pw@h/m", "u:a/pw@h:/x"],
)
def test_a_password_in_a_target_is_refused_and_hidden(text: str) -> None:
    """It would stand in the process list; it does not stand in the message either."""
    with pytest.raises(Refusal, match="holds a password") as refused:
        parse_target(text)
    assert "pw@" not in refused.value.message + refused.value.remedy
    assert hide_password(text) == text.replace("a/pw", "pw").replace("pw@", "***@")


@pytest.mark.parametrize("text", ["/a:b@c", "h:/p@th", "rsync://[::1]:873/m@x", "u@h:/x"])
def test_what_holds_no_password_is_shown_whole(text: str) -> None:
    """Hiding touches nothing else."""
    assert hide_password(text) == text
