"""Whether this checkout gives the scores of earlier results, to the last bit: for changes that must change no score.

    python perf/same_scores.py submissions/mini-v2

Each result's first run is made again, into a folder that is thrown away. The last bits depend on the processor and the
libraries, so the results must have been made on this machine. Exits with 1 where a score differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tabulate import tabulate

from clbench.results.io import load_result
from clbench.results.schema import Result
from clbench.runner.harness import sweep


def largest_difference(before: Result, after: Result) -> float:
    """Over all cells of the run that both have, and over the controls; infinite where a definition or a gap differs."""
    again = after.runs[0]
    run = next(one for one in before.runs if (one.order, one.seed) == (again.order, again.seed))
    if before.suite != after.suite or run.task_order != again.task_order or run.state_bytes != again.state_bytes:
        return float("inf")
    pairs = [
        (old, new)
        for metric in run.scores
        for rows in zip(run.scores[metric], again.scores[metric], strict=True)
        for old, new in zip(*rows, strict=True)
    ]
    if any((old is None) != (new is None) for old, new in pairs) or before.controls != after.controls:
        return float("inf")
    return max(abs(old - new) for old, new in pairs if old is not None and new is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of <track>/<method>.json, of one suite")
    folder = parser.parse_args().results
    rows = []
    for track in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        before = {path.stem: load_result(path) for path in sorted((folder / track).glob("*.json"))}
        suite = next(iter(before.values())).suite.name
        with TemporaryDirectory() as place:
            for after in sweep(list(before), [track], suite, quick=True, output=Path(place), device="cpu"):
                rows.append([track, after.method.name, largest_difference(before[after.method.name], after)])
    print(tabulate(rows, ["track", "method", "largest difference"]))
    sys.exit(any(difference > 0 for *_, difference in rows))


if __name__ == "__main__":
    main()
