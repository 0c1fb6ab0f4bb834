"""The mutation check: each safety rule is taken out of a copy, where its tests must fail."""
