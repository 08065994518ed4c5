"""clbench: continual low-rank personalization of diffusion models, as a benchmark.

import clbench
result = clbench.run(method="merge_init", track="styles", quick=True)
print(result.summary["csd"]["average_score"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clbench.method import Method
from clbench.plugins import get_method, list_methods
from clbench.results.io import load_result
from clbench.results.schema import Result
from clbench.suite import load_suite

if TYPE_CHECKING:
    from clbench.runner.harness import run, sweep
    from clbench.runner.plugin_check import check
    from clbench.state import State

__all__ = [
    "Method",
    "Result",
    "State",
    "check",
    "get_method",
    "list_methods",
    "load_result",
    "load_suite",
    "run",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """`run`, `sweep`, `check` and `State` need torch, which the rest must not load."""
    if name in ("run", "sweep"):
        from clbench.runner import harness

        return getattr(harness, name)
    if name == "check":
        from clbench.runner.plugin_check import check

        return check
    if name == "State":
        from clbench.state import State

        return State
    raise AttributeError(f"module 'clbench' has no attribute {name!r}")
