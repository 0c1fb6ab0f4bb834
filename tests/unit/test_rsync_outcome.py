from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsync.config.settings import Target, TargetKind
from shardsync.ship.command import Purpose
from shardsync.ship.messages import (
    Failure,
    FailureKind,
    MessageReader,
    OutLine,
    out_line,
    temporary_stem,
    unescaped,
)
from shardsync.ship.outcome import Outcome, Trouble, Verdict, judge

LOCAL = Target(kind=TargetKind.LOCAL, path="/srv/www")
DAEMON = Target(kind=TargetKind.DAEMON, host="web", path="site/html")
MODULE = Target(kind=TargetKind.DAEMON, host="web", path="site")
HOME = Target(kind=TargetKind.SSH, host="web", path="www")


def read(*lines: bytes, target: Target = LOCAL) -> MessageReader:
    reader = MessageReader(source_fd=7, target=target)
    for line in lines:
        reader.read(line)
    return reader


def verdict(
    exit_code: int | None,
    *lines: bytes,
    paths: list[bytes] | None = None,
    gone: list[bytes] | None = None,
    purpose: Purpose = Purpose.BATCH,
) -> Verdict:
    return judge(
        exit_code=exit_code,
        messages=read(*lines).messages,
        purpose=purpose,
        paths=paths or [],
        gone=gone or [],
    )


@pytest.mark.parametrize(
    ("line", "target", "path"),
    [
        (
            (
                b'rsync: [sender] send_files failed to open "/proc/self/fd/7/d/x": '
                b"Permission denied (13)"
            ),
            LOCAL,
            b"d/x",
        ),
        (
            b'rsync: send_files failed to open "/proc/self/fd/7/d/x": Permission denied (13)',
            LOCAL,
            b"d/x",
        ),
        (
            b'rsync: [sender] link_stat "/proc/self/fd/7/a\\#012b/f" failed: Not a directory (20)',
            LOCAL,
            b"a\nb/f",
        ),
        (
            b'rsync: [sender] read errors mapping "/proc/self/fd/7/x": Input/output error (5)',
            LOCAL,
            b"x",
        ),
        (
            b'rsync: [sender] readlink_stat("/proc/self/fd/7/x") failed: Input/output error (5)',
            LOCAL,
            b"x",
        ),
        (
            b'rsync: [generator] failed to set times on "/srv/www/d": Operation not permitted (1)',
            LOCAL,
            b"d",
        ),
        (
            (
                b'rsync: [generator] recv_generator: failed to stat "/srv/www/x": '
                b"Permission denied (13)"
            ),
            LOCAL,
            b"x",
        ),
        (
            b'rsync: [generator] symlink "/srv/www/nd/sl" -> "q" failed: Permission denied (13)',
            LOCAL,
            b"nd/sl",
        ),
        (
            (
                b'rsync: [receiver] rename "/srv/www/d/.x.AbCdEf" -> "d/x" failed: '
                b"Operation not permitted (1)"
            ),
            LOCAL,
            b"d/x",
        ),
        (
            b"rsync: [generator] delete_file: unlink(gone/f) failed: Permission denied (13)",
            LOCAL,
            b"gone/f",
        ),
        (b"cannot delete non-empty directory: a b", LOCAL, b"a b"),
        (b"could not make way for new directory: tc", LOCAL, b"tc"),
        (b'ERROR: daemon refused to receive file "x"', MODULE, b"x"),
        (
            b"ERROR: d/x failed verification -- update discarded.",
            LOCAL,
            b"d/x",
        ),
        (
            (
                b'rsync: [generator] failed to set times on "/html/d" (in site): '
                b"Operation not permitted (1)"
            ),
            DAEMON,
            b"d",
        ),
        (
            (
                b'rsync: [generator] failed to set times on "/d" (in site): '
                b"Operation not permitted (1)"
            ),
            MODULE,
            b"d",
        ),
        (
            b'rsync: [generator] mknod "/home/u/www/nd/ff" failed: Permission denied (13)',
            HOME,
            b"nd/ff",
        ),
        (
            b'rsync: [receiver] rename "/srv/www/d2/.f.zs3Ora" -> "d2/f": Permission denied (13)',
            LOCAL,
            b"d2/f",
        ),
        (
            (
                b'rsync: [receiver] rename "d2/.f.W2aHGY" (in site) -> "d2/f": '
                b"Operation not permitted (1)"
            ),
            MODULE,
            b"d2/f",
        ),
        (
            b'rsync: [receiver] copy "/srv/www/.x.zs3Ora" -> "x": No space left on device (28)',
            LOCAL,
            b"x",
        ),
        (
            (
                b'rsync: [generator] rename "/html/d/.sl.zs3Ora" (in site) -> ""/html/d/sl" '
                b'(in site)" failed: Permission denied (13)'
            ),
            DAEMON,
            b"d/sl",
        ),
        (
            (
                b'rsync: [receiver] rename "/srv/www/.a" -> "b.zs3Ora" -> "a" -> "b": '
                b"Permission denied (13)"
            ),
            LOCAL,
            b'a" -> "b',
        ),
        (
            b'rsync: [generator] chgrp "/srv/www/x" failed: Operation not permitted (1)',
            LOCAL,
            b"x",
        ),
        (b'rsync: [generator] unlink "/srv/www/x": Operation not permitted (1)', LOCAL, b"x"),
        (b'rsync: [sender] readdir("/proc/self/fd/7/d"): Input/output error (5)', LOCAL, b"d"),
        (
            (
                b'rsync: [receiver] rsync_xal_set: lsetxattr("/srv/www/x","user.a") failed: '
                b"Operation not supported (95)"
            ),
            LOCAL,
            b"x",
        ),
        (
            (
                b"rsync: [generator] set_acl: sys_acl_set_file(d/x, ACL_TYPE_ACCESS): "
                b"Operation not supported (95)"
            ),
            LOCAL,
            b"d/x",
        ),
        (b"temporary filename too long: d/x", LOCAL, b"d/x"),
        (
            b'rsync: [receiver] write failed on "/srv/www/q"x": No space left on device (28)',
            LOCAL,
            b'q"x',
        ),
    ],
)
def test_messages_name_their_path(line: bytes, target: Target, path: bytes) -> None:
    """Each message that rsync was seen to print is laid at the door of its path."""
    messages = read(line, target=target).messages
    assert list(messages.failed) == [path]
    assert messages.unattributed == []


