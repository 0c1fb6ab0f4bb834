"""What rsync is told, and what of its answer is believed."""

from __future__ import annotations

from tools.mutating.mutant import Mutant

_OUTCOME = "tests/unit/test_rsync_outcome.py"
_COMMAND = "tests/unit/test_rsync_command.py"
_PROMISES = "tests/integration/test_ship_promises.py"
_MOVES = "tests/integration/test_ship_moves.py"
_SHIP = "tests/integration/test_rsync_ship.py"

MUTANTS = (
    Mutant(
        name="no-force",
        rule="--force: a file or symlink takes the place of a full directory",
        file="shardsync/ship/command.py",
        edits=(
            (
                'return ("--delete-missing-args", *beside, "--force", *brake)',
                'return ("--delete-missing-args", *beside, *brake)',
            ),
        ),
        tests=(
            f"{_SHIP}::test_type_changes_replace_each_other",
            f"{_PROMISES}::test_types_change_both_ways",
        ),
    ),
    Mutant(
        name="unprefixed-entries",
        rule="each entry of a list begins with `/`",
        file="shardsync/ship/command.py",
        edits=(('            yield b"/" + path + tail\n', "            yield path + tail\n"),),
        tests=(
            f"{_COMMAND}::test_list_entries_never_begin_with_their_own_name",
            f"{_PROMISES}::test_odd_names_come_and_go",
        ),
    ),
    Mutant(
        name="quick-check-of-content",
        rule="what was written is sent whatever its size and time",
        file="shardsync/ship/command.py",
        edits=(
            (
                'Purpose.BATCH: ("-I", "--modify-window=-1"),',
                'Purpose.BATCH: ("--modify-window=-1",),',
            ),
        ),
        tests=(f"{_SHIP}::test_rewrite_of_equal_size_and_time_arrives",),
    ),
    Mutant(
        name="quick-check-of-trees",
        rule="a directory that came as a whole is compared by its bytes",
        file="shardsync/ship/sending.py",
        edits=(
            (
                "    Compare.CONTENT: Purpose.TREE_CHECKSUM,\n",
                "    Compare.CONTENT: Purpose.TREE,\n",
            ),
        ),
        tests=(f"{_PROMISES}::test_directories_swapped_with_equal_sizes_and_times",),
    ),
    Mutant(
        name="no-delete-beside-excludes",
        rule="with excludes a flat list goes with --delete, else daemons delete what is excluded",
        file="shardsync/ship/command.py",
        edits=(('beside = ("--delete",) if filters else ()', "beside = ()"),),
        tests=(
            f"{_COMMAND}::test_excludes_bring_delete_along",
            f"{_PROMISES}::test_what_is_excluded_is_never_touched_on_a_node",
        ),
    ),
    Mutant(
        name="silent-23-believed",
        rule="exit 23 without a message ships nothing",
        file="shardsync/ship/outcome.py",
        edits=(("        if exit_code in {0, 24}:\n", "        if exit_code in {0, 23, 24}:\n"),),
        tests=(f"{_OUTCOME}::test_partial_without_a_message_ships_nothing",),
    ),
    Mutant(
        name="unknown-message-believed",
        rule="nor does it with a message that names no path",
        file="shardsync/ship/outcome.py",
        edits=(
            (
                "loose = strangers or (exit_code in {23, 25} and messages.unattributed)",
                "loose = strangers",
            ),
        ),
        tests=(f"{_OUTCOME}::test_partial_with_an_unknown_message_ships_nothing",),
    ),
    Mutant(
        name="stranger-believed",
        rule="nor with one that names a path which was not listed",
        file="shardsync/ship/outcome.py",
        edits=(("loose = strangers or (", "loose = ("),),
        tests=(f"{_OUTCOME}::test_partial_that_names_a_stranger_ships_nothing",),
    ),
    Mutant(
        name="exit-12-believed",
        rule="an exit code other than 0, 23, 24 and 25 ships nothing",
        file="shardsync/ship/outcome.py",
        edits=(
            ("if exit_code not in {0, 23, 24, 25}:", "if exit_code not in {0, 12, 23, 24, 25}:"),
            ("        if exit_code in {0, 24}:\n", "        if exit_code in {0, 12, 24}:\n"),
        ),
        tests=(f"{_OUTCOME}::test_other_codes_ship_nothing",),
    ),
    Mutant(
        name="stopped-deletions-believed",
        rule="where rsync stopped deleting, every listed deletion stays open",
        file="shardsync/ship/outcome.py",
        edits=(
            ("            failed.setdefault(entry, _DELETIONS_STOPPED)\n", "            pass\n"),
        ),
        tests=(f"{_OUTCOME}::test_stopped_deletions_leave_every_gone_path_open",),
    ),
    Mutant(
        name="cut-off-believed",
        rule="a run that we ended ships nothing",
        file="shardsync/ship/outcome.py",
        edits=(
            (
                "    if cut_off or stale:\n        return _nothing(",
                "    if False:\n        return _nothing(",
            ),
        ),
        tests=(f"{_OUTCOME}::test_what_we_cut_off_ships_nothing",),
    ),
    Mutant(
        name="runs-overlap",
        rule="one rsync writes to a Node at a time",
        file="shardsync/ship/turns.py",
        edits=(
            (
                (
                    "        async with self._gate:\n"
                    "            await self._none_beside.wait()\n"
                    "            yield\n"
                ),
                "        yield\n",
            ),
        ),
        tests=(
            "tests/unit/test_rsync_turns.py::test_two_alone_take_turns",
            "tests/unit/test_rsync_turns.py::test_a_run_alone_has_nothing_beside_it",
        ),
    ),
    Mutant(
        name="moved-from-trusted",
        rule="an old name that is there again is no basis to link from",
        file="shardsync/ship/moves.py",
        edits=(
            (
                "return Move(path=path, origins=(origin,), is_gone=False, is_told=True)",
                "return Move(path=path, origins=(origin,), is_gone=True, is_told=True)",
            ),
        ),
        tests=(
            "tests/unit/test_moves.py::test_an_old_name_that_is_there_again_is_no_more_than_a_copy",
        ),
    ),
    Mutant(
        name="linked-though-it-stays",
        rule="nor is one that this Batch does not delete",
        file="shardsync/ship/vacating.py",
        edits=(("if not all(plan.deletes(origin) for origin in move.origins):", "if False:"),),
        tests=(f"{_MOVES}::test_an_old_name_that_is_not_deleted_in_the_batch_is_copied",),
    ),
    Mutant(
        name="shared-names-forgotten",
        rule="that two names share files for the moment is written down before they do",
        file="shardsync/ship/moving.py",
        edits=(
            (
                "        begun = self.sharing.begin(move.bases) if link else []\n",
                "        begun: list[bytes] = []\n",
            ),
        ),
        tests=(f"{_MOVES}::test_killed_between_link_and_deletion_nothing_stays_shared",),
    ),
    Mutant(
        name="changes-stay-at-the-old-name",
        rule="what is pending below an old name ships to the new one",
        file="shardsync/ship/batch.py",
        edits=(("        distinct = followed(distinct.values(), moves)\n", ""),),
        tests=(f"{_MOVES}::test_pending_changes_below_the_old_name_reach_the_new_one",),
    ),
    Mutant(
        name="other-names-not-sent",
        rule="a file with several names ships under all of them",
        file="shardsync/ship/delivery.py",
        edits=(("                plan.siblings.add(path)\n", "                pass\n"),),
        tests=("tests/integration/test_sync_links.py::test_a_write_through_one_name_reaches_all",),
    ),
)
