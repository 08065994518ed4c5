"""Boards of the tiny suite with methods of every regime, and the files that are built from them."""

from __future__ import annotations

import re
from pathlib import Path

from builders import make_result, signed, tiny_suite

from clbench.leaderboard import read_submissions
from clbench.leaderboard.published import Published
from clbench.method import Family
from clbench.results.analysis import Analysis
from clbench.results.io import save_result
from clbench.results.schema import Result
from clbench.suite import Suite

SUITE = tiny_suite()
REGIMES = {"naive": "adapter", "merge_init": "model", "keeper": "growing", "steady": "constant"}
FAMILIES: dict[str, Family] = {"naive": "paper", "merge_init": "paper", "keeper": "replay"}
LEVELS = {"naive": 0.3, "merge_init": 0.6, "keeper": 0.5, "steady": 0.4}
PUBLISHED = Published.model_validate(
    {
        "source": "A paper, Tables 1 and 2",
        "tracks": {
            track: {
                "metrics": metrics,
                "rows": {
                    "base": {"average_score": {metrics[0]: (0.111, None)}, "average_forgetting": None},
                    "naive": {
                        "average_score": {metrics[0]: (0.777, 0.022)},
                        "average_forgetting": {metrics[0]: (0.333, 0.044)},
                    },
                },
            }
            for track, metrics in {"styles": ("csd", "dino"), "objects": ("clip_i", "dino")}.items()
        },
        "prompt_study": {
            "tasks": 2,
            "rows": [{"template": "{token}", "dino": (0.1, 0.2), "csd": (0.3, 0.4), "csd_per_task": (0.5, 0.6)}],
        },
    }
)


def load(name: str) -> Suite:
    return SUITE if name == "tiny" else tiny_suite(name)


def submit(result: Result, folder: Path) -> None:
    """Save a result where a board looks for it, with a checksum that fits."""
    save_result(signed(result), folder / result.suite.name / result.track / f"{result.variant}.json")


def submitted(folder: Path, methods: dict[str, str] = REGIMES) -> list[Analysis]:
    """Results on both tracks, through files and validation, as the command reads them."""
    for seed, (method, regime) in enumerate(methods.items()):
        for track in SUITE.tracks:
            result = make_result(SUITE, track, method, seed=seed, level=LEVELS[method])
            runs = tuple(run.model_copy(update={"regime": regime}) for run in result.runs)
            reference = result.method.model_copy(update={"family": FAMILIES.get(method, "")})
            submit(result.model_copy(update={"runs": runs, "method": reference}), folder)
    return read_submissions(folder, load)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(page: str, caption: str) -> str:
    return next(part for part in re.findall(r"<table.*?</table>", page, re.S) if caption in part)