@pytest.mark.parametrize(
    "line",
    [
        b"rsync: [sender] something new happened",
        b'rsync: [generator] failed to set times on "/elsewhere/d": Operation not permitted (1)',
        b'rsync: [receiver] rename "/srv/www/.x.zs3Ora" -> "other": Permission denied (13)',
        b'rsync: [generator] symlink "/srv/www/a" -> "b" -> "c" failed: Permission denied (13)',
        b"@ERROR: auth failed on module site",
        b"@@@@@",
    ],
)
def test_unknown_messages_are_never_guessed_at(line: bytes) -> None:
    """What cannot be read, or lies outside the Node's root, is kept as unattributed."""
    messages = read(line).messages
    assert messages.failed == {}
    assert messages.unattributed == [line.decode()]


@pytest.mark.parametrize(
    ("exit_code", "said", "trouble"),
    [
        (1, b"rsync error: syntax or usage error (code 1)", Trouble.INVOCATION),
        (2, b"invalid file mode 00 for m [Receiver]", Trouble.MISSING_ARGS),
        (4, b"The server is configured to refuse --delete", Trouble.INVOCATION),
        (5, b"@ERROR: auth failed on module site", Trouble.AUTHENTICATION),
        (5, b"@ERROR: max connections (1) reached -- try again later", Trouble.BUSY),
        # Said by 3.5.0's receiver where a listed directory was renamed while the list was read.
        (2, b"ABORTING due to invalid path from sender: n22m/n12/n5/f", Trouble.STALE),
        (10, b"rsync: [sender] failed to connect to web", Trouble.UNREACHABLE),
        (11, b'rsync: [receiver] write failed on "/x": No space left on device (28)',
         Trouble.DISK_FULL),
        (11, b'rsync: [Receiver] mkdir "/no/such" failed: No such file or directory (2)',
         Trouble.DESTINATION),
        (12, b"rsync: connection unexpectedly closed", Trouble.PROTOCOL),
        (12, b"rrsync error: Another instance of rrsync is already accessing this directory.",
         Trouble.BUSY),
        (20, b"rsync error: received SIGINT, SIGTERM, or SIGHUP (code 20)", Trouble.KILLED),
        (30, b"[sender] io timeout after 60 seconds -- exiting", Trouble.TIMEOUT),
        (35, b"rsync error: timeout waiting for daemon connection", Trouble.TIMEOUT),
        (127, b"sh: 1: rsync: not found", Trouble.RSYNC_MISSING),
        (255, b"ssh: connect to host web port 22: Connection refused", Trouble.SSH),
        (-9, b"", Trouble.KILLED),
        (99, b"", Trouble.PROTOCOL),
        (None, b"", Trouble.SOURCE),
    ],
)  # fmt: skip
def test_other_codes_ship_nothing(exit_code: int | None, said: bytes, trouble: Trouble) -> None:
    """Every code beside 0, 23, 24 and 25 counts for nothing, and names its trouble."""
    found = verdict(exit_code, said, paths=[b"a"])
    assert (found.outcome, found.trouble) == (Outcome.NOTHING, trouble)


