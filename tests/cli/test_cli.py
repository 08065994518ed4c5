"""The command line: what it prints where, how it exits, and how little it loads to start."""

import json
import sys
from importlib.metadata import version

import pytest
from commands import CLBENCH, TELL_MODULES, clbench, execute, refusal
from paths import PLUGINS
from typer.testing import CliRunner

from clbench.cli import app
from clbench.results.schema import Environment, Result
from clbench.results.validation import check_result
from clbench.suite import load_suite

SUITE = load_suite("mini-v2")


# --- help and start ---


def test_help_lists_every_command_and_each_shows_an_example():
    shown = clbench("--help")
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    assert {"run", "list", "show", "validate", "submit", "leaderboard", "env"} <= set(commands)
    for name in commands:
        assert f" {name} " in shown
        page = CliRunner().invoke(app, [name, "--help"]).stdout
        assert "Example" in page
        assert f"clbench {name} " in page


def test_help_groups_the_commands_and_says_what_the_exit_codes_mean():
    shown = clbench("--help")
    groups = ("Run methods", "Look at results", "Submit and build boards", "Look up and set up")
    assert all(f" {group} " in shown for group in groups)
    assert "Exit codes: 0 = done, 1 = the work failed, 2 = bad usage or input" in " ".join(shown.split())


def test_version_is_the_packages():
    assert clbench("--version") == f"{version('clbench')}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (
            "run --method merge_or",
            ["merge_ortho", "merge_ortho_products", "merge_ortho_rowspace", "merge_ortho_scaled"],
        ),
        ("run --suite mini", ["mini-v2", "mini-v2-dev"]),
        ("run --suite sdxl-v1 --track ob", ["objects"]),
    ],
)
def test_completion_offers_methods_suites_and_tracks(typed, offered, monkeypatch):
    words = f"clbench {typed}"
    monkeypatch.setenv("_CLBENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert clbench().split() == offered


def test_env_shows_this_machine_as_results_record_it():
    told = Environment.model_validate_json(clbench("env", "--json"))
    assert told.packages["torch"]
    assert f"python: {told.python}" in clbench("env")


NEEDED = "import numpy, pydantic.types, typer, rich.console, rich.table, typer.rich_utils, yaml, jinja2"
"""What `--help` cannot do without."""


def test_help_loads_no_package_but_those_that_it_cannot_do_without():
    """So that it starts at once; `perf/quick.py` measures it."""

    def packages(script: str, *arguments: str) -> set[str]:
        modules = execute(sys.executable, "-c", TELL_MODULES + script, *arguments).stderr.split()
        found = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
        return {name for name in found if not name.startswith("_")}

    assert packages("from clbench.cli import main; main()", "--help") <= packages(NEEDED) | {"clbench"}


WITHOUT_TORCH = """
import json, sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "transformers", "PIL"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
from clbench.cli import main
for code, *arguments in json.loads(sys.argv[1]):
    sys.argv = ["clbench", *arguments]
    try:
        main()
        assert code == 0, arguments
    except SystemExit as exit:
        assert exit.code == code, arguments
"""


def test_all_but_running_works_on_a_base_install_without_torch(saved, tmp_path):
    path, folder = str(saved()), str(tmp_path / "submissions")
    commands = [
        *([0, "list", what] for what in ("suites", "tracks", "methods", "metrics")),
        [0, "validate", path],
        [0, "show", path],
        [0, "submit", path, "--submitter", "me", "--submissions", folder],
        [0, "leaderboard", "--submissions", folder, "--output", str(tmp_path / "board")],
        [2, "run", "--method", "niave", "--track", "styles"],
        [2, "run", "--method", "naive", "--track", "styles"],
    ]
    done = execute(sys.executable, "-c", WITHOUT_TORCH, json.dumps(commands))
    assert "did you mean 'naive'" in done.stderr
    assert "pip install 'clbench[run]'" in done.stderr.splitlines()[-1]


def test_no_arguments_print_the_help_as_a_usage_error():
    done = execute(CLBENCH, code=2)
    assert "leaderboard" in done.stdout + done.stderr
    assert "error" not in done.stderr


# --- list ---


def test_list_shows_what_there_is_as_table_and_as_json():
    def listed(what: str, *options: str) -> set[str]:
        done = CliRunner().invoke(app, ["list", what, "--json", *options])
        return {next(iter(row.values())) for row in json.loads(done.stdout)}

    assert "merge_ortho" in clbench("list", "methods")
    assert listed("methods") >= {"frozen_base", "naive", "merge_init", "merge_ortho", "magmax"}
    assert "ewc" in listed("methods", "--plugin", str(PLUGINS / "ewc.py"))
    assert listed("suites") >= {"mini-v2", "mini-v2-dev", "sdxl-v1"}
    assert "mini-v2" in listed("tracks")
    assert listed("metrics") >= {"csd", "dino", "clip_i", "clip_t"}
    assert "did you mean 'methods'" in refusal("list", "method")


# --- bad usage ---


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "merge_inti", "--track", "styles"], "did you mean 'merge_init'"),
        (["--method", "naive", "--track", "stiles"], "did you mean 'styles'"),
        (["--method", "naive", "--track", "styles", "--suite", "mini-v3"], "did you mean 'mini-v2'"),
        (["--track", "styles"], "--method"),
        (["--method", "naive", "--track", "styles", "--fast"], "--fast"),
        (["--method", "naive", "--track", "styles", "--seeds", "one"], "--seeds"),
        (["--method", "naive", "--track", "styles", "--set", "strength"], "key=value"),
        (["--method", "naive", "--track", "styles", "--set", "strength=1"], "strength"),
        (["--method", "mine", "--track", "styles", "--plugin", "/nowhere.py"], "/nowhere.py"),
    ],
)
def test_bad_usage_is_one_sentence_with_a_suggestion_and_exit_2(arguments, says):
    assert says in refusal("run", *arguments)


