"""The faults that shardsync must survive: each row says what is done to it and what must be seen.

`@pytest.mark.fault("name", ...)` puts a test under the rows that it holds.
tests/docs/test_faults.py fails for a row without a test and for a marker that
names no row; the table in docs/guarantees.md is made from both (tools/faults).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row. `lacks` tells what of it no test holds, and why."""

    name: str
    what: str
    injected: str
    seen: str
    lacks: str = ""


PROCESSES = (
    Fault(
        name="watcher-killed",
        what="a Watcher is killed",
        injected="SIGKILL in a scan, in a catch-up, with events read and events unread",
        seen="the next one scans for what the killed one did not say; nothing is missed",
    ),
    Fault(
        name="sync-killed",
        what="the sync process is killed",
        injected="SIGKILL with an rsync waiting, in the midst of a file, and after rsync "
        "before the Cursor",
        seen="the Batch is shipped again, no rsync of ours lives on, nothing of ours is left",
    ),
    Fault(
        name="recovery-killed",
        what="a program is killed while it recovers from being killed",
        injected="SIGKILL in a catch-up, a bootstrap, a re-plan",
        seen="the third one ends where the second would have",
    ),
    Fault(
        name="coordinator-killed",
        what="the Coordinator is killed",
        injected="an end at every step of a re-plan in turn",
        seen="the next one comes to the same Plan, with all its slots running",
    ),
    Fault(
        name="supervisord-killed",
        what="supervisord is killed",
        injected="SIGKILL of supervisord alone",
        seen="what it started lives on and keeps its locks; `up` ends it and starts anew",
    ),
    Fault(
        name="second-instance",
        what="the same is started twice",
        injected="a second `up`, Watcher, mirror, or instance on the same root",
        seen="the second is refused and told by whom; it writes nothing",
    ),
    Fault(
        name="watcher-stopped",
        what="a Watcher stands still while the tree changes",
        injected="SIGSTOP of it, and more changes than its queue holds",
        seen="an overflow, a scan, no Change missed",
    ),
    Fault(
        name="sync-stopped",
        what="the sync process stands still for longer than the Journals are kept",
        injected="SIGSTOP of it, and Changes pruned beyond its Cursors",
        seen="the Nodes are compared, and then are what the tree is",
    ),
    Fault(
        name="out-of-memory",
        what="the kernel kills a program for want of memory",
        injected="a memory cgroup that gives it no page more",
        seen="started again, it catches up",
    ),
    Fault(
        name="descriptors-short",
        what="no file descriptor is to be had",
        injected="RLIMIT_NOFILE, so that the n-th opening fails, n from 0 on",
        seen="waited out; no Change missed, no path taken for missing, no descriptor leaked",
    ),
    Fault(
        name="reload-wrong",
        what="the settings are wrong when they are read again",
        injected="a file with an error, `reload` and SIGHUP",
        seen="the error by key and remedy; all programs go on with what they had",
    ),
    Fault(
        name="flush-cut-off",
        what="programs end while a flush waits",
        injected="SIGKILL of a Watcher and of the sync process during `flush`",
        seen="flush waits for their return and is answered once all is on the Nodes",
    ),
)