@pytest.mark.parametrize("exit_code", [0, 24])
def test_zero_and_vanished_ship_the_whole_list(exit_code: int) -> None:
    """Exit 0 and 24 mean the list is on the Node, whatever harmless lines were printed."""
    found = verdict(
        exit_code,
        b'file has vanished: "/proc/self/fd/7/a"',
        b"rsync warning: some files vanished before they could be transferred (code 24)",
        b"Warning: Permanently added 'web' to the list of known hosts.",
        paths=[b"a", b"b"],
    )
    assert (found.outcome, found.trouble, found.failed) == (Outcome.SHIPPED, None, {})


def test_partial_ships_all_but_the_named() -> None:
    """Exit 23 with every message attributed leaves only those paths to be tried again."""
    found = verdict(
        23,
        b'rsync: [sender] send_files failed to open "/proc/self/fd/7/d/x": Permission denied (13)',
        b"rsync error: some files/attrs were not transferred (see previous errors) (code 23)",
        paths=[b"d/x", b"d/y"],
    )
    assert found.outcome is Outcome.PARTIAL
    assert found.failed == {b"d/x": Failure(reason="Permission denied (13)")}


def test_partial_with_an_unknown_message_ships_nothing() -> None:
    """One message that names no path makes the whole of a failed run worth nothing."""
    found = verdict(
        23,
        b'rsync: [sender] send_files failed to open "/proc/self/fd/7/d/x": Permission denied (13)',
        b"rsync: [receiver] out of cheese",
        paths=[b"d/x", b"d/y"],
    )
    assert (found.outcome, found.trouble) == (Outcome.NOTHING, Trouble.UNATTRIBUTED)


def test_partial_that_names_a_stranger_ships_nothing() -> None:
    """A failed path that has nothing to do with the list is not believed."""
    found = verdict(23, b"cannot delete non-empty directory: elsewhere", paths=[b"d/x"])
    assert (found.outcome, found.trouble) == (Outcome.NOTHING, Trouble.UNATTRIBUTED)


def test_partial_without_a_message_ships_nothing() -> None:
    """Exit 23 alone says that something failed; nothing may be counted on."""
    assert verdict(23, paths=[b"a"]).outcome is Outcome.NOTHING


def test_a_failed_directory_takes_what_is_below_along() -> None:
    """When a directory cannot be made, its listed contents failed too; others did not."""
    found = verdict(
        23,
        b'rsync: [generator] recv_generator: mkdir "/srv/www/nd/sub" failed: '
        b"Permission denied (13)",
        b"*** Skipping any contents from this failed directory ***",
        paths=[b"nd/sub", b"nd/sub/deep/f", b"nd/other"],
    )
    assert found.outcome is Outcome.PARTIAL
    assert sorted(found.failed) == [b"nd/sub", b"nd/sub/deep/f"]


def test_an_unlisted_ancestor_is_a_path_of_its_own() -> None:
    """A directory on the way whose attributes fail is to be tried again, its contents are not."""
    found = verdict(
        23,
        b'rsync: [generator] failed to set times on "/srv/www/d": Operation not permitted (1)',
        paths=[b"d/x"],
    )
    assert found.outcome is Outcome.PARTIAL
    assert sorted(found.failed) == [b"d"]


