"""What rsync is told: the argv and environment for one Node and one purpose. Pure.

It stands at the very end of the data's way, between the Syncer and the process
that ships. It never runs anything and never looks at a file.

Facts behind the flags (each tried, the tests provoke them again):

* Each list entry begins with `/`: names that begin with `#` or `;` are silently
  dropped otherwise, and `./` would impose the root's own attributes.
* `-I` for content: the quick check misses a rewrite of equal size within a second.
* `--modify-window=-1` compares mtimes to the nanosecond. Without it a directory's mtime is
  left as it came about on the Node if that was within the same second; and for
  attributes it stands in for `-I`, which would send the data again for a chmod.
* `--force`, else a non-empty directory is left where a file must go, with exit 0.
* `--delete` beside `--delete-missing-args` once there are excludes, else a daemon deletes
  excluded files below a missing directory. Siblings stay untouched, as no directory is
  listed with its contents.
* No `--partial-dir`: it would leave a folder of ours in a tree that a web server serves.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from shardsync.config.settings import NodeSettings, Target, TargetKind

OUT_FORMAT = "@%o|%i|%l|%b|%n"
"""One line per path: operation, itemized difference, length, bytes moved, name (escaped, last)."""

_OWNER_MAPS = ("--chown", "--usermap", "--groupmap")
"""Options that go by owners' names."""
TIMEOUT_SECONDS = 60
"""rsync's own I/O timeout; a warm rsync must be renewed before it."""

CONNECT_SECONDS = 10

_SSH_DEFAULTS = (
    "-oBatchMode=yes",
    f"-oConnectTimeout={CONNECT_SECONDS}",
    "-oServerAliveInterval=15",
    "-oServerAliveCountMax=2",
    "-oLogLevel=ERROR",
)
"""After the Node's own `ssh_options`: ssh takes the first value it meets, so those win."""

_KEPT_ENVIRONMENT = ("PATH", "HOME", "SSH_AUTH_SOCK", "TZ")


class Purpose(enum.Enum):
    """What a run of rsync is for; it decides how the list is read and paths compared."""

    BATCH = "batch"
    """Flat list: each path itself, content sent whatever the Node's copy looks like."""
    ATTRIBUTES = "attributes"
    """Flat list: data is sent only where size or mtime (to the nanosecond) differ."""
    CHECKSUM = "checksum"
    """Flat list: data is sent only where it differs."""
    TREE = "tree"
    """Each path and all below it, compared by size and mtime; deletes nothing below it."""
    TREE_CHECKSUM = "tree_checksum"
    """As TREE, compared by content."""
    TREE_ANEW = "tree_anew"
    """As TREE, every file written anew."""
    TREE_FIRST = "tree_first"
    """As TREE, of which the filters take only what is sent before all else."""
    TREE_FIRST_CHECKSUM = "tree_first_checksum"
    """As TREE_FIRST, compared by content."""
    MOVED = "moved"
    """A directory by itself, source and destination; what a basis has is not sent."""
    MOVED_CHECKSUM = "moved_checksum"
    """As MOVED, compared by content, with the basis and what is there."""
    COMPARE = "compare"
    """Dry run: what differs at and below each path, and what is there beside the tree."""
    COMPARE_CHECKSUM = "compare_checksum"
    """As COMPARE, compared by content."""
    COMPARE_FLAT = "compare_flat"
    """Dry run: which of these very paths differ."""
    COMPARE_FLAT_CHECKSUM = "compare_flat_checksum"
    """As COMPARE_FLAT, compared by content."""
    COMPARE_LISTING = "compare_listing"
    """Dry run: what is there beside the tree directly in each directory."""
    LEVEL = "level"
    """Each directory and what lies directly in it, compared by size and mtime; deletes nothing."""
    COMPARE_LEVEL = "compare_level"
    """Dry run: what differs directly in each directory, and what is there beside the tree."""
    COMPARE_LEVEL_CHECKSUM = "compare_level_checksum"
    """As COMPARE_LEVEL, compared by content."""
    BIG_FILE = "big_file"
    """As BATCH for files that take long, beside other runs: leaves directory times alone and
    deletes nothing; what it spoils is put right by the run after it."""
    DELETE_FILTERED = "delete_filtered"
    """Deletion for receivers that die of missing arguments; the list is `deletion_filters`."""


