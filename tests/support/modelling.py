"""How many examples a state machine tries: few and always the same in CI, many on demand."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_VARIABLE = "SHARDSYNC_EXAMPLES"


def examples(few: int, *, steps: int) -> settings:
    """`few` in CI; with SHARDSYNC_EXAMPLES=N in the environment N, new ones in every run."""
    asked = os.environ.get(_VARIABLE, "")
    return settings(
        max_examples=int(asked or few),
        stateful_step_count=steps,
        deadline=None,
        derandomize=not asked,
        suppress_health_check=list(HealthCheck),
    )