def test_failures_inside_a_gone_directory_are_its_own() -> None:
    """What cannot be deleted below a gone directory fails the path that was listed."""
    found = verdict(
        23,
        b"rsync: [generator] delete_file: unlink(gone/f) failed: Permission denied (13)",
        b"cannot delete non-empty directory: gone",
        paths=[b"a"],
        gone=[b"gone"],
    )
    assert found.outcome is Outcome.PARTIAL
    assert found.failed == {b"gone": Failure(reason="Permission denied (13)")}


@pytest.mark.parametrize(
    ("temporary", "paths", "failed"),
    [
        (b"d/.x.oQR0PW", [b"d/x", b"d/y"], [b"d/x"]),
        (b"d/.htaccess.0fTrUF", [b"d/.htaccess", b"d/y"], [b"d/.htaccess"]),
        (b"d/." + b"x" * 246 + b".IPimbX", [b"d/" + b"x" * 255, b"d/y"], [b"d/" + b"x" * 255]),
        (b"d/.4Nok64", [b"d/y", b"d/z", b"e/z"], [b"d/y", b"d/z"]),
        (b".x.oQR0PW", [b"x", b"d/x"], [b"x"]),
    ],
)
def test_temporary_files_are_traced_to_their_entries(
    temporary: bytes, paths: list[bytes], failed: list[bytes]
) -> None:
    """A message that names rsync's temporary file fails the entries it may be made for."""
    line = b'rsync: [receiver] mkstemp "/srv/www/' + temporary + b'" failed: File too large (27)'
    found = verdict(23, line, paths=paths)
    assert (found.outcome, sorted(found.failed)) == (Outcome.PARTIAL, failed)


@pytest.mark.parametrize("purpose", [Purpose.BATCH, Purpose.TREE])
def test_what_is_no_file_fails_by_its_temporary_name_too(purpose: Purpose) -> None:
    """A symlink that stands where another was is made beside it, by 3.5.0, and then renamed."""
    said = (
        b'rsync: [generator] symlink "/srv/www/d/.sl.zs3Ora" -> "t" failed: Permission denied (13)'
    )
    flat = purpose is Purpose.BATCH
    judged = verdict(23, said, paths=[b"d", b"d/sl"] if flat else [b"d"], purpose=purpose)
    assert judged.outcome is Outcome.PARTIAL
    assert (b"d/sl" if flat else b"d") in judged.failed


def test_a_basis_that_cannot_be_read_is_no_failure() -> None:
    """The file is sent whole then, and rsync says what else fails."""
    said = (
        b'rsync: [generator] failed to open "/srv/www/x", continuing: Permission denied (13)',
        b'rsync: [generator] failed to set times on "/srv/www/y": Operation not permitted (1)',
    )
    assert list(verdict(23, *said, paths=[b"x", b"y"]).failed) == [b"y"]


def test_a_target_that_was_made_is_told() -> None:
    """By each of rsync's words for it."""
    assert read(b"created directory /srv/www").messages.made_target
    assert read(b"created 2 directories for /srv/www").messages.made_target
    assert not read(b"skipping non-regular file x").messages.made_target


def test_temporary_files_in_a_tree_run_fail_their_directory() -> None:
    """Without a list of files the directory is what is tried again."""
    line = b'rsync: [receiver] mkstemp "/srv/www/d/e/.x.oQR0PW" failed: No space left on device'
    found = verdict(23, line, paths=[b"d"], purpose=Purpose.TREE)
    assert (found.outcome, sorted(found.failed)) == (Outcome.PARTIAL, [b"d/e"])
    assert found.trouble is Trouble.DISK_FULL


@pytest.mark.parametrize("exit_code", [0, 25])
def test_stopped_deletions_leave_every_gone_path_open(exit_code: int) -> None:
    """After the brake no deletion is believed, though a daemon calls it success."""
    found = verdict(
        exit_code,
        b"Deletions stopped due to --max-delete limit (15 skipped)",
        b"rsync error: the --max-delete limit stopped deletions (code 25) at main.c(1394)",
        paths=[b"a"],
        gone=[b"x", b"y"],
    )
    assert found.outcome is Outcome.PARTIAL
    assert sorted(found.failed) == [b"x", b"y"]
    assert {failure.kind for failure in found.failed.values()} == {FailureKind.STOPPED}