def test_a_plugin_that_does_not_load_exits_1(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0\n")
    plugin = ("--plugin", tmp_path / "bad.py")
    assert "bad.py" in refusal("run", "--method", "naive", "--track", "styles", *plugin, code=1)


# --- run ---


@pytest.mark.long
def test_run_prints_progress_on_stderr_and_the_result_alone_on_stdout(mock_folder, mock_suite, tmp_path):
    options = ("--suite", mock_folder, "--method", "naive", "--track", "styles", "--quick", "--output", tmp_path)
    done = execute(CLBENCH, "run", *options, "--json")
    result = Result.model_validate_json(done.stdout)
    assert check_result(result, mock_suite, allow_partial=True) == []
    assert (tmp_path / "mock" / "styles" / "naive.partial.json").read_text() == done.stdout
    assert "100%" in done.stderr
    assert "done" in done.stderr
    assert "warning" not in done.stderr.lower()


@pytest.mark.long
def test_a_plugin_that_ran_here_is_found_again_without_plugin_unless_it_has_changed(mock_folder, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("from clbench import Method\n\n\nclass Mine(Method):\n    name = 'mine'\n")
    options = ("--suite", mock_folder, "--output", "runs", "--quick", "--device", "cpu", "--workers", "1")
    what = ("--method", "mine", "--plugin", plugin, "--track", "styles")
    execute(CLBENCH, "run", *what, *options, "--tracker", "none", cwd=tmp_path)
    samples = ("samples", "runs/mock/styles/mine.partial.json", "--suite", mock_folder, "--to", "grids")
    execute(CLBENCH, *samples, cwd=tmp_path)
    assert (tmp_path / "grids/mock/styles/mine.png").is_file()
    plugin.write_text("print('executed')\n" + plugin.read_text())
    refused = execute(CLBENCH, *samples, cwd=tmp_path, code=2)
    assert "no method 'mine' is known here; give --plugin FILE" in refused.stderr
    assert "executed" not in refused.stderr + refused.stdout, "only a file that ran here is loaded"
    refused = execute(CLBENCH, *samples, "--plugin", plugin, cwd=tmp_path, code=2)
    assert "executed" in refused.stderr
    assert "has changed since the result was made; give --plugin with the file as it was" in refused.stderr


@pytest.mark.long
def test_what_a_run_left_in_a_store_elsewhere_is_found_there_by_samples_export_and_verify(mock_folder, tmp_path):
    what, output = ("--method", "naive", "--track", "styles"), ("--suite", mock_folder, "--output", tmp_path / "runs")
    places = (*output, "--store", tmp_path / "elsewhere")
    execute(CLBENCH, "run", *what, *places, "--quick", "--device", "cpu", "--keep", "states,images")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "elsewhere").glob("*/*/*")}
    result = tmp_path / "runs" / "mock" / "styles" / "naive.partial.json"

    execute(CLBENCH, "samples", result, *places, "--to", tmp_path / "grids")
    assert (tmp_path / "grids" / "mock" / "styles" / "naive.png").exists()
    execute(CLBENCH, "export", result, *places, "--task", "1", "--to", tmp_path / "adapter")
    assert list((tmp_path / "adapter").glob("*.safetensors"))
    execute(CLBENCH, "export", result, *places, "--images", "--to", tmp_path / "images")
    images = ("--level", "artifacts", "--images", tmp_path / "images")
    assert f"{result}: artifacts" in execute(CLBENCH, "verify", result, *images, *output).stdout

    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "elsewhere").glob("*/*/*")} == kept
    assert not (tmp_path / "runs" / "store").exists()


def test_run_ends_with_the_table_and_the_path_of_the_result(mock_folder, tmp_path):
    options = ("--method", "naive", "--track", "styles", "--quick", "--output", str(tmp_path), "--device", "cpu")
    done = CliRunner().invoke(app, ["run", "--suite", mock_folder, *options])
    assert done.exit_code == 0
    for text in ("naive", "CSD", "partial", f"result: {tmp_path / 'mock' / 'styles' / 'naive.partial.json'}"):
        assert text in done.stdout


@pytest.mark.long
def test_run_exits_1_in_one_sentence_where_the_work_fails(mock_folder, tmp_path):
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        "from clbench import Method\n\n\nclass Bad(Method):\n    name = 'bad'\n\n"
        "    def loss(self, ctx, batch):\n        return float('nan')\n"
    )
    options = ("--method", "bad", "--track", "styles", "--plugin", plugin, "--output", tmp_path / "runs")
    done = execute(CLBENCH, "run", "--suite", mock_folder, *options, code=1)
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the loss became nan in task 'byzantine' (position 1) at step 1 of 2")
