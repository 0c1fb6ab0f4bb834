"""What operators look at: status, trace, metrics. Read-only throughout."""
