"""What a GPU's noise is, and what `--deterministic` costs: `python perf/determinism.py [--suite S] [--repeats N]`.

One sequence, as often as asked, by turns as it is and deterministically, each time from nothing. The noise floor is
the greatest difference that any score shows between two repeats; the cost is the ratio of the times for training and
scoring (the result's own, so that starting processes and loading models do not count). On a CPU both are nothing by
construction.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from itertools import combinations
from typing import Any

import numpy as np

from clbench.runner import harness


def once(deterministic: bool, **options: Any) -> tuple[np.ndarray, float]:
    """All scores of a sequence, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        result = harness.run("merge_init", quick=True, workers=1, output=folder, deterministic=deterministic, **options)
    (run,) = result.runs
    scores = np.stack([run.matrix(metric) for metric in run.scores])
    return scores[~np.isnan(scores)], run.train_seconds + run.eval_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="mini-v2")
    parser.add_argument("--track", default="styles")
    parser.add_argument("--device", default=None)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    options = {"suite": arguments.suite, "track": arguments.track, "device": arguments.device}
    scores: dict[bool, list[np.ndarray]] = {False: [], True: []}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(arguments.repeats):
        for deterministic in (False, True):
            found, took = once(deterministic, **options)
            scores[deterministic].append(found)
            seconds[deterministic].append(took)
            print(f"deterministic: {deterministic}, {took:.1f} s", flush=True)
    for deterministic, repeats in scores.items():
        apart = max((np.abs(a - b).max() for a, b in combinations(repeats, 2)), default=0.0)
        name = "deterministic" if deterministic else "as it is"
        print(f"{name}: scores of {len(repeats)} repeats differ by at most {apart:.3g} ({repeats[0].size} scores)")
    ratios = sorted(slow / fast for slow, fast in zip(seconds[True], seconds[False], strict=True))
    spread = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    print(f"deterministic takes {statistics.median(ratios):.3f} times as long (median of {spread})")


if __name__ == "__main__":
    main()
