"""Grafana's dashboard as a program: `tools/dashboards` writes what this makes."""
