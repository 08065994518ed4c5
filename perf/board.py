"""A thousand submissions: how long they take to validate, and to become tables and the site: `python perf/board.py`."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clbench.leaderboard import make_boards, read_submissions, write_tables
from clbench.leaderboard.site import build_site
from clbench.results.io import load_result, save_result
from clbench.results.schema import Result, content_sha256, to_rows
from clbench.results.summary import summarize
from clbench.results.validation import check_files, known_suite
from clbench.suite import content_root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    count = parser.parse_args().count
    template = load_result(content_root() / "submissions" / "mini-v2" / "styles" / "naive.json")
    with tempfile.TemporaryDirectory() as folder:
        submissions = Path(folder) / "submissions"
        paths = [submissions / "mini-v2" / "styles" / f"method-{number:04d}.json" for number in range(count)]
        for number, path in enumerate(paths):
            save_result(varied(template, number), path)
        wrong = timed(f"validate {count} files", lambda: [found for found in check_files(paths) if found])
        assert not wrong, wrong[:1]
        boards = timed("read them", lambda: make_boards(read_submissions(submissions)))
        timed("build the tables", lambda: write_tables(boards, Path(folder) / "leaderboard"))
        timed("build the site", lambda: build_site(boards, Path(folder) / "site"))


def varied(template: Result, number: int) -> Result:
    """Another method's result: every score of a trained model moved, too far for a copy."""
    source = np.random.default_rng(number)
    runs = []
    for run in template.runs:
        level, scores = source.normal(0, 0.05), {}
        for metric, rows in run.scores.items():
            matrix = run.matrix(metric)[1:]
            moved = matrix + level + source.normal(0, 0.05, matrix.shape)
            scores[metric] = (rows[0], *to_rows(np.clip(moved, -1, 1)))
        runs.append(run.model_copy(update={"scores": scores}))
    method = template.method.model_copy(update={"name": f"method-{number:04d}"})
    track = known_suite(template.suite.name).track(template.track)
    update = {
        "variant": method.name,
        "method": method,
        "runs": tuple(runs),
        "summary": summarize(runs, template.controls, track),
        "checksum": content_sha256(template.suite, template.track, method.name, method, runs, template.controls),
    }
    return template.model_copy(update=update)


def timed(what: str, work: Callable[[], Any]) -> Any:
    began, used = time.perf_counter(), processor_seconds()
    done = work()
    print(f"{what}: {time.perf_counter() - began:.1f} s, of processors {processor_seconds() - used:.1f} s", flush=True)
    return done


def processor_seconds() -> float:
    """What this process and those that it has waited for have used."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
