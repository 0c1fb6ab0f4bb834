"""What a Tree needs of the kernel, told before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardsync.control.limits import (
    INSTANCES,
    MEMORY,
    OPEN_FILES,
    QUEUED_EVENTS,
    WATCHES,
    Limits,
    needed,
    present,
    recommended,
    shortfalls,
    watcher_bytes,
)

MILLION = needed(1_001_011, shards=2, nodes=2, slots=4)
AMPLE = Limits(
    settings={WATCHES: 2_000_000, INSTANCES: 128, QUEUED_EVENTS: 16384},
    open_files=4096,
    memory_bytes=8 << 30,
)


def limits(**changed: int) -> Limits:
    keys = {"watches": WATCHES, "instances": INSTANCES, "queued": QUEUED_EVENTS}
    more = {keys.get(key, key.replace("__", ".")): value for key, value in changed.items()}
    return Limits(
        settings={**AMPLE.settings, **more},
        open_files=AMPLE.open_files,
        memory_bytes=AMPLE.memory_bytes,
    )


def test_a_watch_for_each_directory_and_some_to_spare() -> None:
    """Beside the directories: one cookie watch a Watcher, two of the sync process, 64 free."""
    assert needed(1000, shards=3).watches == 1000 + 3 + 2 + 64


def test_a_replan_has_what_it_moves_watched_twice() -> None:
    """And twice the Watchers, each with an instance."""
    still, moving = needed(1000, shards=2, slots=4), needed(1000, shards=2, slots=4, moving=400)
    assert moving.watches == still.watches + 400 + 2
    assert moving.instances == still.instances + 2
    assert moving.memory_bytes == still.memory_bytes + 400 * 60 + 2 * (20 << 20)


def test_a_million_directories_cost_sixty_bytes_each() -> None:
    """What a Watcher holds beyond its base."""
    assert watcher_bytes(1_000_000) - watcher_bytes(0) == 60_000_000


def test_many_nodes_need_more_open_files() -> None:
    """A few need what every process is given anyway."""
    assert needed(10, shards=1, nodes=10).open_files == 1024
    assert needed(10, shards=1, nodes=300).open_files > 2400


def test_a_machine_with_enough_has_no_shortfall() -> None:
    """Nor has one of which nothing can be read."""
    assert shortfalls(MILLION, AMPLE) == ()
    assert shortfalls(MILLION, Limits()) == ()


def test_too_few_watches_tell_how_many_directories_are_polled() -> None:
    """With the number needed, the number there, and the command that mends it."""
    (found,) = shortfalls(MILLION, limits(watches=500_000))
    assert (found.what, found.needed, found.present) == (WATCHES, 1_001_079, 500_000)
    assert "501,079 directories are polled" in found.effect
    assert "shardsync tune --apply" in found.remedy
    assert str(found).startswith(f"{WATCHES}: 500,000, where 1,001,079 are needed: ")


def test_no_more_directories_are_polled_than_there_are() -> None:
    """However few watches there are."""
    (found,) = shortfalls(needed(10, shards=1), limits(watches=0))
    assert "about 10 directories" in found.effect


@pytest.mark.parametrize(
    ("changed", "what"),
    [({"instances": 16}, INSTANCES), ({"queued": 64}, QUEUED_EVENTS)],
)
def test_each_kernel_limit_is_looked_at(changed: dict[str, int], what: str) -> None:
    """Alone, and with the command that mends it."""
    (found,) = shortfalls(MILLION, limits(**changed))
    assert found.what == what
    assert "shardsync tune --apply" in found.remedy


def test_a_user_namespace_has_limits_of_its_own() -> None:
    """The lower one decides, and a file on the machine would not reach it."""
    (found,) = shortfalls(MILLION, limits(user__max_inotify_watches=100))
    assert (found.what, found.present) == ("user.max_inotify_watches", 100)
    assert "`sysctl -w user.max_inotify_watches=2097152`" in found.remedy
    assert shortfalls(MILLION, limits(user__max_inotify_watches=2**31)) == ()


def test_outside_of_namespaces_the_known_name_is_told() -> None:
    """Both names are one value there."""
    (found,) = shortfalls(MILLION, limits(watches=100, user__max_inotify_watches=100))
    assert found.what == WATCHES


def test_memory_counts_the_kernel_s_part() -> None:
    """1.3 GB for the watches of a million directories, beside the processes' 0.3 GB."""
    assert 1_250_000_000 < MILLION.kernel_bytes < 1_300_000_000
    (found,) = shortfalls(MILLION, Limits(memory_bytes=1_300_000_000))
    assert found.what == MEMORY
    assert "MiB" in str(found) or "GiB" in str(found)


