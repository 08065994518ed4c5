"""`python driver.py SUITE.json run ...`: the command line on a suite that does not lie in benchmark/."""

import sys
from pathlib import Path

import clbench.suite

suite = clbench.suite.Suite.model_validate_json(Path(sys.argv.pop(1)).read_text())
clbench.suite.load_suite = lambda name: suite
clbench.suite.suite_folder = lambda name: Path()

import clbench.cli  # noqa: E402

sys.argv[0] = "clbench"
clbench.cli.main()
