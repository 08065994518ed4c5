"""A run in a notebook."""

import sys

import pytest
from commands import execute

pytest.importorskip("IPython")

KERNEL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

config = Config()
config.IPKernelApp.parent_appname = "notebook"  # as a kernel's shell has it
shell = InteractiveShell.instance(config=config) if {notebook} else None
import clbench

clbench.run("naive", "styles", {suite!r}, quick=True, device="cpu", workers=1, output={output!r})
"""


@pytest.mark.parametrize("notebook", [True, False])
def test_a_run_tells_its_progress_in_a_notebook_and_nothing_elsewhere(notebook, mock_folder, tmp_path):
    code = KERNEL.format(notebook=notebook, suite=mock_folder, output=str(tmp_path))
    done = execute(sys.executable, "-c", code)
    assert ("100%, done after" in done.stderr) == notebook
