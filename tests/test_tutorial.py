"""`docs/tutorial.ipynb`: committed without outputs, its method is what it says, and all its cells run."""

from __future__ import annotations

import json
import shlex

import pytest
from following import TRAINED, context, same
from paths import ROOT
from typer.main import get_command

from clbench.cli import app
from clbench.method import REGISTRY
from clbench.plugins import get_method, list_methods
from clbench.state import State

PATH = ROOT / "docs" / "tutorial.ipynb"
CELLS = [(cell, "".join(cell["source"])) for cell in json.loads(PATH.read_text())["cells"]]
CODE = [(cell, text) for cell, text in CELLS if cell["cell_type"] == "code"]


@pytest.fixture
def shrink(tmp_path):
    """The file that the notebook writes."""
    [text] = [text for _, text in CODE if text.startswith("%%writefile shrink.py\n")]
    before = dict(list_methods())
    path = tmp_path / "shrink.py"
    path.write_text(text.partition("\n")[2])
    yield path
    REGISTRY.clear()
    REGISTRY.update(before)


def test_the_notebook_has_no_outputs_and_begins_with_its_parameters():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell, _ in CODE)
    cell, text = CODE[0]
    assert cell["metadata"] == {"tags": ["parameters"]}
    known: dict[str, object] = {}
    exec(text, {}, known)
    assert known == {"suite": "mini-v2-dev", "work": "tutorial", "quick": True, "all_runs": False}


def test_its_method_shrinks_the_old_change_before_it_adds_the_new_one(shrink):
    first, second = TRAINED[:2]
    for keep in (0.5, 1.0):
        method = get_method("shrink", {"keep": keep}, [shrink])
        state = method.end_task(context(0), State(), first)
        state = method.end_task(context(1), state, second)
        assert same(state.merged, keep * first.delta() + second.delta())


def test_every_command_in_it_has_the_options_that_it_is_given():
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = "\n".join(text for cell, text in CODE).replace("\\\n", " ")
    lines = [shlex.split(line[line.index("clbench ") :]) for line in text.splitlines() if "clbench " in line]
    lines = [words for words in lines if words[1] in commands]
    assert {words[1] for words in lines} >= {"new-method", "check", "sweep", "compare", "samples", "validate", "submit"}
    for words in lines:
        options = {name for parameter in commands[words[1]].params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.long
def test_all_its_cells_run_on_a_small_suite(mock_folder, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    [place] = [number for number, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(f"suite = {mock_folder!r}"))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources).execute()
    made = tmp_path / "tutorial"
    assert {path.stem for path in (made / "runs/mock/styles").glob("*.json")} == {
        "shrink.partial",
        "merge_init.partial",
        "naive.partial",
    }
    assert (made / "grids/mock/styles/shrink.png").is_file()
    # IPython reads a command's output in pieces of 100 bytes, and what comes between two pieces of stdout divides them.
    printed = "".join(
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert "shrink: passes: its own end_task" in printed
    assert "shrink against naive on styles, 1 shared run" in printed
    assert not (made / "submissions").exists()
