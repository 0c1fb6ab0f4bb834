"""Kernel to Journal: inotify events and scans of one Shard become committed Changes."""
