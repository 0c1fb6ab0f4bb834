"""Journal to Node: pending Changes are folded into Batches and handed to rsync."""
