"""How much may be deleted, and whose files."""

from __future__ import annotations

from tools.mutating.mutant import Mutant

_GUARDS = "tests/integration/test_ship_guards.py"
_DELETIONS = "tests/integration/test_ship_deletions.py"
_STEPS = "tests/integration/test_ship_steps.py"
_COMPARE = "tests/integration/test_rsync_compare.py"
_LEFTOVERS = "tests/fault/test_leftovers.py"

MUTANTS = (
    Mutant(
        name="max-delete-ignored",
        rule="more deletions than max_delete halt the Node before anything is sent",
        file="shardsync/ship/deletions.py",
        edits=(("if not allow and total > await self._allowed(total):", "if False:"),),
        tests=(
            f"{_STEPS}::test_a_number_is_the_limit_to_the_entry",
            f"{_GUARDS}::test_more_deletions_than_max_delete_halt_the_node",
        ),
    ),
    Mutant(
        name="deletions-not-added-up",
        rule="the deletions of ten minutes count together",
        file="shardsync/ship/deletions.py",
        edits=(
            (
                "return self._state.deleted_since(self._key, since) + self._deleted",
                "return 0 * since",
            ),
        ),
        tests=(
            f"{_STEPS}::test_ten_minutes_are_counted_together",
            f"{_STEPS}::test_deletions_of_several_batches_add_up",
        ),
    ),
    Mutant(
        name="below-a-directory-not-counted",
        rule="what lies below a directory that is gone counts too",
        file="shardsync/ship/losses.py",
        edits=(
            (
                "            uncounted = [path for path in plan.gone if path in plan.uncounted]\n",
                "            uncounted = []\n",
            ),
        ),
        tests=(f"{_GUARDS}::test_more_deletions_than_max_delete_halt_the_node",),
    ),
    Mutant(
        name="replaced-not-counted",
        rule="so does what a file or symlink takes the place of",
        file="shardsync/ship/batch.py",
        edits=(("            self._plan.replaced.add(path)\n", "            pass\n"),),
        tests=(f"{_GUARDS}::test_a_directory_replaced_by_a_symlink_is_counted",),
    ),
    Mutant(
        name="extraneous-not-counted",
        rule="so does what a comparison finds beside the tree",
        file="shardsync/ship/losses.py",
        edits=(
            (
                "        await self._budget.spend(entries + beyond, allow=allow_delete)\n",
                "        del entries, beyond, allow_delete\n",
            ),
        ),
        tests=(f"{_DELETIONS}::test_max_delete_holds_for_every_kind_of_deletion",),
    ),
    Mutant(
        name="allowed-for-good",
        rule="--allow-delete covers what was pending then, and nothing later",
        file="shardsync/ship/syncer.py",
        edits=(
            (
                "allow_delete=unread.newest <= row.allow_delete,",
                "allow_delete=bool(row.allow_delete),",
            ),
        ),
        tests=(f"{_STEPS}::test_allowed_is_what_was_pending_then_and_no_more",),
    ),
    Mutant(
        name="halted-goes-on",
        rule="nothing is sent to a halted Node until it is allowed",
        file="shardsync/ship/condition.py",
        edits=(("        if row.halted:\n", "        if False:\n"),),
        tests=(f"{_STEPS}::test_a_halted_node_stays_so_until_it_is_allowed",),
    ),
    Mutant(
        name="owned-ignored",
        rule="what is foreign on a Node that is not owned is listed and kept",
        file="shardsync/ship/clearing.py",
        edits=(
            (
                "            if not owned:\n                delivered.foreign +=",
                "            if False:\n                delivered.foreign +=",
            ),
        ),
        tests=(f"{_GUARDS}::test_a_node_that_is_not_owned_keeps_what_is_foreign",),
    ),
    Mutant(
        name="delete-false-ignored",
        rule="with delete = false rsync is never told to delete",
        file="shardsync/ship/command.py",
        edits=(
            (
                "if not node.delete or purpose is Purpose.BIG_FILE:",
                "if purpose is Purpose.BIG_FILE:",
            ),
        ),
        tests=(
            "tests/unit/test_rsync_command.py::test_a_node_with_delete_false_is_never_deleted_on",
        ),
    ),
    Mutant(
        name="leftovers-that-the-tree-has",
        rule="what the tree has is no leftover of a killed rsync",
        file="shardsync/ship/janitor.py",
        edits=(
            (
                "return self._was_made_for(prefix, name) and self._is_absent(difference.path)",
                "return self._was_made_for(prefix, name)",
            ),
        ),
        tests=(f"{_COMPARE}::test_leftovers_of_killed_runs_are_found_and_nothing_else",),
    ),
    Mutant(
        name="leftovers-of-people",
        rule="nor what people name like one",
        file="shardsync/ship/janitor.py",
        edits=(
            (
                "        if _RANDOM.fullmatch(name[-6:]) is None:\n",
                "        if False:\n",
            ),
        ),
        tests=(f"{_COMPARE}::test_leftovers_of_killed_runs_are_found_and_nothing_else",),
    ),
    Mutant(
        name="leftovers-that-were-foreign",
        rule="nor what was on the Node before us",
        file="shardsync/ship/janitor.py",
        edits=(("        if difference.path in self._foreign:\n", "        if False:\n"),),
        tests=(f"{_LEFTOVERS}::test_a_node_that_dies_half_way_is_swept",),
    ),
    Mutant(
        name="leftovers-not-swept",
        rule="what killed runs left is swept",
        file="shardsync/ship/delivery.py",
        edits=(("if sweep or self._runs.was_cut_off:\n", "if False:\n"),),
        tests=(
            f"{_STEPS}::test_what_a_killed_run_left_is_swept_with_the_batch_that_is_sent_again",
            f"{_STEPS}::test_what_a_run_that_was_repeated_at_once_left_is_swept",
        ),
    ),
)
