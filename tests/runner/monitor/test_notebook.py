"""A run in a notebook."""

import sys

import pytest
from commands import execute

pytest.importorskip("IPython")

TWO_RUNS = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
import clbench

def run(output):
    print(output, file=sys.stderr)
    clbench.run("naive", "styles", {suite!r}, quick=True, device="cpu", workers=1, output=output)

run("elsewhere")
config = Config()
config.IPKernelApp.parent_appname = "notebook"  # as a kernel's shell has it
InteractiveShell.instance(config=config)
run("in a notebook")
"""


@pytest.mark.long
def test_a_run_tells_its_progress_in_a_notebook_and_nothing_elsewhere(mock_folder, tmp_path):
    done = execute(sys.executable, "-c", TWO_RUNS.format(suite=mock_folder), cwd=tmp_path)
    elsewhere, notebook = done.stderr.split("in a notebook")
    assert elsewhere == "elsewhere\n"
    assert "100%, done after" in notebook
