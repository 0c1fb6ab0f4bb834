"""Measurements beside peers; `tools/bench` runs them."""
