"""Which options may be added to rsync and ssh, and which would break a promise."""

from __future__ import annotations

import pytest

from shardsync.config.options import check_rsync_options, check_ssh_options
from shardsync.config.settings import TargetKind

FINE = [
    "--compress", "-z", "-zAXH", "--bwlimit=5m", "--chmod=F644,D755", "--chown=www:www",
    "--numeric-ids", "--rsync-path=sudo rsync", "--timeout=30", "--no-owner", "-W", "-S",
    "--compress-choice=zstd", "--remote-option=--fake-super", "-M--fake-super", "-B8192", "-4",
    "--no-perms", "--checksum", "-y", "--usermap=*:www", "-O",
]  # fmt: skip

DELETION = "shardsync decides itself what is deleted, by name, after looking"
LIST = "shardsync hands rsync its list of paths"
PRINTS = "shardsync reads what rsync prints, and this changes it"
HALF = "a reader on the Node could see half a file, or an old one spoiled"
AWAY = "Changes would silently stay away from the Node"
PATTERNS = "shardsync must know the patterns too"
RECORDED = "another run's recording gives wrong content on another basis"
LINKS = "a Node holds the Tree as it is, symlinks included"
UNKNOWN = " is not among the options whose effect shardsync knows"

REFUSED = [
    ("--delete", f"--delete: {DELETION}"),
    ("--delete-after", f"--delete-after: {DELETION}"),
    ("--delete-excluded", f"--delete-excluded: {DELETION}"),
    ("--del", f"--del: {DELETION}"),
    ("--max-delete=5", f"--max-delete: {DELETION}"),
    ("--ignore-errors", f"--ignore-errors: {DELETION}"),
    ("-m", f"-m: {DELETION}"),
    ("--files-from=/x", f"--files-from: {LIST}"),
    ("-a", f"-a: {LIST}"),
    ("-zr", f"-r: {LIST}"),
    ("-R", f"-R: {LIST}"),
    ("--remove-source-files", "--remove-source-files: it deletes the Tree's own files"),
    ("-n", "-n: nothing would be sent, and shardsync would believe it was"),
    ("--dry-run", "--dry-run: nothing would be sent, and shardsync would believe it was"),
    ("--inplace", f"--inplace: {HALF}"),
    ("--append", f"--append: {HALF}"),
    ("-P", f"-P: {HALF}"),
    ("--write-batch=x", f"--write-batch: {RECORDED}"),
    ("--read-batch=x", f"--read-batch: {RECORDED}"),
    ("--out-format=%n", f"--out-format: {PRINTS}"),
    ("-v", f"-v: {PRINTS}"),
    ("--info=all", f"--info: {PRINTS}"),
    ("--existing", f"--existing: {AWAY}"),
    ("--max-size=1m", f"--max-size: {AWAY}"),
    ("-u", f"-u: {AWAY}"),
    ("--size-only", f"--size-only: {AWAY}"),
    ("--exclude=x", f"--exclude: {PATTERNS}"),
    ("-F", f"-F: {PATTERNS}"),
    ("-L", f"-L: {LINKS}"),
    ("--safe-links", f"--safe-links: {LINKS}"),
    ("-e", "-e: ssh is started by shardsync"),
    ("--rsh=ssh -p 22", "--rsh: ssh is started by shardsync"),
    ("-essh", "-e: ssh is started by shardsync"),
    ("--password-file=/x", "--password-file: each Node has its own"),
    ("--port=1", "--port: the port belongs to the target"),
    ("-M--delete", f"--delete: {DELETION}"),
    ("--remote-option=--sender", f"--sender{UNKNOWN}"),
    ("--daemon", f"--daemon{UNKNOWN}"),
    ("--server", f"--server{UNKNOWN}"),
    ("--bwlimit", "--bwlimit lacks its value"),
    ("100", "100 is no option, rsync would take it for a path"),
    ("/etc", "/etc is no option, rsync would take it for a path"),
    ("", " is no option, rsync would take it for a path"),
    ("-", "- is no option, rsync would take it for a path"),
    ("--", f"--{UNKNOWN}"),
    ("--chmod=a\nb", "'--chmod=a\\nb' holds a control character"),
]  # fmt: skip


@pytest.mark.parametrize("option", FINE)
def test_useful_options_are_accepted(option: str) -> None:
    """What changes speed, owners or extended attributes leaves the promises alone."""
    assert check_rsync_options([option], None) == []


@pytest.mark.parametrize(("option", "message"), REFUSED)
def test_dangerous_options_are_refused(option: str, message: str) -> None:
    """What would change what a run means is refused, and so is what nobody looked at."""
    found = check_rsync_options(["-z", option], None)
    assert [refusal.message for refusal in found] == [message]
    assert found[0].remedy


def test_every_refused_option_of_a_list_is_named() -> None:
    """One look is enough to correct them all."""
    found = check_rsync_options(["--delete", "-z", "-n"], None)
    assert [refusal.message.split(":")[0] for refusal in found] == ["--delete", "-n"]


def test_contimeout_is_for_daemons() -> None:
    """For any other target rsync itself would end with an error."""
    options = ["--contimeout=5"]
    assert check_rsync_options(options, TargetKind.DAEMON) == []
    assert check_rsync_options(options, None) == []
    assert [refusal.message for refusal in check_rsync_options(options, TargetKind.SSH)] == [
        "--contimeout is for rsync daemons alone"
    ]


def test_ssh_options() -> None:
    """Ports, keys and the like; nothing that takes rsync's stream away."""
    assert check_ssh_options(["-p", "2222", "-i", "/key", "-o", "BatchMode=yes"]) == []
    found = [refusal.message for refusal in check_ssh_options(["-n", "-f", "", "a\nb"])]
    assert found == [
        "-n: rsync speaks through ssh's standard input",
        "-f: ssh would go to the background and rsync lose it",
        "'' is empty or holds a control character",
        "'a\\nb' is empty or holds a control character",
    ]
