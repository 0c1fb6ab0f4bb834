from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.config.settings import NodeSettings, Target, TargetKind
from shardsync.ship.command import (
    Capabilities,
    Purpose,
    RunAs,
    clean_environment,
    deletion_filters,
    destination,
    list_bytes,
    remote_shell,
    rsync_command,
)

LOCAL = NodeSettings(
    name="web1", tree="main", target=Target(kind=TargetKind.LOCAL, path="/srv/www")
)
TAIL = (
    "--timeout=60",
    "--stats",
    "--no-h",
    "--out-format=@%o|%i|%l|%b|%n",
    "--numeric-ids",
    "--",
    "/proc/self/fd/7/",
    "/srv/www/",
)


def argv(
    purpose: Purpose,
    node: NodeSettings = LOCAL,
    *,
    filters: tuple[str, ...] = (),
    capabilities: Capabilities | None = None,
) -> tuple[str, ...]:
    return rsync_command(
        node=node,
        purpose=purpose,
        source_fd=7,
        environment={},
        filters=filters,
        max_delete=9,
        capabilities=capabilities,
    ).argv


def test_batch_is_the_flat_list_that_was_tried() -> None:
    """A Batch compares nothing, deletes only what is listed, and reads a NUL-separated list."""
    assert argv(Purpose.BATCH) == (
        "rsync",
        "-lptgoD",
        "-I",
        "--modify-window=-1",
        "--files-from=-",
        "--from0",
        "--delete-missing-args",
        "--force",
        "--max-delete=9",
        *TAIL,
    )


def test_excludes_bring_delete_along() -> None:
    """With excludes, --delete keeps a daemon from deleting excluded files below a gone folder."""
    assert argv(Purpose.BATCH, filters=("--exclude=*.local",))[6:10] == (
        "--delete-missing-args",
        "--delete",
        "--force",
        "--max-delete=9",
    )


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if "compare" in purpose.value])
def test_comparisons_are_dry_runs(purpose: Purpose) -> None:
    """Whatever compares carries -n and never asks for missing paths to be deleted."""
    flags = argv(purpose)
    assert "-n" in flags
    assert "--delete-missing-args" not in flags


@pytest.mark.parametrize("purpose", [Purpose.TREE, Purpose.TREE_CHECKSUM])
def test_tree_never_deletes(purpose: Purpose) -> None:
    """A recursive run that writes carries no deleting flag, --force for type changes aside."""
    assert not [flag for flag in argv(purpose) if "delete" in flag]


def test_a_big_file_s_run_leaves_directory_times_alone_and_deletes_nothing() -> None:
    """It runs beside others, which would have to count what it deletes."""
    flags = argv(Purpose.BIG_FILE)
    assert "-O" in flags
    assert not [flag for flag in flags if flag.startswith("--del") or flag == "--force"]


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_node_with_delete_false_is_never_deleted_on(purpose: Purpose) -> None:
    """Nothing that runs for real deletes there, not even to make way."""
    flags = argv(purpose, replace(LOCAL, delete=False))
    if "-n" not in flags:
        assert not [flag for flag in flags if "delete" in flag or flag == "--force"]


def test_old_receivers_get_no_missing_args() -> None:
    """A receiver that dies of missing arguments is not sent any."""
    able = Capabilities(delete_missing_args=False)
    assert "--delete-missing-args" not in argv(Purpose.BATCH, capabilities=able)
    assert "--ignore-missing-args" in argv(Purpose.BATCH, capabilities=able)


def test_rrsync_gets_no_modify_window() -> None:
    """Behind rrsync no option is used that it refuses."""
    able = Capabilities(modify_window=False)
    for purpose in Purpose:
        assert "--modify-window=-1" not in argv(purpose, capabilities=able)


def test_daemon_and_its_password_file() -> None:
    """A daemon is given its password by file, a connect timeout, and its address."""
    node = NodeSettings(
        name="web2",
        tree="main",
        target=Target(
            kind=TargetKind.DAEMON, host="web2", user="push", port=8730, path="site/html"
        ),
        password_file=Path("/etc/shardsync/web2"),
        bandwidth="2m",
        rsync_options=("--chmod=D755",),
    )
    assert argv(Purpose.BATCH, node)[13:] == (
        "--bwlimit=2m",
        "--contimeout=10",
        "--no-motd",
        "--password-file=/etc/shardsync/web2",
        "--chmod=D755",
        "--",
        "/proc/self/fd/7/",
        "rsync://push@web2:8730/site/html/",
    )


