"""A real Prometheus for tests, on loopback, with its data in a temporary folder."""

from __future__ import annotations

import json
import math
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.nodes import end_group, free_port


class Prometheus:
    """Runs `binary` with `config` while it is entered; only this one process is ended."""

    def __init__(self, *, binary: str, config: Path, folder: Path) -> None:
        self.port = free_port()
        self._binary = binary
        self._config = config
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with open(self._folder / "prometheus.log", "wb") as log:
            self._process = subprocess.Popen(
                [
                    self._binary,
                    f"--config.file={self._config}",
                    f"--storage.tsdb.path={self._folder / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            end_group(self._process)
            self._process = None

    def values(self, expression: str) -> list[float]:
        """What an instant query gives now; NaN, which Grafana draws as nothing, left out."""
        found = self._get("query", query=expression)["result"]
        values = [float(series["value"][1]) for series in found]
        return [value for value in values if not math.isnan(value)]

    def label_values(self, label: str, selector: str) -> list[str]:
        """The values of a label among the series that the selector takes."""
        found: list[str] = self._get(f"label/{label}/values", **{"match[]": selector})
        return found

    def rule_health(self) -> dict[str, str]:
        """Alert -> "ok", or what else Prometheus says of its evaluation."""
        groups = self._get("rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    def alerts(self) -> set[str]:
        """The alerts whose expression holds, whether long enough yet or not."""
        return {alert["labels"]["alertname"] for alert in self._get("alerts")["alerts"]}

    def _get(self, what: str, **query: str) -> Any:  # noqa: ANN401 (JSON of many shapes)
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]