def test_few_open_files_name_the_unit_s_key() -> None:
    """Both ways of starting are told."""
    (found,) = shortfalls(needed(10, shards=1, nodes=300), Limits(open_files=1024))
    assert found.what == OPEN_FILES
    assert "ulimit -n 4096" in found.remedy
    assert "LimitNOFILE=4096" in found.remedy


def test_what_is_recommended_covers_what_is_needed() -> None:
    """Twice, and rounded up; never less than there is."""
    assert recommended(MILLION) == {
        WATCHES: 2_097_152,
        INSTANCES: 512,
        QUEUED_EVENTS: 524_288,
    }
    mended = Limits(settings=recommended(MILLION))
    assert shortfalls(MILLION, mended) == ()
    assert recommended(MILLION, limits(watches=5_000_000))[WATCHES] == 5_000_000
    assert recommended(needed(10, shards=1), limits(queued=2_000_000))[QUEUED_EVENTS] == 2_000_000


def proc(folder: Path, *, cgroup: str) -> Path:
    made = folder / "proc"
    (made / "sys/fs/inotify").mkdir(parents=True)
    (made / "sys/user").mkdir()
    (made / "self").mkdir()
    (made / "7").mkdir()
    (made / "sys/fs/inotify/max_user_watches").write_text("8192\n")
    (made / "sys/user/max_inotify_watches").write_text("4096\n")
    (made / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    (made / "self/cgroup").write_text(cgroup)
    (made / "7/status").write_text("Name: x\nVmRSS:\t 300 kB\n")
    return made


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_machine_is_read_from_proc(tmp_path: Path) -> None:
    """What is missing there is left out, never guessed."""
    found = present(proc=proc(tmp_path, cgroup="0::/\n"), cgroups=tmp_path / "none")
    assert found.settings == {WATCHES: 8192, "user.max_inotify_watches": 4096}
    assert found.least(WATCHES) == ("user.max_inotify_watches", 4096)
    assert found.memory_bytes == 5000 * 1024


def test_a_group_s_memory_counts_with_those_above_it(tmp_path: Path) -> None:
    """Cgroup v2: the tightest one decides; page cache can be had back; `max` is no limit."""
    here = proc(tmp_path, cgroup="0::/a/b\n")
    write(tmp_path / "cg/a", memory__max="3000000", memory__current="1000000")
    write(tmp_path / "cg/a", memory__stat="anon 5\ninactive_file 500000\n")
    write(tmp_path / "cg/a/b", memory__max="max", memory__current="900000")
    assert present(proc=here, cgroups=tmp_path / "cg").memory_bytes == 2_500_000


def test_a_group_of_the_first_version_counts_too(tmp_path: Path) -> None:
    """Also where a container shows only the top of it."""
    here = proc(tmp_path, cgroup="4:cpu,memory:/gone\n0::/\n")
    write(
        tmp_path / "cg/memory",
        memory__limit_in_bytes="2000000",
        memory__usage_in_bytes="500000",
        memory__stat="total_inactive_file 100000\n",
    )
    assert present(proc=here, cgroups=tmp_path / "cg").memory_bytes == 1_600_000


def test_what_a_running_instance_has_taken_counts_as_free(tmp_path: Path) -> None:
    """Otherwise each instance that runs well would seem short of memory."""
    here = proc(tmp_path, cgroup="")
    found = present(pids=(7, 8), watches=100, proc=here, cgroups=tmp_path / "none")
    assert found.memory_bytes == (5000 + 300) * 1024 + 100 * 1280