@pytest.mark.parametrize("option", ["--chown=www-data:", "--usermap=a:b", "--groupmap=*:b"])
def test_owners_that_are_mapped_go_by_name(option: str) -> None:
    """On this machine numbers do, which spares looking names up, but not where names are told."""
    assert "--numeric-ids" not in argv(Purpose.BATCH, replace(LOCAL, rsync_options=(option,)))
    assert "--numeric-ids" in argv(Purpose.BATCH, replace(LOCAL, rsync_options=("--fsync",)))


def test_ssh_options_come_first_and_are_quoted_for_rsync() -> None:
    """The Node's own ssh options win over ours, and survive rsync's splitting of -e."""
    node = NodeSettings(
        name="web3",
        tree="main",
        target=Target(kind=TargetKind.SSH, host="web3", user="www", path="/srv/www"),
        ssh_options=("-i", "/keys/it's mine", '-oProxyCommand=nc "a b" %h'),
    )
    assert remote_shell(node) == (
        "ssh -i '/keys/it''s mine' '-oProxyCommand=nc \"a b\" %h' -oBatchMode=yes"
        " -oConnectTimeout=10 -oServerAliveInterval=15 -oServerAliveCountMax=2 -oLogLevel=ERROR"
    )
    assert argv(Purpose.BATCH, node)[-1] == "www@web3:/srv/www/"


@pytest.mark.parametrize("purpose", [Purpose.MOVED, Purpose.MOVED_CHECKSUM])
def test_names_in_a_command_are_kept_from_the_remote_shell(purpose: Purpose) -> None:
    """A directory may be named `$(...)`; only where there is a shell, as rrsync takes no `-s`."""
    ssh = replace(LOCAL, target=Target(kind=TargetKind.SSH, host="h", path="/srv/$(touch x)"))
    assert "-s" in argv(purpose, ssh)
    assert "-s" not in argv(purpose)
    assert "-s" not in argv(Purpose.BATCH, ssh)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target(kind=TargetKind.LOCAL, path="/srv/www/"), "/srv/www/"),
        (Target(kind=TargetKind.LOCAL, path="/"), "/"),
        (Target(kind=TargetKind.SSH, host="web", path="www"), "web:www/"),
        (Target(kind=TargetKind.SSH, host="::1", user="u", path="/w"), "u@[::1]:/w/"),
        (Target(kind=TargetKind.DAEMON, host="web", path="site"), "rsync://web/site/"),
        (Target(kind=TargetKind.DAEMON, host="[::1]", path="s"), "rsync://[::1]/s/"),
    ],
)
def test_destinations_end_with_a_slash(target: Target, expected: str) -> None:
    """Each kind of target is spelled as rsync takes it, always as a folder."""
    assert destination(target) == expected


def test_environment_is_clean() -> None:
    """No variable of ours changes what rsync does, and the locale is fixed."""
    ours = {"PATH": "/bin", "HOME": "/root", "RSYNC_RSH": "evil", "RSYNC_PASSWORD": "secret"}
    assert clean_environment(ours, run_as=None) == {
        "PATH": "/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
    }
    other = RunAs(uid=33, gid=33, groups=(33,), home="/var/www")
    assert clean_environment({**ours, "SSH_AUTH_SOCK": "/s"}, run_as=other) == {
        "PATH": "/bin",
        "HOME": "/var/www",
        "LC_ALL": "C.UTF-8",
    }


def test_list_entries_never_begin_with_their_own_name() -> None:
    """Every entry has `/` in front and NUL behind; listings have `/` behind the name as well."""
    paths = [b"#a", b";b", b"-rf", b"a\nb/\xff"]
    assert b"".join(list_bytes(paths, purpose=Purpose.BATCH)) == b"/#a\0/;b\0/-rf\0/a\nb/\xff\0"
    listings = list_bytes([b"news", b""], purpose=Purpose.COMPARE_LISTING)
    assert b"".join(listings) == b"/news/\0/\0"


@pytest.mark.parametrize("purpose", [Purpose.BATCH, Purpose.TREE, Purpose.ATTRIBUTES])
def test_the_root_itself_is_never_shipped(purpose: Purpose) -> None:
    """Listing the root would impose its attributes, or delete foreign files at its level."""
    with pytest.raises(ValueError, match="root itself"):
        list(list_bytes([b"a", b""], purpose=purpose))


def test_deletion_filters_touch_only_what_is_gone() -> None:
    """The gone paths and the folders on the way are let in, all their siblings shut out."""
    assert list(deletion_filters([b"a/b/gone", b"a/[x]*\\", b"top"])) == [
        b"+ /a/\0",
        b"+ /a/b/\0",
        b"+ /a/b/gone\0",
        b"+ /a/\\[x]\\*\\\\\0",
        b"+ /top\0",
        b"- /*\0",
        b"- /a/*\0",
        b"- /a/b/*\0",
    ]
