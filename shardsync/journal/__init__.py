"""What lies between watching and shipping: Plan, Journals, Cursors and requests, all on disk."""
