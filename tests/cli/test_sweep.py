"""`clbench sweep` on the command line."""

import json

import pytest
from paths import PLUGINS
from typer.testing import CliRunner

from clbench.cli import app

SWEEP = ("sweep", "--tracks", "styles", "--quick", "--device", "cpu", "--workers", "1", "--tracker", "none")


@pytest.fixture
def sweep(mock_folder, tmp_path, monkeypatch):
    """`clbench sweep` on the mock suite, in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*options: str):
        return CliRunner().invoke(app, [*SWEEP, "--suite", mock_folder, "--output", str(tmp_path), *options])

    return invoke


def test_a_sweep_ends_with_a_table_a_method_and_says_what_it_shares(sweep, tmp_path):
    done = sweep("--methods", "naive,magmax")
    assert done.exit_code == 0
    assert "shared: 3 units were asked for more than once" in done.stdout
    assert len(list((tmp_path / "mock" / "styles").glob("*.partial.json"))) == 2
    for text in ("naive", "magmax", "CSD"):
        assert text in done.stdout


def test_a_dry_run_tells_the_plan_and_does_nothing(sweep, tmp_path):
    done = sweep("--methods", "naive,merge_init,merge_ortho,magmax", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert {kind: counts["to_do"] for kind, counts in plan["units"].items()} == {
        "base": 1,
        "controls": 1,
        "fit": 1,
        "train": 12,
        "score": 12,
    }
    assert plan["runs"] == 4
    assert plan["repeated_cells"] == 3
    assert plan["expected_seconds"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_sweep_gives_each_method_its_own_settings(sweep, tmp_path):
    plugins = ("--plugin", str(PLUGINS / "ewc.py"))
    done = sweep("--methods", "naive,ewc", "--set", "ewc.strength=7", *plugins, "--json")
    naive, ewc = json.loads(done.stdout)
    assert naive["method"]["config"] == {"learning_rate": None}
    assert ewc["method"]["config"]["strength"] == 7


@pytest.mark.long
def test_several_values_make_a_grid_of_variants_named_after_them(sweep, tmp_path):
    plugins = ("--plugin", str(PLUGINS / "ewc.py"))
    done = sweep("--methods", "ewc", "--set", "strength=0.5,1e3", "--set", "ewc.batches=1", *plugins, "--json")
    found = {one["variant"]: one["method"]["config"] for one in json.loads(done.stdout)}
    assert found == {
        "ewc-strength-0.5": {"strength": 0.5, "batches": 1},
        "ewc-strength-1e3": {"strength": 1000.0, "batches": 1},
    }
    for name in found:
        assert (tmp_path / "mock" / "styles" / f"{name}.partial.json").is_file()


@pytest.mark.long
def test_a_file_of_variants_is_swept(sweep, tmp_path):
    file = tmp_path / "variants.yaml"
    file.write_text("- {method: naive}\n- {name: weak, method: ewc, settings: {strength: 0.1, batches: 1}}\n")
    done = sweep("--variants", str(file), "--plugin", str(PLUGINS / "ewc.py"))
    assert done.exit_code == 0, done.output
    assert "weak" in done.stdout
    assert "naive" in done.stdout
    file.write_text("- {method: naive}\n- {name: ../up, method: naive}\n")
    done = sweep("--variants", str(file))
    assert f"{file}: variant 2, field name: String should match" in str(done.exception)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--methods", "naive", "--set", "strength=7"), "method naive has no setting 'strength'"),
        (("--methods", "naive", "--set", "magmax.strength=7"), "method 'magmax' is not among those of the sweep"),
        (("--methods", "naive,magmx"), "did you mean 'magmax'"),
        (("--methods", ","), "give --methods, --variants or both"),
        ((), "give --methods, --variants or both"),
        (("--methods", "naive", "--dry-run", "--tracker", "abacus"), "there is no tracker 'abacus'"),
        (("--methods", "naive", "--engine", "slurm"), "--engine 'slurm': Input should be 'local' or 'ray'"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(sweep, options, says):
    done = sweep(*options)
    assert says in str(done.exception)
    assert getattr(done.exception, "exit_code", None) == 2