WATCHING = (
    Fault(
        name="queue-overflow",
        what="the kernel's queue of events overflows",
        injected="a small queue and four processes that write without a pause",
        seen="a scan, a count of it, no Change missed",
    ),
    Fault(
        name="watches-short",
        what="there are too few inotify watches",
        injected="`max_inotify_watches` of a user namespace",
        seen="the rest is polled, status says so; healed when the limit is raised",
    ),
    Fault(
        name="instances-short",
        what="there is no inotify instance to be had",
        injected="`max_inotify_instances` of a user namespace",
        seen="the Watcher stays up, names the limit and begins once it is raised",
    ),
    Fault(
        name="fresh-directories",
        what="directories are made faster than they can be watched",
        injected="`mkdir -p` of several levels and a file below, before any event is read",
        seen="watched first, then listed: the file is journaled",
    ),
    Fault(
        name="removed-made-again",
        what="a subtree is removed and made again under its name",
        injected="rmtree and mkdir before any event is read, a write later",
        seen="the newcomer is watched",
    ),
    Fault(
        name="renamed-twice",
        what="a directory is renamed again before the first rename is read",
        injected="two renames in one read, a write below in between",
        seen="the write is told under the newest name",
    ),
    Fault(
        name="renamed-on",
        what="a directory is renamed again while its first rename is shipped",
        injected="a rename just before rsync starts, told a moment later",
        seen="all is listed anew, the old name is kept until then: no data is sent",
    ),
    Fault(
        name="renamed-across-shards",
        what="a rename leads from one Shard into another",
        injected="two Watchers that see half of it each",
        seen="each journals its half; on the Node nothing is lost and nothing stays",
    ),
    Fault(
        name="moved-out",
        what="a directory is moved out of the tree",
        injected="rename to a folder outside, writes in it there",
        seen="deleted on the Nodes, watched no more",
    ),
    Fault(
        name="names-swapped",
        what="directories take each other's names",
        injected="three renames in one read",
        seen="each path is that of the right inode",
    ),
    Fault(
        name="rename-storm",
        what="names change faster than anybody can look",
        injected="10,000 renames of files and directories, exchanges among them (renameat2)",
        seen="in the end each name has what it should, on the Nodes, too",
    ),
    Fault(
        name="mapped",
        what="a file is written through a mapping",
        injected="mmap(2), a write, no unmap",
        seen="the kernel tells nobody: a reconcile or the audit finds it",
    ),
    Fault(
        name="written-outside",
        what="a file is written under a name outside the tree",
        injected="link(2) to a folder outside, a write there",
        seen="as a mapping: a reconcile or the audit finds it",
    ),
    Fault(
        name="linked-in",
        what="a file comes in with no close to tell of it",
        injected="link(2), O_TMPFILE and linkat(2)",
        seen="journaled at once, shipped under each of its names",
    ),
    Fault(
        name="held-open",
        what="a file is appended to and never closed",
        injected="an open descriptor and writes",
        seen="on its way after `max_open` at the latest",
    ),
    Fault(
        name="truncated",
        what="a file is changed without being opened for writing",
        injected="truncate(2), fallocate(2)",
        seen="journaled",
    ),
    Fault(
        name="attributes",
        what="mode or times alone change",
        injected="chmod, utime",
        seen="on the Nodes, without the data being sent",
    ),
    Fault(
        name="clock-set",
        what="the clock is set while things change",
        injected="clocks that are set back and forth, live and while down",
        seen="Positions only grow; the Watermark follows; what two clocks stamped is compared",
    ),
    Fault(
        name="power-cut",
        what="the power goes",
        injected="another boot id without the mark of a clean stop; a Journal rolled back",
        seen="the tree may have rolled back: a comparison; no new Change behind an old Cursor",
        lacks="writes that were never synced are not really dropped: that takes a file system "
        "that forgets them, and none is to be had where the tests run",
    ),
)

TREE = (
    Fault(
        name="root-unmounted",
        what="the root, or a mount below it, goes away",
        injected="umount of a file system that holds it",
        seen="halted in clear words, nothing is deleted, all goes on once it is back",
    ),
    Fault(
        name="root-covered",
        what="the root is there and is another, or empty",
        injected="umount -l with a file open, a mount over it, an empty folder, a symlink",
        seen="as above, though no event tells of it",
    ),
    Fault(
        name="disk-sick",
        what="the disk answers with errors",
        injected="a FUSE file system that answers EIO, EACCES, ESTALE",
        seen="only ENOENT means gone: nothing is deleted, the path is tried again",
    ),
    Fault(
        name="source-closed",
        what="a directory cannot be read",
        injected="chmod 000, as an ordinary user",
        seen="it alone waits, the rest is shipped, nothing below it is deleted",
    ),
    Fault(
        name="odd-names",
        what="names are hostile",
        injected="`#a`, `-rf`, newlines, escape sequences, bytes that are no UTF-8, 255 bytes",
        seen="shipped, rewritten, deleted as any other",
    ),
    Fault(
        name="path-too-long",
        what="a path is longer than the kernel takes",
        injected="directories nested beyond 4,096 bytes",
        seen="seen name by name, never taken for missing; it alone fails",
    ),
    Fault(
        name="types-change",
        what="files, directories and symlinks replace each other",
        injected="each by each other, with pending Changes below",
        seen="the Node has what the tree has; a symlink is never followed",
    ),
    Fault(
        name="specials",
        what="the tree holds what is no file",
        injected="a fifo, a socket, a device, symlinks that lead to each other",
        seen="nobody hangs on them; the Nodes have them",
    ),
    Fault(
        name="hard-links",
        what="a file has several names",
        injected="writes through one of them",
        seen="all names inside the tree have the bytes; they are separate files on the Node",
    ),
    Fault(
        name="same-size-same-time",
        what="a file has other bytes under the size and time it had",
        injected="a rewrite with the mtime put back",
        seen="sent, as an event told of it; a comparison finds it by checksum alone",
    ),
    Fault(
        name="source-vanishes",
        what="files go, shrink and grow while they are sent",
        injected="churn under a running rsync",
        seen="no error, no path left waiting, the Node identical in the end",
    ),
)

