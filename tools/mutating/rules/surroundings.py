"""Who may run, who is believed, and what is printed."""

from __future__ import annotations

from tools.mutating.mutant import Mutant

_LOCKS = "tests/integration/test_locks.py"
_NEIGHBOURS = "tests/fault/test_hostile_neighbours.py"

MUTANTS = (
    Mutant(
        name="lock-not-taken",
        rule="one instance of each program: a second one is refused",
        file="shardsync/journal/locks.py",
        edits=(("            _lock(descriptor, path)\n", ""),),
        tests=(f"{_LOCKS}::test_a_second_process_is_refused_and_told_by_whom",),
    ),
    Mutant(
        name="root-not-locked",
        rule="one instance on a Tree's root, by whatever path",
        file="shardsync/control/rootlock.py",
        edits=(("            for name in _names(root):\n", "            for name in ():\n"),),
        tests=(
            f"{_LOCKS}::test_the_root_is_one_by_whatever_path",
            "tests/integration/test_supervisord.py::test_a_root_has_one_instance",
        ),
    ),
    Mutant(
        name="settings-of-strangers",
        rule="root believes no settings that others may write",
        file="shardsync/config/trust.py",
        edits=(("            _refuse_strangers(found, file)\n", "            pass\n"),),
        tests=(f"{_NEIGHBOURS}::test_root_believes_no_settings_that_others_may_write",),
    ),
    Mutant(
        name="state-of-strangers",
        rule="nothing in the state directory that belongs to another user is touched",
        file="shardsync/private.py",
        edits=(
            (
                "    if found.st_uid in allowed:\n        return\n",
                "    if allowed:\n        return\n",
            ),
        ),
        tests=(f"{_NEIGHBOURS}::test_what_belongs_to_another_user_is_not_touched",),
    ),
    Mutant(
        name="open-state",
        rule="the state directory lets nobody else in",
        file="shardsync/private.py",
        edits=(("            os.fchmod(descriptor, FOLDER_MODE)\n", "            pass\n"),),
        tests=(f"{_NEIGHBOURS}::test_an_open_state_directory_is_closed",),
    ),
    Mutant(
        name="control-bytes-in-logs",
        rule="no name puts a control byte into a log",
        file="shardsync/log.py",
        edits=(
            (
                "        text = printable(value)\n",
                "        text = value.decode(errors='replace')\n",
            ),
            ("        text = printable_text(str(value))\n", "        text = str(value)\n"),
        ),
        tests=("tests/fault/test_hostile_names.py::test_no_name_forges_a_log_line",),
    ),
    Mutant(
        name="names-that-climb",
        rule="a path that a Node names never leaves the tree",
        file="shardsync/ship/messages.py",
        edits=(
            (
                "    if path and not is_clean(path):\n        # A Node names",
                "    if False:\n        # A Node names",
            ),
        ),
        tests=(
            (
                "tests/fault/test_hostile_node.py"
                "::test_a_path_that_a_node_names_never_leaves_the_tree"
            ),
        ),
    ),
)