FLAT = frozenset({Purpose.BATCH, Purpose.ATTRIBUTES, Purpose.CHECKSUM, Purpose.BIG_FILE})
FIRST = frozenset({Purpose.TREE_FIRST, Purpose.TREE_FIRST_CHECKSUM})
DRY = frozenset(
    {
        Purpose.COMPARE,
        Purpose.COMPARE_CHECKSUM,
        Purpose.COMPARE_FLAT,
        Purpose.COMPARE_FLAT_CHECKSUM,
        Purpose.COMPARE_LISTING,
        Purpose.COMPARE_LEVEL,
        Purpose.COMPARE_LEVEL_CHECKSUM,
    }
)
_MOVED = frozenset({Purpose.MOVED, Purpose.MOVED_CHECKSUM})
_LEVELS = frozenset(
    {
        Purpose.COMPARE_LISTING,
        Purpose.LEVEL,
        Purpose.COMPARE_LEVEL,
        Purpose.COMPARE_LEVEL_CHECKSUM,
    }
)

_COMPARED = {
    Purpose.BATCH: ("-I", "--modify-window=-1"),
    Purpose.ATTRIBUTES: ("--modify-window=-1",),
    Purpose.CHECKSUM: ("--checksum", "--modify-window=-1"),
    Purpose.BIG_FILE: ("-I", "-O", "--modify-window=-1"),
    Purpose.TREE: ("-r", "--modify-window=-1"),
    Purpose.TREE_CHECKSUM: ("-r", "--checksum", "--modify-window=-1"),
    Purpose.TREE_ANEW: ("-r", "-I", "--modify-window=-1"),
    Purpose.TREE_FIRST: ("-r", "--modify-window=-1"),
    Purpose.TREE_FIRST_CHECKSUM: ("-r", "--checksum", "--modify-window=-1"),
    Purpose.MOVED: ("-r", "--modify-window=-1"),
    Purpose.MOVED_CHECKSUM: ("-r", "--checksum", "--modify-window=-1"),
    Purpose.COMPARE: ("-n", "-r", "--modify-window=-1"),
    Purpose.COMPARE_CHECKSUM: ("-n", "-r", "--checksum", "--modify-window=-1"),
    Purpose.COMPARE_FLAT: ("-n", "--modify-window=-1"),
    Purpose.COMPARE_FLAT_CHECKSUM: ("-n", "--checksum", "--modify-window=-1"),
    Purpose.LEVEL: ("--modify-window=-1",),
    Purpose.COMPARE_LEVEL: ("-n", "--modify-window=-1"),
    Purpose.COMPARE_LEVEL_CHECKSUM: ("-n", "--checksum", "--modify-window=-1"),
    # Nothing is created nor updated with these two, so only what is foreign is told.
    Purpose.COMPARE_LISTING: ("-n", "--existing", "--ignore-existing"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a Node's rsync can take; found out by a probe, the best is assumed before.

    `delete_missing_args`: False for 3.2.7 as Debian 12 has it, and 3.4.3 (they exit 2).
    `modify_window`: False behind rrsync, which refuses `--modify-window=-1` (and lets in one
    run at a time: no warm starts then).
    """

    delete_missing_args: bool = True
    modify_window: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    """Another user that rsync runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RsyncCommand:
    """A run of rsync, ready to be started; the list follows on its stdin."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    run_as: RunAs | None = None


def rsync_command(
    *,
    node: NodeSettings,
    purpose: Purpose,
    source_fd: int,
    environment: Mapping[str, str],
    filters: tuple[str, ...] = (),
    max_delete: int | None = None,
    capabilities: Capabilities | None = None,
    dry_run: bool = False,
    basis: tuple[str, ...] = (),
    run_as: RunAs | None = None,
    control_path: str = "",
    program: str = "rsync",
) -> RsyncCommand:
    """The command that ships to `node`, or compares it with, the directory open as `source_fd`.

    `filters`: the Node's excludes as rsync arguments. `max_delete`: rsync's own brake,
    None for none. `basis`: where else the Node may have the files (`basis_options`).
    `environment`: ours, of which hardly anything is handed on. `control_path`:
    the socket of the ssh connection to share, "" for one of its own.
    """
    able = Capabilities() if capabilities is None else capabilities
    argv = (
        program,
        *_content_flags(purpose, able, is_daemon=node.target.kind is TargetKind.DAEMON),
        *_deletion_flags(node, purpose, filters, max_delete, able),
        *filters,
        *basis,
        *(("-n",) if dry_run else ()),
        f"--timeout={TIMEOUT_SECONDS}",
        "--stats",
        "--no-h",
        f"--out-format={OUT_FORMAT}",
        *_transport_flags(node, control_path),
        # A name of the tree's is part of the command: before 3.2.4 the remote shell would read it.
        *(("-s",) if purpose in _MOVED and node.target.kind is TargetKind.SSH else ()),
        *node.rsync_options,
        "--",
        f"/proc/self/fd/{source_fd}/",
        destination(node.target),
    )
    return RsyncCommand(
        argv=argv, environment=clean_environment(environment, run_as=run_as), run_as=run_as
    )


def basis_options(
    path: bytes, origins: Iterable[bytes], *, link: bool, target: Target
) -> tuple[str, ...]:
    """Where a Node may have what is at `path` now, told relative to there.

    To a daemon from its module's root: Debian 12's 3.2.7 finds nothing by `../` (tried).

    `link`: files are hard-linked from there, else copied by the Node itself.
    """
    option = "--link-dest=" if link else "--copy-dest="
    if target.kind is TargetKind.DAEMON:
        folder = target.path.partition("/")[2].strip("/")
        top = f"/{folder}/" if folder else "/"
        return tuple(option + top + os.fsdecode(origin) for origin in origins)
    return tuple(
        option + os.fsdecode(os.path.relpath(b"/" + origin, b"/" + path)) for origin in origins
    )


def can_be_destination(path: bytes, target: Target) -> bool:
    """Whether a folder below the target can be named as a destination of its own.

    A remote shell, and a daemon, take wildcards in it for wildcards.
    """
    if target.kind is TargetKind.LOCAL:
        return True
    return not any(byte < 0x20 or byte in b"*?[]\\" for byte in path)


def below_target(target: Target, path: bytes) -> Target:
    """The target of a folder in a Node."""
    slash = "" if not target.path or target.path.endswith("/") else "/"
    return replace(target, path=target.path + slash + os.fsdecode(path))


def list_bytes(paths: Iterable[bytes], *, purpose: Purpose) -> Iterable[bytes]:
    """The entries for stdin, each with its end: NUL-separated, `/` in front.

    Raises ValueError for the root itself where that would impose the root's own
    attributes, or, in a flat Batch, delete what is foreign at the root's level.
    """
    tail = b"/\0" if purpose in _LEVELS else b"\0"
    for path in paths:
        if not path:
            if purpose not in DRY:
                raise ValueError("the root itself is never listed: list the names in it")
            yield b"/\0"
        else:
            yield b"/" + path + tail


def deletion_filters(gone: Iterable[bytes]) -> Iterable[bytes]:
    """The rules for DELETE_FILTERED, each with its end: only the paths `gone` can be touched.

    Rules of every directory on the way come first, then `- /dir/*` for its other names; what
    is below a gone directory is left to the Node's own excludes, which follow in the argv.
    """
    folders: dict[bytes, None] = {b"": None}
    for path in gone:
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            folder = b"/".join(parts[:depth])
            if folder not in folders:
                folders[folder] = None
                yield b"+ /" + _literal(folder) + b"/\0"
        yield b"+ /" + _literal(path) + b"\0"
    for folder in folders:
        prefix = b"/" + _escaped(folder) if folder else b""
        yield b"- " + prefix + b"/*\0"


def destination(target: Target) -> str:
    """The target as rsync takes it, always with a slash at its end."""
    user = f"{target.user}@" if target.user else ""
    host = f"[{target.host}]" if ":" in target.host.strip("[]") else target.host
    host = host.replace("[[", "[").replace("]]", "]")
    path = target.path.rstrip("/") + "/"
    if target.kind is TargetKind.LOCAL:
        return path
    if target.kind is TargetKind.SSH:
        return f"{user}{host}:{path}" if target.path else f"{user}{host}:"
    port = f":{target.port}" if target.port else ""
    return f"rsync://{user}{host}{port}/{path}"


def remote_shell(node: NodeSettings, control_path: str = "") -> str:
    """The value of `-e`, which rsync splits at spaces; quotes are doubled inside quotes."""
    shared = ("-oControlMaster=no", f"-oControlPath={control_path}") if control_path else ()
    return " ".join(_quoted(word) for word in ssh_words(node, *shared))


def ssh_words(node: NodeSettings, *ours: str) -> tuple[str, ...]:
    """How ssh is called for a Node, less the destination: its own options win over `ours`."""
    port = (f"-oPort={node.target.port}",) if node.target.port else ()
    return ("ssh", *node.ssh_options, *port, *ours, *_SSH_DEFAULTS)


def ssh_destination(target: Target) -> str:
    """The machine as ssh takes it."""
    user = f"{target.user}@" if target.user else ""
    return user + target.host.strip("[]")


def clean_environment(environment: Mapping[str, str], *, run_as: RunAs | None) -> dict[str, str]:
    """What rsync may see of our environment: no RSYNC_* variable changes what we ask for."""
    kept = {name: environment[name] for name in _KEPT_ENVIRONMENT if name in environment}
    kept.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    # Bytes that are no character in this locale print as `\#ooo`, which we read back.
    kept["LC_ALL"] = "C.UTF-8"
    if run_as is not None:
        kept["HOME"] = run_as.home
        kept.pop("SSH_AUTH_SOCK", None)
    return kept


def _content_flags(purpose: Purpose, able: Capabilities, *, is_daemon: bool) -> tuple[str, ...]:
    if purpose is Purpose.DELETE_FILTERED:
        # No -t, -p: the root itself is part of this run, and keeps its own attributes.
        return ("-r", "--existing", "--ignore-existing", "--from0", "--exclude-from=-")
    compared = _COMPARED[purpose]
    if not able.modify_window:
        compared = tuple(flag for flag in compared if flag != "--modify-window=-1")
    if purpose in {Purpose.MOVED, Purpose.MOVED_CHECKSUM}:
        # -s: else 3.2.7 as a client tells a daemon of `a b` as `a\ b`, which is not there.
        plain = ("-s",) if is_daemon else ()
        return ("-lptgoD", *plain, *compared)
    return ("-lptgoD", *compared, "--files-from=-", "--from0")


def _deletion_flags(
    node: NodeSettings,
    purpose: Purpose,
    filters: tuple[str, ...],
    max_delete: int | None,
    able: Capabilities,
) -> tuple[str, ...]:
    # --force: else a file that stands for a full directory is no difference but a failure.
    if purpose in {Purpose.COMPARE_FLAT, Purpose.COMPARE_FLAT_CHECKSUM}:
        return ("--force", "--ignore-missing-args")
    if purpose in DRY:
        # --ignore-errors: else one directory that vanishes meanwhile has rsync name nothing at
        # all of what is extraneous. Nothing is deleted here, and each name is looked at.
        return ("--delete", "--force", "--ignore-errors", "--ignore-missing-args")
    if not node.delete or purpose is Purpose.BIG_FILE:
        return ("--ignore-missing-args",)
    brake = () if max_delete is None else (f"--max-delete={max_delete}",)
    if purpose is Purpose.DELETE_FILTERED:
        return ("--delete", "--force", *brake)
    if purpose in FLAT and able.delete_missing_args:
        beside = ("--delete",) if filters else ()
        return ("--delete-missing-args", *beside, "--force", *brake)
    return ("--ignore-missing-args", "--force")


def _transport_flags(node: NodeSettings, control_path: str) -> tuple[str, ...]:
    flags: list[str] = [f"--bwlimit={node.bandwidth}"] if node.bandwidth else []
    maps_owners = any(option.startswith(_OWNER_MAPS) for option in node.rsync_options)
    if node.target.kind is TargetKind.LOCAL and not maps_owners:
        # The names of owners mean the same at both ends; to look them up takes 0.2 ms a run.
        flags.append("--numeric-ids")
    if node.target.kind is TargetKind.SSH:
        flags += ["-e", remote_shell(node, control_path)]
    if node.target.kind is TargetKind.DAEMON:
        flags += [f"--contimeout={CONNECT_SECONDS}", "--no-motd"]
        if node.password_file is not None:
            flags.append(f"--password-file={node.password_file}")
    return tuple(flags)


def _quoted(word: str) -> str:
    if word and not any(char in word for char in " \t'\""):
        return word
    return "'" + word.replace("'", "''") + "'"


def _escaped(name: bytes) -> bytes:
    for char in (b"\\", b"*", b"?", b"["):
        name = name.replace(char, b"\\" + char)
    return name


def _literal(name: bytes) -> bytes:
    """`name` as a pattern: a backslash escapes only where the pattern has a wildcard."""
    return _escaped(name) if any(char in name for char in (b"*", b"?", b"[")) else name
