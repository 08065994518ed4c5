"""A package that somebody else wrote and pip installed registers a method, which runs as the project's own do."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

from clbench.results.io import load_result

MODULE = '''"""A method outside of clbench."""

from clbench import Method


class Halved(Method):
    """Merge half of what each task trained."""

    name = "halved"

    def end_task(self, ctx, state, adapter):
        return state.with_merged(state.merged + 0.5 * adapter.delta())
'''
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: their-methods\nVersion: 1.2\n",
    "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "entry_points.txt": "[clbench.methods]\nhalved = their_methods:Halved\n",
}


def write_wheel(folder: Path) -> Path:
    path, info = folder / "their_methods-1.2-py3-none-any.whl", "their_methods-1.2.dist-info"
    files = {"their_methods.py": MODULE, **{f"{info}/{name}": text for name, text in METADATA.items()}}
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD")))
    return path


@pytest.fixture
def environment(tmp_path) -> Path:
    """The interpreter of a new environment, which has clbench and what it needs, and the package."""
    pytest.importorskip("pip")
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "clbench.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    install = ["install", "--quiet", "--no-index", "--no-deps", str(write_wheel(tmp_path))]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    return python


@pytest.mark.long
def test_a_pip_installed_package_registers_a_method_that_runs_in_a_fresh_environment(
    environment, mock_folder, tmp_path
):
    def clbench(*words: str) -> str:
        command = [str(environment), "-c", "from clbench.cli import main; main()", *words]
        given = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "halved" in clbench("list", "methods")
    options = ["--track", "styles", "--suite", mock_folder, "--quick", "--device", "cpu", "--workers", "1"]
    clbench("run", "--method", "halved", *options, "--output", "runs")
    [path] = (tmp_path / "runs").glob("*/styles/halved*.json")
    method = load_result(path).method
    assert (method.name, method.distribution) == ("halved", "their-methods 1.2")
