"""Writes the dashboard to grafana/dashboards/. Run by `tools/dashboards`."""

from __future__ import annotations

from pathlib import Path

from tools.grafana.dashboard import dashboard_json

FILE = Path(__file__).resolve().parents[2] / "grafana/dashboards/shardsync.json"


if __name__ == "__main__":
    FILE.write_text(dashboard_json(), encoding="utf-8")
    print(f"wrote {FILE}")