NODES = (
    Fault(
        name="node-down",
        what="a Node is down",
        injected="rsync daemon and sshd ended, before and in the midst of transfers",
        seen="it backs off, the others are as quick as before; back, it gets all it missed",
    ),
    Fault(
        name="target-replaced",
        what="the folder of a Node that is followed is lost, with no outage",
        injected="moved away, removed and made anew, emptied, in part; local, daemon, ssh",
        seen="looked at as after an outage and filled, and a flush waits for that; one that was"
        " emptied where it stands, while nothing changes in its folders, within ten minutes",
    ),
    Fault(
        name="node-stalls",
        what="a Node takes the connection and says nothing",
        injected="SIGSTOP of its rsync daemon",
        seen="ended at our own deadline; its slot is lent to the others meanwhile",
    ),
    Fault(
        name="ssh-connection-lost",
        what="the ssh connection that a Node's runs share is lost",
        injected="SIGKILL, SIGSTOP, its socket removed, while Batches flow",
        seen="a new one takes over; all arrives, and the Node never counts as down",
    ),
    Fault(
        name="partition",
        what="the network is cut in the midst of a file",
        injected="a network namespace and nft rules that drop all",
        seen="the Node backs off, the others go on; mended, it catches up",
    ),
    Fault(
        name="node-killed",
        what="the Node's rsync is killed in the midst of a file",
        injected="SIGKILL of the daemon and its connections",
        seen="the temporary file that it leaves is swept, a user's file of that form is not",
    ),
    Fault(
        name="node-full",
        what="a Node's disk is full",
        injected="a tmpfs of 256 kB",
        seen="it says so, nothing counts as shipped, it alone waits and goes on by itself",
    ),
    Fault(
        name="node-closed",
        what="a part of a Node cannot be written",
        injected="another owner's directory; an immutable file (chattr +i)",
        seen="its paths alone wait",
    ),
    Fault(
        name="node-rsync-old",
        what="a Node's rsync dies of how deletions are told to it",
        injected="Debian 12's first rsync 3.2.7; rrsync",
        seen="found out by a probe without harm; deletions go by filters",
    ),
    Fault(
        name="node-edited",
        what="somebody edits, empties or restores a Node",
        injected="rm, edits and an old copy on the Node",
        seen="noticed on reconnect, at a start or by the audit, and made right",
    ),
    Fault(
        name="node-babbles",
        what="a Node never stops talking",
        injected="endless output in place of rsync's",
        seen="ended, in little memory; no effect is believed",
    ),
)

STATE = (
    Fault(
        name="state-full",
        what="the disk of the state is full",
        injected="a small file system filled to the last byte; refused writes for long",
        seen="what cannot be journaled is kept, then scanned for; status says why; it goes on "
        "by itself once there is room",
    ),
    Fault(
        name="state-read-only",
        what="the disk of the state becomes read-only",
        injected="a remount of the file system, and back",
        seen="nothing ends, nothing is sent that could not be recorded, it goes on by itself",
    ),
    Fault(
        name="logs-full",
        what="the disk of the logs is full",
        injected="a file system of their own, filled to the last byte",
        seen="the logs have a gap, nothing else",
    ),
    Fault(
        name="journal-corrupt",
        what="a Journal or state.db is damaged",
        injected="pages overwritten, while down and in use, found by writer or reader",
        seen="set aside, never deleted; made anew, and the Nodes are compared",
    ),
    Fault(
        name="journal-unlinked",
        what="a Journal is deleted under its writer",
        injected="unlink of the open file",
        seen="noticed by its inode; a new one with another id, which the Nodes answer by a "
        "reconcile",
    ),
    Fault(
        name="behind-retention",
        what="a Node was away for longer than the Journals are kept",
        injected="Changes pruned beyond a Cursor",
        seen="never skipped in silence: it says behind_retention until it was compared",
    ),
    Fault(
        name="old-copy-of-state",
        what="somebody puts back an old copy of state.db or of a Journal",
        injected="the file of before, while all is down",
        seen="what it does not know is shipped or scanned for again; no Change is hidden",
    ),
    Fault(
        name="state-lost",
        what="state.db is lost",
        injected="the file removed while all is down",
        seen="all is compared; nothing foreign is deleted unasked",
    ),
    Fault(
        name="reader-stuck",
        what="somebody reads a Journal and never ends",
        injected="a read transaction left open while 64 MB are written",
        seen="our own readers never do; the log that grew meanwhile is small again afterwards",
        lacks="while another program's transaction is open the write-ahead log grows with the "
        "Changes: SQLite cannot bound it, and shardsync ends no foreign process",
    ),
    Fault(
        name="foreign-reader",
        what="another user looks at the state",
        injected="another uid and a directory that is ours alone",
        seen="told as such, never as down",
    ),
)

SURROUNDINGS = (
    Fault(
        name="slow-scrapes",
        what="whoever reads /metrics is slow, or never ends its request",
        injected="200 clients with a byte now and then; headers of megabytes",
        seen="cut off in time, in bounded memory; Prometheus is answered meanwhile",
    ),
    Fault(
        name="callback-hangs",
        what="a callback never ends",
        injected="a program that sleeps",
        seen="nothing else waits for it",
        lacks="callbacks cannot be run yet: their settings are known, and nothing more",
    ),
)

GROUPS: dict[str, tuple[Fault, ...]] = {
    "Programs": PROCESSES,
    "Watching": WATCHING,
    "The tree": TREE,
    "Nodes": NODES,
    "State": STATE,
    "Surroundings": SURROUNDINGS,
}
