"""What leak, drift and forward transfer add to a run: `python perf/probes.py --repeat 3`.

One quick run of naive on each track, with what the suite measures beside the scores and without it, in turn; each with
a store of its own, so that nothing is found there. Prints the ratio of the fastest times.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from clbench.suite import content_root, suite_folder

MEASURED = ("score_next_task", "leak_prompt_templates", "drift")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="mini-v2")
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        without = bare_copy(chosen.suite, Path(folder) / "bare")
        for track in ("styles", "objects"):
            times: dict[str, list[float]] = {"with": [], "without": []}
            for number in range(chosen.repeat):
                for name, suite in (("with", chosen.suite), ("without", str(without))):
                    output = Path(folder) / f"{track}-{name}-{number}"
                    times[name].append(timed(suite, track, output))
            ratio = min(times["with"]) / min(times["without"])
            print(f"{track}: {100 * (ratio - 1):+.1f} % ({min(times['with']):.1f} s, {min(times['without']):.1f} s)")


def bare_copy(suite: str, folder: Path) -> Path:
    """The definition without what is measured beside the scores."""
    raw = yaml.safe_load((suite_folder(suite) / "suite.yaml").read_text())
    for track in raw["tracks"].values():
        for name in MEASURED:
            track.pop(name, None)
        tasks = suite_folder(suite) / track["tasks"]
        source = tasks if tasks.is_file() else content_root() / "tasks" / track["tasks"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / track["tasks"]).write_text(source.read_text())
    (folder / "suite.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return folder


def timed(suite: str, track: str, output: Path) -> float:
    """Seconds of one quick run."""
    clbench = Path(sys.executable).with_name("clbench")
    command = [str(clbench), "run", "--method", "naive", "--track", track, "--quick"]
    command += ["--suite", suite, "--output", str(output), "--no-check", "--tracker", "none"]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
