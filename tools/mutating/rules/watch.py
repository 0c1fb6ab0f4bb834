"""Watching: no change may be missed, and the Watermark may pass none."""

from __future__ import annotations

from tools.mutating.mutant import Mutant

_CATCHING_UP = "tests/integration/test_watch_catching_up.py"
_RULES = "tests/integration/test_watch_rules.py"
_RACES = "tests/integration/test_watch_races.py"
_SCAN = "tests/integration/test_watch_scan.py"

MUTANTS = (
    Mutant(
        name="watch-after-listing",
        rule="a new directory is watched before it is listed",
        file="shardsync/watch/entering.py",
        edits=(
            (
                "            wd, rule = self._watch(task, fd)\n",
                (
                    "            listed = [*os.scandir(fd)]\n"
                    "            wd, rule = self._watch(task, fd)\n"
                ),
            ),
            (
                "                frame = os.scandir(fd), wd, found.st_ino, path, below, fd\n",
                (
                    "                entries = (entry for entry in listed)\n"
                    "                frame = entries, wd, found.st_ino, path, below, fd\n"
                ),
            ),
        ),
        tests=(f"{_SCAN}::test_a_directory_is_watched_before_it_is_listed",),
    ),
    Mutant(
        name="overflow-ignored",
        rule="an overflow of the kernel's queue is answered by a scan of everything",
        file="shardsync/watch/events.py",
        edits=(("            self.overflowed = True\n", "            self.overflowed = False\n"),),
        tests=(f"{_CATCHING_UP}::test_an_overflow_is_answered_by_a_catch_up",),
    ),
    Mutant(
        name="overflow-in-a-scan-ignored",
        rule="an overflow during that scan is answered by one more",
        file="shardsync/watch/catching_up.py",
        edits=(("            self._again_since_us = self._pass_started_us\n", ""),),
        tests=(f"{_RULES}::test_overflows_in_a_row_start_one_more_pass",),
    ),
    Mutant(
        name="margin-of-a-catch-up-dropped",
        rule="a catch-up looks 5 s further back than the Watermark, for a long write has its "
        "ctime at its start",
        file="shardsync/watch/catching_up.py",
        edits=(("COARSE_US if first else MARGIN_US", "COARSE_US"),),
        tests=(f"{_RULES}::test_a_write_that_overlapped_the_watermark_is_found",),
    ),
    Mutant(
        name="watermark-past-open-scans",
        rule="while a scan is open the Watermark stays where it is",
        file="shardsync/watch/standing.py",
        edits=(("if not self.is_settled() or self._is_kept_out():", "if self._is_kept_out():"),),
        tests=(f"{_RULES}::test_a_start_that_is_killed_leaves_the_watermark_where_it_was",),
    ),
    Mutant(
        name="watermark-past-pending-files",
        rule="the Watermark never passes a file that is still written",
        file="shardsync/watch/standing.py",
        edits=(("            limits.append(oldest)\n", "            pass\n"),),
        tests=(f"{_RULES}::test_the_watermark_never_passes_a_file_that_is_still_written",),
    ),
    Mutant(
        name="watermark-past-half-moves",
        rule="nor half of a rename that waits for the other half",
        file="shardsync/watch/standing.py",
        edits=(
            (
                (
                    "        limits += [departure.stamp[1] for departure in"
                    " self._fold.unpaired.values()]\n"
                ),
                "",
            ),
        ),
        tests=(f"{_RULES}::test_the_watermark_never_passes_half_a_move",),
    ),
    Mutant(
        name="watermark-past-what-is-closed",
        rule="nor what could not be entered for a while",
        file="shardsync/watch/standing.py",
        edits=(("if not self.is_settled() or self._is_kept_out():", "if not self.is_settled():"),),
        tests=(f"{_RULES}::test_the_watermark_never_passes_what_cannot_be_entered_for_a_while",),
    ),
    Mutant(
        name="watermark-of-the-future",
        rule="a Watermark follows a clock that was set back at once",
        file="shardsync/watch/standing.py",
        edits=(
            (
                "bound = min(self.watermark_us or now_us, now_us)",
                "bound = self.watermark_us or now_us",
            ),
        ),
        tests=(f"{_RULES}::test_the_watermark_follows_a_clock_set_back_at_once",),
    ),
    Mutant(
        name="watermark-moved-at-the-start",
        rule="a start leaves the Watermark where it was, on disk too, until its scan is through",
        file="shardsync/watch/watcher.py",
        edits=(
            (
                '                "watermark_us": since,\n',
                '                "watermark_us": now_us,\n',
            ),
        ),
        tests=(f"{_RULES}::test_a_start_that_is_killed_leaves_the_watermark_where_it_was",),
    ),
    Mutant(
        name="heartbeat-behind-an-overflow",
        rule="a heartbeat read behind an overflow moves no Watermark",
        file="shardsync/watch/watcher.py",
        edits=(
            (
                "if touched_us is not None and not self._fold.overflowed:",
                "if touched_us is not None:",
            ),
        ),
        tests=(f"{_RACES}::test_a_heartbeat_behind_an_overflow_does_not_move_the_watermark",),
    ),
    Mutant(
        name="clock-jump-ignored",
        rule="where the clock was set while nobody watched, everything is compared",
        file="shardsync/watch/ledger.py",
        edits=(("_CLOCK_JUMP_US = 2_000_000", "_CLOCK_JUMP_US = 1 << 62"),),
        tests=(f"{_RULES}::test_a_clock_that_jumped_while_down_leads_to_a_comparison",),
    ),
    Mutant(
        name="power-cut-ignored",
        rule="after a boot without a clean stop everything is compared",
        file="shardsync/watch/ledger.py",
        edits=(
            (
                (
                    'return "" if progress.clean_stop else "the machine went down without a clean'
                    ' stop"'
                ),
                'return ""',
            ),
        ),
        tests=(f"{_RULES}::test_a_boot_without_a_clean_stop_leads_to_a_comparison",),
    ),
    Mutant(
        name="listings-told-first",
        rule="a scan tells what may have gone after all that came",
        file="shardsync/watch/judging.py",
        edits=(
            (
                "        self._listings[path] = None\n",
                "        self._listings[path] = None\n        self.tell_listings()\n",
            ),
        ),
        tests=(f"{_CATCHING_UP}::test_what_may_have_gone_is_told_after_all_that_came",),
    ),
    Mutant(
        name="dirs-ignored",
        rule="a directory that came from elsewhere while nobody looked is journaled whole",
        file="shardsync/watch/judging.py",
        edits=(
            (
                (
                    "        before = self._memory.directory(rule.sub_root, found.st_ino)\n"
                    "        if before == row[2:]:\n"
                ),
                "        before = None\n        if not before:\n",
            ),
        ),
        tests=(f"{_CATCHING_UP}::test_a_restart_finds_exactly_what_changed_meanwhile",),
    ),
    Mutant(
        name="gone-remembered",
        rule="a directory that a pass did not come across is forgotten, and journaled whole",
        file="shardsync/watch/catching_up.py",
        edits=(("            self._forgetting.begin()\n", "            pass\n"),),
        tests=(f"{_CATCHING_UP}::test_a_directory_that_went_while_down_is_journaled_whole",),
    ),
    Mutant(
        name="flush-during-a-scan",
        rule="a flush is not acknowledged while a scan is open",
        file="shardsync/watch/committing.py",
        edits=(
            (
                "        settled = self._standing.is_settled\n",
                "        settled = lambda: True\n",
            ),
        ),
        tests=(f"{_CATCHING_UP}::test_a_flush_waits_for_an_open_scan",),
    ),
    Mutant(
        name="flush-before-open-files",
        rule="nor before files that are still written are journaled as they are now",
        file="shardsync/watch/committing.py",
        edits=(
            (
                "        self.gather_pending()\n        return list(self._cookies.flushes)\n",
                "        return list(self._cookies.flushes)\n",
            ),
        ),
        tests=(
            (
                "tests/integration/test_watch_following.py"
                "::test_a_flush_is_answered_after_all_that_came_before"
            ),
        ),
    ),
    Mutant(
        name="lost-root-scanned",
        rule="a root that is missing halts the Shard: nothing below it is journaled as gone",
        file="shardsync/watch/root.py",
        edits=(
            (
                '        if found is None:\n            return f"root',
                '        if found is None:\n            return "" and f"root',
            ),
        ),
        tests=(f"{_CATCHING_UP}::test_a_lost_root_halts_and_its_return_is_caught_up_with",),
    ),
)
