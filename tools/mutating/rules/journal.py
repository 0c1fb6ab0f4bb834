"""Journals and Cursors: what is recorded, when, and who believes it."""

from __future__ import annotations

from tools.mutating.mutant import Mutant

_JOURNAL = "tests/integration/test_journal.py"
_CONTACT = "tests/integration/test_ship_contact.py"
_STEPS = "tests/integration/test_ship_steps.py"
_FLUSH = "tests/integration/test_ship_flush.py"

MUTANTS = (
    Mutant(
        name="reused-positions",
        rule="an Epoch's Positions begin at the wall clock, so a Journal that was rolled back "
        "hands out none twice",
        file="shardsync/journal/writer.py",
        edits=(("first = max(self._last_position + 1, now)", "first = self._last_position + 1"),),
        tests=(
            f"{_JOURNAL}::test_an_epoch_starts_at_the_wall_clock",
            "tests/fault/test_put_back.py::test_an_old_journal_put_back_hides_no_change",
        ),
    ),
    Mutant(
        name="watermark-before-its-changes",
        rule="the Watermark is committed with the Changes before it, or not at all",
        file="shardsync/journal/writer.py",
        edits=(
            (
                "        first = position + 1\n",
                (
                    "        first = position + 1\n"
                    "        if progress:\n"
                    "            self._set_progress(progress)\n"
                ),
            ),
        ),
        tests=(f"{_JOURNAL}::test_a_failed_commit_leaves_nothing_behind",),
    ),
    Mutant(
        name="journal-inode-ignored",
        rule="a Journal that is deleted under its writer is noticed",
        file="shardsync/journal/writer.py",
        edits=(
            (
                (
                    "            return os.stat(self.path).st_ino == self._inode\n"
                    "        except OSError:\n"
                    "            return False\n"
                ),
                "            return True\n        except OSError:\n            return True\n",
            ),
        ),
        tests=(
            f"{_JOURNAL}::test_a_journal_deleted_under_its_writer_is_noticed",
            (
                "tests/integration/test_watch_catching_up.py"
                "::test_a_journal_deleted_under_its_writer_is_replaced"
            ),
        ),
    ),
    Mutant(
        name="damage-ignored",
        rule="a damaged Journal is set aside, and another with another id made",
        file="shardsync/journal/writer.py",
        edits=(("            if not _is_sound(connection, path):\n", "            if False:\n"),),
        tests=(f"{_JOURNAL}::test_damage_that_no_write_would_meet_is_found_at_the_start",),
    ),
    Mutant(
        name="pruning-forgotten",
        rule="pruning says how far it went, in the same transaction",
        file="shardsync/journal/writer.py",
        edits=(
            (
                (
                    '            execute("UPDATE progress SET pruned_to = max(pruned_to, ?)",'
                    " (limit,))\n"
                ),
                "",
            ),
        ),
        tests=(f"{_JOURNAL}::test_size_bounds_prune_the_oldest_first",),
    ),
    Mutant(
        name="pruned-ignored",
        rule="a Node whose Cursor was pruned away says behind_retention and is reconciled",
        file="shardsync/ship/journals.py",
        edits=(("if cursor.position < span.pruned_to:", "if False:"),),
        tests=(f"{_CONTACT}::test_a_cursor_behind_the_retention_is_reconciled",),
    ),
    Mutant(
        name="journal-id-ignored",
        rule="a Journal with an unknown id is answered by a reconcile",
        file="shardsync/ship/journals.py",
        edits=(
            (
                "if cursor is not None and cursor.journal_id == span.journal_id:",
                "if cursor is not None:",
            ),
            (
                "if span.journal_id != cursor.journal_id or span.pruned_to > cursor.position:",
                "if span.pruned_to > cursor.position:",
            ),
        ),
        tests=(f"{_CONTACT}::test_a_journal_of_another_id_is_answered_by_a_reconcile",),
    ),
    Mutant(
        name="compared-before-all-is-watched",
        rule="no Node is compared before all of its Tree is watched",
        file="shardsync/ship/journals.py",
        edits=(
            (
                "return bool(observing) and all(self._is_observing(shard) for shard in observing)",
                "return True",
            ),
        ),
        tests=(
            f"{_CONTACT}::test_a_shard_that_is_still_scanning_holds_first_contact",
            f"{_CONTACT}::test_a_node_is_compared_only_with_a_tree_that_is_watched",
        ),
    ),
    Mutant(
        name="cursor-before-effect",
        rule="a Cursor moves after rsync succeeded",
        file="shardsync/ship/syncer.py",
        edits=(
            (
                "        pending = self._rebased(unread.pending.values())\n",
                (
                    "        pending = self._rebased(unread.pending.values())\n"
                    "        early = self._not_set_back(before, unread)\n"
                    "        self._state.record(self.key, BatchRecord(cursors=early))\n"
                ),
            ),
        ),
        tests=(f"{_STEPS}::test_a_failing_node_backs_off_longer_each_time",),
    ),
    Mutant(
        name="retries-dropped",
        rule="what failed is written down with the Cursor that moves past it",
        file="shardsync/ship/syncer.py",
        edits=(("work_added=left + self._kept(held),", "work_added=self._kept(held),"),),
        tests=(f"{_STEPS}::test_one_path_that_fails_waits_alone",),
    ),
    Mutant(
        name="retries-done-though-they-failed",
        rule="a path that fails again stays written down",
        file="shardsync/ship/open_work.py",
        edits=(("work_added=again,\n                work_done=[\n", "work_done=[\n"),),
        tests=(f"{_STEPS}::test_one_path_that_fails_waits_alone",),
    ),
    Mutant(
        name="replay-undone-by-a-batch",
        rule="a Batch under way does not move a Cursor that a replay set back meanwhile",
        file="shardsync/ship/syncer.py",
        edits=(("            if standing.get(shard) == before.get(shard)\n", ""),),
        tests=(
            (
                "tests/integration/test_ship_requests.py"
                "::test_a_replay_asked_during_a_batch_is_not_undone_by_it"
            ),
        ),
    ),
    Mutant(
        name="promoted-before-they-follow",
        rule="what a re-plan gives away is observed by its old Shard until every new one follows",
        file="shardsync/control/planner.py",
        edits=(
            ("if new and all(_is_following(progress.get(shard.id)) for shard in new):", "if new:"),
        ),
        tests=("tests/unit/test_planner.py::test_promotion_waits_for_every_new_shard",),
    ),
    Mutant(
        name="flush-before-the-nodes-are-there",
        rule="a flush ends when every Node's Cursors have come to where the Watchers were",
        file="shardsync/ship/completion.py",
        edits=(("        if not self._reached(running, station):\n", "        if False:\n"),),
        tests=(f"{_FLUSH}::test_a_flush_of_a_path_waits_for_its_pending_change",),
    ),
    Mutant(
        name="flush-without-open-work",
        rule="and nothing is open that may hold what was on disk then",
        file="shardsync/ship/completion.py",
        edits=(
            (
                "return inside is None or not self._read.has_work_at(",
                "return True or not self._read.has_work_at(",
            ),
        ),
        tests=(f"{_FLUSH}::test_a_flush_of_a_path_waits_for_that_alone",),
    ),
    Mutant(
        name="flush-on-a-halted-tree",
        rule="and its Tree is not halted",
        file="shardsync/ship/completion.py",
        edits=(
            ("if not row.contacted or station.root.trouble is not None:", "if not row.contacted:"),
        ),
        tests=(
            (
                "tests/integration/test_ship_guards.py"
                "::test_a_flush_on_a_halted_tree_does_not_say_all_is_well"
            ),
        ),
    ),
    Mutant(
        name="restored-node-unnoticed",
        rule="a Node that was emptied or restored while it was away is noticed, and reconciled",
        file="shardsync/ship/suspicion.py",
        edits=(("        if not found.changed:\n", "        if True:\n"),),
        tests=(
            "tests/integration/test_comparing.py::test_a_node_restored_from_an_old_copy_is_noticed",
        ),
    ),
)
