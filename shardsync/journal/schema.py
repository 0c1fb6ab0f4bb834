"""The tables of a Journal and of the state database, one constant per migration."""

from __future__ import annotations

JOURNAL_1 = """
CREATE TABLE meta (
    journal_id TEXT NOT NULL, shard TEXT NOT NULL, tree TEXT NOT NULL, created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE changes (
    position INTEGER PRIMARY KEY, path BLOB NOT NULL, scope INTEGER NOT NULL,
    kind INTEGER NOT NULL, observed_at INTEGER NOT NULL, moved_from BLOB
) STRICT;
CREATE TABLE commits (position INTEGER PRIMARY KEY, at INTEGER NOT NULL) STRICT;
CREATE TABLE epochs (
    number INTEGER PRIMARY KEY, reason TEXT NOT NULL, started_at INTEGER NOT NULL,
    first_position INTEGER NOT NULL, ended_at INTEGER
) STRICT;
CREATE TABLE cookies (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE dirs (
    sub_root INTEGER NOT NULL, inode INTEGER NOT NULL, parent INTEGER NOT NULL, name BLOB NOT NULL,
    PRIMARY KEY (sub_root, inode)
) STRICT, WITHOUT ROWID;
CREATE TABLE sub_roots (
    number INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, identity TEXT NOT NULL
) STRICT;
CREATE TABLE progress (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    state TEXT NOT NULL DEFAULT 'stopped', last_error TEXT NOT NULL DEFAULT '',
    last_position INTEGER NOT NULL DEFAULT 0, pruned_to INTEGER NOT NULL DEFAULT 0,
    pruned_until_us INTEGER NOT NULL DEFAULT 0, watermark_us INTEGER,
    watches INTEGER NOT NULL DEFAULT 0, directories INTEGER NOT NULL DEFAULT 0,
    polled_directories INTEGER NOT NULL DEFAULT 0,
    overflows INTEGER NOT NULL DEFAULT 0, changes_total INTEGER NOT NULL DEFAULT 0,
    scan_done INTEGER NOT NULL DEFAULT 0, scan_total INTEGER NOT NULL DEFAULT 0,
    pid INTEGER NOT NULL DEFAULT 0, generation INTEGER NOT NULL DEFAULT 0,
    heartbeat_us INTEGER NOT NULL DEFAULT 0, clean_stop INTEGER NOT NULL DEFAULT 0,
    scanned INTEGER NOT NULL DEFAULT 0,
    boot_id TEXT NOT NULL DEFAULT '', clock_offset_us INTEGER NOT NULL DEFAULT 0,
    mounts TEXT NOT NULL DEFAULT '', settings TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO progress (only) VALUES (1);
"""

STATE_1 = """
CREATE TABLE nodes (
    tree TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, owned INTEGER,
    contacted INTEGER NOT NULL DEFAULT 0, last_success INTEGER,
    last_error TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    paused INTEGER NOT NULL DEFAULT 0, paused_until INTEGER,
    pause_setting INTEGER NOT NULL DEFAULT 0,
    window_pause INTEGER NOT NULL DEFAULT 0, halted TEXT NOT NULL DEFAULT '',
    allow_delete INTEGER NOT NULL DEFAULT 0, fingerprint TEXT NOT NULL DEFAULT '',
    capabilities TEXT NOT NULL DEFAULT '', progress REAL NOT NULL DEFAULT 0,
    foreign_paths INTEGER NOT NULL DEFAULT 0, verified_at INTEGER,
    audited_at INTEGER,
    PRIMARY KEY (tree, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE trees (
    tree TEXT PRIMARY KEY, identity TEXT NOT NULL DEFAULT '', halted TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
CREATE TABLE cursors (
    tree TEXT NOT NULL, node TEXT NOT NULL, shard TEXT NOT NULL, journal_id TEXT NOT NULL,
    position INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (tree, node, shard)
) STRICT, WITHOUT ROWID;
CREATE TABLE cursor_history (
    tree TEXT NOT NULL, node TEXT NOT NULL, shard TEXT NOT NULL, at INTEGER NOT NULL,
    journal_id TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (tree, node, shard, at)
) STRICT, WITHOUT ROWID;
CREATE TABLE batches (
    tree TEXT NOT NULL, node TEXT NOT NULL, shard TEXT NOT NULL, position INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (tree, node, shard, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE work (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tree TEXT NOT NULL, node TEXT NOT NULL,
    path BLOB NOT NULL, scope INTEGER NOT NULL, compare TEXT NOT NULL, reason TEXT NOT NULL,
    since INTEGER NOT NULL, request TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0, last_error TEXT NOT NULL DEFAULT '',
    first BLOB NOT NULL DEFAULT x'', beyond BLOB NOT NULL DEFAULT x'',
    UNIQUE (tree, node, path, scope, reason, first)
) STRICT;
CREATE TABLE rounds (
    tree TEXT NOT NULL, node TEXT NOT NULL, kind TEXT NOT NULL, began_at INTEGER NOT NULL,
    is_whole INTEGER NOT NULL, pieces INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0,
    paths INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    sent_bytes INTEGER NOT NULL DEFAULT 0, differences INTEGER NOT NULL DEFAULT 0,
    busy_us INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tree, node, kind)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit_pieces (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tree TEXT NOT NULL, node TEXT NOT NULL,
    path BLOB NOT NULL, scope INTEGER NOT NULL, first BLOB NOT NULL, beyond BLOB NOT NULL
) STRICT;
CREATE TABLE deletions (
    tree TEXT NOT NULL, node TEXT NOT NULL, at INTEGER NOT NULL, entries INTEGER NOT NULL
) STRICT;
CREATE TABLE foreign_paths (
    tree TEXT NOT NULL, node TEXT NOT NULL, path BLOB NOT NULL,
    PRIMARY KEY (tree, node, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE links (
    tree TEXT NOT NULL, path BLOB NOT NULL, device INTEGER NOT NULL, inode INTEGER NOT NULL,
    noted_at INTEGER NOT NULL, is_gone INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tree, path, device, inode)
) STRICT, WITHOUT ROWID;
CREATE INDEX links_of_file ON links (tree, device, inode);
CREATE TABLE link_searches (
    tree TEXT NOT NULL, device INTEGER NOT NULL, inode INTEGER NOT NULL, links INTEGER NOT NULL,
    PRIMARY KEY (tree, device, inode)
) STRICT, WITHOUT ROWID;
CREATE TABLE requests (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL,
    exit_code INTEGER NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sync_process (
    only INTEGER PRIMARY KEY CHECK (only = 1), pid INTEGER NOT NULL, started_at INTEGER NOT NULL,
    settings TEXT NOT NULL DEFAULT '', metrics_error TEXT NOT NULL DEFAULT ''
) STRICT;
"""
