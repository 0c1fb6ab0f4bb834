"""The root, and single paths: nothing that is in the tree goes from a Node."""

from __future__ import annotations

from tools.mutating.mutant import Mutant

_GUARDS = "tests/integration/test_ship_guards.py"
_STEPS = "tests/integration/test_ship_steps.py"
_PROMISES = "tests/integration/test_ship_promises.py"
_DELETIONS = "tests/integration/test_ship_deletions.py"
_ROOT = "tests/integration/test_rsync_root.py"
_BATCH = "tests/unit/test_batch.py"

MUTANTS = (
    Mutant(
        name="root-not-checked",
        rule="the root's identity is checked before each Batch, and each run of rsync in it",
        file="shardsync/ship/view.py",
        edits=(
            (
                "self.guard.check() if self.guard.is_pinned else self.guard.pin()",
                "None if self.guard.is_pinned else self.guard.pin()",
            ),
        ),
        tests=(
            f"{_GUARDS}::test_a_lost_root_deletes_nothing_and_heals",
            f"{_STEPS}::test_a_root_lost_within_a_batch_stops_its_next_run",
        ),
    ),
    Mutant(
        name="root-not-pinned",
        rule="the tree is read through a descriptor of its root, never by its path",
        file="shardsync/ship/root.py",
        edits=(
            (
                "        return open_beneath(self.descriptor, path)\n",
                (
                    "        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC\n"
                    "        return os.open(os.path.join(self._path, path), flags)\n"
                ),
            ),
        ),
        tests=(
            (
                "tests/integration/test_rsync_warm.py"
                "::test_a_root_covered_while_it_waits_deletes_nothing"
            ),
        ),
    ),
    Mutant(
        name="root-emptied",
        rule="a root that had entries and has none halts its Tree",
        file="shardsync/ship/root.py",
        edits=(
            ("        if known.had_entries and not now.had_entries:\n", "        if False:\n"),
        ),
        tests=(
            f"{_ROOT}::test_an_emptied_root_is_told_until_accepted",
            f"{_GUARDS}::test_a_lost_root_deletes_nothing_and_heals",
        ),
    ),
    Mutant(
        name="root-of-another-file-system",
        rule="a directory on another file system is another root",
        file="shardsync/ship/root.py",
        edits=(
            (
                "if known.filesystem != now.filesystem or not _same_device(known, now):",
                "if False:",
            ),
        ),
        tests=(
            (
                "tests/integration/test_ship_reboot.py"
                "::test_another_disk_after_a_reboot_is_another_root"
            ),
        ),
    ),
    Mutant(
        name="mount-below-lost",
        rule="a file system below the root that is no longer mounted halts the Tree",
        file="shardsync/ship/root.py",
        edits=(("        if wrong is not None:\n", "        if False:\n"),),
        tests=(
            f"{_ROOT}::test_mounts_that_go_or_cover_are_told",
            f"{_DELETIONS}::test_an_unmounted_file_system_below_the_root_deletes_nothing",
        ),
    ),
    Mutant(
        name="mount-came-and-went",
        rule="what was looked at while a mount below the root came or went does not count",
        file="shardsync/ship/footing.py",
        edits=(("if self._mounts is not None and now != self._mounts:", "if False:"),),
        tests=(f"{_STEPS}::test_a_mount_that_went_and_came_within_a_batch_stops_its_next_run",),
    ),
    Mutant(
        name="seen-before-the-root-was-away",
        rule="what one Node saw serves no other once the root, or a mount below it, was away",
        file="shardsync/ship/delivery.py",
        edits=(("if known is not None and known.stand == stand:", "if known is not None:"),),
        tests=(
            (
                "tests/integration/test_ship_shared_lists.py"
                "::test_what_was_seen_before_the_root_was_away_is_looked_at_again"
            ),
        ),
    ),
    Mutant(
        name="any-error-is-missing",
        rule="only ENOENT means missing; EIO, EACCES and ESTALE are tried again",
        file="shardsync/ship/look.py",
        edits=(
            (
                "return Look(kind=LookKind.UNREADABLE, error=",
                "return Look(kind=LookKind.MISSING, error=",
            ),
        ),
        tests=(
            f"{_ROOT}::test_an_error_is_told_as_it_is",
            f"{_ROOT}::test_forbidden_is_not_missing",
        ),
    ),
    Mutant(
        name="symlinks-followed",
        rule="a look goes through no symlink",
        file="shardsync/beneath.py",
        edits=(
            ("_RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS", "_RESOLVE_BENEATH"),
            (
                "os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
                "os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC",
            ),
        ),
        tests=(f"{_ROOT}::test_symlinks_are_never_followed",),
    ),
    Mutant(
        name="no-collapse-of-the-missing",
        rule="of what is gone only the shallowest missing ancestor is listed",
        file="shardsync/ship/batch.py",
        edits=(
            (
                "self._place_gone(item, found.ancestor)",
                "self._place_gone(item, item.path)",
            ),
        ),
        tests=(f"{_BATCH}::test_missing_paths_collapse_to_the_shallowest_ancestor",),
    ),
    Mutant(
        name="below-a-symlink",
        rule="of what lies below a file or symlink that was a directory only that is listed",
        file="shardsync/ship/batch.py",
        edits=(
            (
                "self._place_file(found.ancestor, item.since, 0)",
                "self._place_file(item.path, item.since, 0)",
            ),
        ),
        tests=(
            f"{_BATCH}::test_below_what_became_a_file_or_symlink_only_that_is_listed",
            f"{_PROMISES}::test_a_directory_that_became_a_symlink_is_not_followed",
        ),
    ),
    Mutant(
        name="unreadable-is-gone",
        rule="what cannot be looked at is neither sent nor deleted, but tried again",
        file="shardsync/ship/batch.py",
        edits=(
            (
                (
                    "                self._plan.unreadable[item.path] = "
                    'f"cannot be read: {os.strerror(found.error)}"\n'
                ),
                "                self._place_gone(item, item.path)\n",
            ),
        ),
        tests=(
            f"{_BATCH}::test_nothing_but_enoent_deletes",
            f"{_PROMISES}::test_a_directory_that_cannot_be_read_is_not_a_missing_one",
        ),
    ),
    Mutant(
        name="comparison-believed",
        rule="what a comparison calls beside the tree is looked at before it is deleted",
        file="shardsync/ship/findings.py",
        edits=(
            (
                "    elif seen.kind is LookKind.MISSING:\n",
                "    elif seen.kind is not LookKind.MISSING_ANCESTOR:\n",
            ),
        ),
        tests=(
            f"{_STEPS}::test_a_directory_that_comes_back_while_it_is_deleted_is_emptied_of_the_old",
        ),
    ),
    Mutant(
        name="excludes-not-handed-over",
        rule="each run of rsync has the Node's excludes",
        file="shardsync/ship/command.py",
        edits=(("        *filters,\n        *basis,\n", "        *basis,\n"),),
        tests=(
            "tests/integration/test_rsync_compare.py::test_excluded_paths_are_not_told",
            f"{_PROMISES}::test_what_is_excluded_is_never_touched_on_a_node",
        ),
    ),
    Mutant(
        name="excluded-is-deleted",
        rule="an excluded path that is gone from the tree is not deleted on a Node",
        file="shardsync/ship/batch.py",
        edits=(
            (
                "item.since)\n            return\n        if self._is_excluded(path, True):\n",
                "item.since)\n        if False:\n",
            ),
        ),
        tests=(f"{_BATCH}::test_excluded_paths_are_in_no_list",),
    ),
    Mutant(
        name="not-sealed",
        rule="rsync reads the tree through a mount on which the kernel follows no symlink",
        file="shardsync/ship/starting.py",
        edits=(
            (
                "return sealed(self._source.open_below(folder), mounts=mounts)",
                "return self._source.open_below(folder)",
            ),
        ),
        tests=(
            (
                "tests/fault/test_hostile_tree.py"
                "::test_a_directory_swapped_for_a_symlink_leads_nowhere"
            ),
        ),
    ),
    Mutant(
        name="sealed-without-its-mounts",
        rule="where a mount below cannot be seen through it, it is not used",
        file="shardsync/ship/sealed.py",
        edits=(("if all(_same(directory, descriptor, point) for point in mounts):", "if True:"),),
        tests=(
            (
                "tests/fault/test_hostile_tree.py"
                "::test_below_an_unbindable_mount_nothing_counts_as_missing"
            ),
        ),
    ),
)
