"""`tools/soak`: a tree under churn and faults, Nodes that must come to hold the same."""
