"""Where the time of a run goes: `python perf/where_time_goes.py [--method merge_init] [--track styles]`.

Times the phases of one sequence (one order, one seed) in a fresh store, seen from the scoring process: shares of one
run, which hold on any machine better than seconds do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

BEGAN = time.perf_counter()

from clbench.protocol import task_sequence, track_runtime  # noqa: E402
from clbench.protocol.evaluator import Evaluator  # noqa: E402
from clbench.runner import harness  # noqa: E402

spent: dict[str, float] = defaultdict(float)


def timed(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[phase] += time.perf_counter() - began

    return wrapper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="merge_init")
    parser.add_argument("--track", default="styles")
    arguments = parser.parse_args()
    spent["import torch and the libraries"] = time.perf_counter() - BEGAN
    train = timed("train, in processes of their own", task_sequence.TaskSequence._train)
    task_sequence.TaskSequence._train = train  # type: ignore[method-assign]
    track_runtime.draw_cell = timed("sample", track_runtime.draw_cell)
    Evaluator.score = timed("encode and score", Evaluator.score)
    Evaluator.controls = timed("controls (once a track; encoding within)", Evaluator.controls)
    track_runtime.Backbone.load = timed("load the pipeline", track_runtime.Backbone.load)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        harness.run(arguments.method, arguments.track, quick=True, workers=1, output=Path(folder))
    total = time.perf_counter() - BEGAN
    controls = spent["controls (once a track; encoding within)"]
    rest = total - sum(spent.values()) + min(controls, spent["encode and score"])
    rows = [(phase, seconds, 100 * seconds / total) for phase, seconds in spent.items()]
    print(
        tabulate(
            [*rows, ("rest", rest, 100 * rest / total), ("whole", total, 100.0)], ["phase", "s", "%"], floatfmt=".1f"
        )
    )


if __name__ == "__main__":
    main()