def test_exit_zero_that_left_a_directory_is_not_shipped() -> None:
    """`cannot delete non-empty directory` fails its path whatever the exit code."""
    found = verdict(0, b"cannot delete non-empty directory: old", paths=[b"a"], gone=[b"old"])
    assert found.outcome is Outcome.PARTIAL
    assert found.failed[b"old"].kind is FailureKind.NOT_EMPTY


def test_what_we_cut_off_ships_nothing() -> None:
    """A run that we ended counts for nothing, whatever code it left with."""
    found = judge(
        exit_code=0,
        messages=read().messages,
        purpose=Purpose.BATCH,
        paths=[b"a"],
        cut_off="rsync ran beyond its deadline and was ended",
    )
    assert (found.outcome, found.trouble) == (Outcome.NOTHING, Trouble.DEADLINE)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"@send|>f+++++++++|1|44|a\\#012|b",
            OutLine(
                operation="send",
                item=">f+++++++++",
                length=1,
                moved_bytes=44,
                path=b"a\n|b",
                is_directory=False,
            ),
        ),
        (
            b"@del.|*deleting  |0|0|big/\\#377/",
            OutLine(
                operation="del.",
                item="*deleting  ",
                length=0,
                moved_bytes=0,
                path=b"big/\xff",
                is_directory=True,
            ),
        ),
        (b"@ERROR: auth failed", None),
        (b"Number of files: 3", None),
    ],
)
def test_report_lines_are_read_exactly(line: bytes, expected: OutLine | None) -> None:
    """Names come back to the byte, and nothing else is taken for a report."""
    assert out_line(line) == expected


@given(st.binary(min_size=1, max_size=40))
def test_escaped_names_come_back(name: bytes) -> None:
    r"""Whatever bytes rsync escapes as `\#ooo` are had back exactly."""
    assert unescaped(b"".join(b"\\#%03o" % byte for byte in name)) == name


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (b".x.AbCdEf", b"x"),
        (b".a.b.AbCdEf", b"a.b"),
        (b".AbCdEf", b""),
        (b"x.AbCdEf", None),
        (b".x.AbC", None),
    ],
)
def test_temporary_names_tell_their_stem(name: bytes, stem: bytes | None) -> None:
    """`.NAME.XXXXXX` tells NAME, other forms nothing."""
    assert temporary_stem(name) == stem


def test_memory_is_bounded_by_what_is_kept() -> None:
    """Of endless messages only so many are kept, the rest makes the run unattributed."""
    reader = MessageReader(source_fd=7, target=LOCAL, max_kept=3)
    for number in range(1_000):
        reader.read(b"cannot delete non-empty directory: d%d" % number)
    assert len(reader.messages.failed) == 3
    assert 0 < len(reader.messages.unattributed) <= 50


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            b'rsync: [Receiver] mkdir "/srv/www" failed: No such file or directory (2)',
            "rsync exited 11: the target folder: No such file or directory (2); make its parent",
        ),
        (
            b'rsync: [Receiver] mkdir "/srv/www/a" failed: Permission denied (13)',
            "rsync exited 11: a: Permission denied (13)",
        ),
    ],
)
def test_an_operator_is_told_which_path_it_was(line: bytes, message: str) -> None:
    """The reason of a run that failed as a whole comes with the path that it is about."""
    assert verdict(11, line).message == message


def test_a_full_disk_is_named_and_not_that_the_pipe_to_it_broke() -> None:
    """Rsync says both, with a big file: what the operator must know is the first."""
    lines = (
        b'rsync: [receiver] write failed on "/srv/www/d/big": No space left on device (28)',
        b"rsync error: error in file IO (code 11) at receiver.c(657) [receiver=3.5.0]",
        b"rsync: [sender] write error: Broken pipe (32)",
    )
    assert verdict(11, *lines, paths=[b"d/big"]).message == (
        "rsync exited 11: d/big: No space left on device (28)"
    )
    assert verdict(11, lines[-1]).message == (
        "rsync exited 11: rsync: [sender] write error: Broken pipe (32)"
    )
