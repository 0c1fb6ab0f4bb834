"""The kernel's limits are raised for good, never lowered, and by root alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardsync.control.limits import INSTANCES, QUEUED_EVENTS, WATCHES, needed
from shardsync.control.tuning import Change, Tuner, read_sysctls
from shardsync.errors import UsageError

NEED = needed(1_000_000, shards=2)
WANTED = {WATCHES: 2_097_152, INSTANCES: 512, QUEUED_EVENTS: 524_288}


class Machine:
    """A kernel's files below `proc/`, and folders of sysctl files, all made up."""

    def __init__(self, folder: Path, **values: int) -> None:
        self.folder = folder
        self.proc = folder / "proc"
        for name in ("fs/inotify", "user"):
            (self.proc / "sys" / name).mkdir(parents=True)
        defaults = {"max_user_watches": 65536, "max_user_instances": 128}
        for name, value in {**defaults, "max_queued_events": 16384, **values}.items():
            self.key(f"fs.inotify.{name}").write_text(f"{value}\n")
        self.file = folder / "etc/sysctl.d/60-shardsync.conf"
        self.file.parent.mkdir(parents=True)

    def key(self, key: str) -> Path:
        return self.proc.joinpath("sys", *key.split("."))

    def loaded(self) -> dict[str, int]:
        return {key: int(self.key(key).read_text()) for key in WANTED}

    def tuner(self) -> Tuner:
        return Tuner(
            file=self.file,
            proc=self.proc,
            others=(self.file.parent, self.folder / "missing"),
            last_read=self.folder / "etc/sysctl.conf",
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_limits_are_loaded_and_written(machine: Machine) -> None:
    """The kernel and the file have the same; each change is told with what was there before."""
    done = machine.tuner().apply(NEED)
    assert machine.loaded() == read_sysctls(machine.file) == WANTED
    assert done.changes[0] == Change(key=WATCHES, old=65536, new=2_097_152)
    assert [change.key for change in done.changes] == [WATCHES, INSTANCES, QUEUED_EVENTS]
    assert machine.file.stat().st_mode & 0o777 == 0o644


def test_a_second_run_has_nothing_to_do(machine: Machine) -> None:
    """Also when the tree has grown a little: the figures are rounded up."""
    machine.tuner().apply(NEED)
    before = machine.file.stat().st_ino
    assert machine.tuner().apply(needed(1_001_011, shards=2)).is_done
    assert machine.file.stat().st_ino == before


def test_printing_changes_nothing(machine: Machine) -> None:
    """`plan` tells what `apply` would do."""
    assert machine.tuner().plan(NEED).values == WANTED
    assert not machine.file.exists()
    assert machine.loaded()[WATCHES] == 65536


def test_no_limit_is_lowered(tmp_path: Path) -> None:
    """Neither one that is in force, nor one that our file asked for before."""
    machine = Machine(tmp_path, max_user_watches=9_000_000)
    machine.file.write_text("fs.inotify.max_queued_events = 4000000\n")
    machine.tuner().apply(NEED)
    wanted = {WATCHES: 9_000_000, INSTANCES: 512, QUEUED_EVENTS: 4_000_000}
    assert machine.loaded() == read_sysctls(machine.file) == wanted


def test_what_was_loaded_and_not_written_is_written_by_the_next_run(machine: Machine) -> None:
    """Killed in between, the next run completes it."""
    for key, value in WANTED.items():
        machine.key(key).write_text(f"{value}\n")
    done = machine.tuner().apply(NEED)
    assert (done.changes, done.is_written) == ((), False)
    assert read_sysctls(machine.file) == WANTED


def test_a_kernel_that_refuses_leaves_no_file(machine: Machine) -> None:
    """In a container the way out is on the host, and nothing is left behind."""
    machine.key(WATCHES).unlink()
    machine.key(WATCHES).symlink_to("/proc/sys/kernel/ngroups_max")  # nobody may write it
    with pytest.raises(UsageError, match=r"max_user_watches = 2097152 cannot be set") as caught:
        machine.tuner().apply(NEED)
    assert "on the host" in caught.value.remedy
    assert not machine.file.exists()


def test_a_folder_that_cannot_be_written_is_told(machine: Machine) -> None:
    """With what holds meanwhile."""
    machine.file.parent.rmdir()
    machine.file.parent.write_text("")
    with pytest.raises(UsageError, match=r"60-shardsync.conf: .*until the next boot"):
        machine.tuner().apply(NEED)


def test_a_user_namespace_s_own_limit_is_raised_too(machine: Machine) -> None:
    """It is not for the file, which the machine's boot reads."""
    machine.key("user.max_inotify_watches").write_text("5000\n")
    machine.key("user.max_inotify_instances").write_text("2147483647\n")
    done = machine.tuner().apply(NEED)
    assert Change(key="user.max_inotify_watches", old=5000, new=2_097_152) in done.changes
    assert machine.key("user.max_inotify_watches").read_text() == "2097152\n"
    assert read_sysctls(machine.file) == WANTED


def test_files_that_win_at_the_next_boot_are_named(machine: Machine) -> None:
    """Those read later that say less; spelled with slashes, or allowed to fail, all the same."""
    folder = machine.file.parent
    (folder / "99-ide.conf").write_text("# x\nfs/inotify/max_user_watches=524288\n")
    (folder / "90-more.conf").write_text("-fs.inotify.max_user_watches = 9000000\n")
    (folder / "10-early.conf").write_text("fs.inotify.max_user_watches = 1\n")
    (folder.parent / "sysctl.conf").write_text("-fs.inotify.max_queued_events = 5\n")
    assert machine.tuner().overriding(WANTED) == [
        f"{folder / '99-ide.conf'}: fs.inotify.max_user_watches = 524288",
        f"{folder.parent / 'sysctl.conf'}: fs.inotify.max_queued_events = 5",
    ]
