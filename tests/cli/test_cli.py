"""The command line: what it prints where, how it exits, and how little it loads to start."""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
from builders import make_result
from commands import CLBENCH, clbench, execute, refusal
from paths import PLUGINS
from typer.testing import CliRunner

from clbench.cli import app, main
from clbench.results.io import save_result
from clbench.results.schema import Environment, Result
from clbench.results.validation import check_result
from clbench.suite import load_suite

SUITE = load_suite("mini-v2")


@pytest.fixture
def saved(tmp_path):
    """Save a valid result of mini-v2 with random scores."""

    def save(name: str = "mine.json", update: dict | None = None, **options) -> Path:
        result = make_result(SUITE, **{"method": "mine", **options})
        save_result(result.model_copy(update=update or {}), tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def edited(saved):
    """A result whose base score of the first task was raised by hand."""
    path = saved("edited.json")
    raw = json.loads(path.read_text())
    raw["runs"][0]["scores"]["csd"][0][0] += 0.2
    path.write_text(json.dumps(raw))
    return path


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
        ("run --method merge_or", ["merge_ortho", "merge_ortho_products"]),
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


TELL_MODULES = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
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


# --- validate, show, submit, leaderboard ---


def test_validate_tells_valid_edited_partial_and_broken_files_apart(saved, edited, tmp_path):
    valid, partial = saved(), saved("partial.json", quick=True)
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    assert clbench("validate", valid) == f"{valid}: valid\n"
    assert "CLB004" in clbench("validate", partial, code=2)
    assert clbench("validate", "--allow-partial", partial) == f"{partial}: valid\n"
    verdicts = json.loads(clbench("validate", "--json", valid, edited, partial, broken, code=2))
    codes = {Path(name).name: {finding["code"] for finding in found} for name, found in verdicts.items()}
    assert codes["mine.json"] == set()
    assert {"CLB011", "CLB016"} <= codes["edited.json"]
    assert codes["partial.json"] == {"CLB004"}
    assert codes["broken.json"] == {"CLB000"}


def test_show_prints_matrices_and_summary_but_not_of_an_edited_file(saved, edited):
    shown = clbench("show", saved())
    for text in ("mine on styles of mini-v2", "CSD", "average forgetting", "regime"):
        assert text in shown
    assert "byzantine" in clbench("show", saved(), "--run", 2)
    assert json.loads(clbench("show", saved(), "--json"))["summary"]["csd"]["average_score"]["n"] == 10
    assert "run 11" in refusal("show", saved(), "--run", 11)
    assert "CLB" in refusal("show", edited)


def test_a_result_of_the_suite_to_tune_on_cannot_be_submitted(tmp_path):
    save_result(make_result(load_suite("mini-v2-dev"), method="mine"), tmp_path / "mine.json")
    said = refusal("submit", tmp_path / "mine.json", "--submitter", "A. Lab", "--submissions", tmp_path / "submissions")
    assert "mini-v2-dev" in said
    assert "only those of mini-v2, sdxl-v1 have a board" in said


def test_submit_files_a_valid_result_once_and_refuses_partial_and_edited_ones(saved, edited, tmp_path):
    folder = tmp_path / "submissions"
    options = ("--submitter", "A. Lab", "--submissions", folder)
    assert "CLB004" in refusal("submit", saved("partial.json", quick=True), *options)
    assert "CLB" in refusal("submit", edited, *options)
    assert not folder.exists()
    told = clbench("submit", saved(), *options)
    assert "git switch -c submit-mini-v2-styles-mine" in told
    assert "Before you open the pull request" in told
    assert not (tmp_path / "leaderboard").exists(), "the tables are rebuilt after the merge"
    filed = folder / "mini-v2" / "styles" / "mine.json"
    assert json.loads(filed.read_text())["submission"]["submitter"] == "A. Lab"
    before = filed.read_bytes()
    other = saved(level=0.6)
    assert "--replace" in refusal("submit", other, *options)
    assert filed.read_bytes() == before
    clbench("submit", other, *options, "--replace")
    assert filed.read_bytes() != before


def test_leaderboard_writes_a_page_a_track_and_the_same_bytes_again(saved, tmp_path):
    folder, board = tmp_path / "submissions", tmp_path / "board"
    for index, method in enumerate(("mine", "yours")):
        result = saved(method=method, seed=index, level=0.3 + 0.2 * index)
        clbench("submit", result, "--submitter", "me", "--submissions", folder)
    options = ("leaderboard", "--submissions", folder, "--output", board, "--json")
    written = [Path(path) for path in json.loads(clbench(*options))]
    page, *data = [path for path in written if path.parent.name == "mini-v2"]
    assert page == board / "mini-v2" / "styles.md"
    assert "published" in (board / "sdxl-v1" / "styles.md").read_text()
    assert {path.suffix for path in data} == {".csv", ".json", ".tex"}
    text = page.read_text()
    assert text.index("yours") < text.index("mine")
    clbench(*options)
    assert page.read_text() == text


@pytest.fixture
def own_runs(tmp_path):
    """What runs wrote: a complete variant, a partial one, and a store full of JSON."""
    for name, options in {"strong": {"settings": {"strength": 10.0}}, "hasty": {"quick": True}}.items():
        result = make_result(SUITE, method="ewc", variant=name, **options)
        save_result(
            result, tmp_path / "runs" / result.place.replace(".json", ".partial.json" * result.partial or ".json")
        )
    for place in ("store/cell/ab/x.json", "store/row/y.json", "tensorboard/a/b.json"):
        (tmp_path / "runs" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / place).write_text("{}")
    return tmp_path


def test_leaderboard_makes_the_board_of_ones_own_runs_and_marks_partial_ones(own_runs):
    shown = clbench("leaderboard", "--submissions", "runs", "--site", "site", cwd=own_runs)
    assert "strong" in shown
    assert "hasty*" in shown
    page = (own_runs / "runs/leaderboard/mini-v2/styles.md").read_text()
    assert "ewc, strength=10.0" in page
    assert "ewc; partial, 1 run" in page
    assert "Partial results have no rank" in page
    assert not (own_runs / "runs/leaderboard/sdxl-v1").exists(), "boards of others' results alone"
    assert (own_runs / "site/mini-v2/styles/methods/hasty.html").is_file()
    again = clbench("leaderboard", "--submissions", "runs", cwd=own_runs)
    assert again.count("wrote") == 4, "the board itself is no result"


def test_leaderboard_ranks_ones_own_among_the_submissions(own_runs):
    theirs = make_result(SUITE, method="theirs", level=0.6)
    same = make_result(SUITE, method="ewc", variant="strong")
    for result in (theirs, same, make_result(SUITE, "objects", method="elsewhere")):
        save_result(result, own_runs / "submissions" / result.place)
    done = execute(CLBENCH, "leaderboard", "--submissions", "runs", "--with", "submissions", cwd=own_runs)
    assert "strong.json stands in place of the submission" in done.stderr
    assert "theirs" in done.stdout
    assert "elsewhere" not in done.stdout
    board = json.loads((own_runs / "runs/leaderboard/mini-v2/styles.json").read_text())
    assert {one["variant"]: one["rank"] for one in board["methods"]} == {"theirs": "1", "strong": "2", "hasty": "–"}


def test_leaderboard_of_a_folder_without_results_or_with_many_bad_ones_says_so_briefly(tmp_path):
    (tmp_path / "runs").mkdir()
    empty = execute(CLBENCH, "leaderboard", "--submissions", "runs", cwd=tmp_path, code=2)
    assert "runs holds no results" in empty.stderr
    bad = tmp_path / "runs/mini-v2/styles"
    bad.mkdir(parents=True)
    for number in range(40):
        (bad / f"{number}.json").write_text("{}")
    done = execute(CLBENCH, "leaderboard", "--submissions", "runs", cwd=tmp_path, code=2)
    assert "and 35 more" in done.stderr
    assert len(done.stderr) < 3000


def test_an_unwritable_place_is_one_sentence_and_exit_1(saved, tmp_path):
    (tmp_path / "file").touch()
    options = ("--submitter", "me", "--submissions", tmp_path / "file" / "submissions")
    assert str(tmp_path / "file") in refusal("submit", saved(), *options, code=1)


def test_compare_says_what_differs_on_the_shared_runs_and_how_sure_that_is(saved):
    worse, better = saved("worse.json", method="worse", level=0.3), saved("better.json", method="better", level=0.5)
    told = json.loads(clbench("compare", better, worse, "--json"))
    assert len(told["runs"]) == 10
    score = told["statistics"]["csd"]["average_score"]
    assert score["first"] - score["second"] == pytest.approx(score["difference"])
    assert score["interval"] == pytest.approx([score["difference"]] * 2), "the same in every run"
    assert score["p"] == score["p_corrected"] == 2 / 2**10
    assert score["chance"] == 1.0
    kept = told["statistics"]["csd"]["kept"]
    assert kept["first"] - kept["second"] == pytest.approx(kept["difference"])
    table = clbench("compare", better, worse)
    assert "better against worse on styles, 10 shared runs" in table
    assert f"{100 * kept['first']:.1f}" in next(line for line in table.splitlines() if "kept, %" in line)
    assert "sign-flip test over 10 orders of all rows at once (step-down max-T; exact)" in " ".join(table.split())
    assert max(map(len, table.splitlines())) <= 82


def test_compare_and_show_take_names_and_several_results(tmp_path):
    for track in ("styles", "objects"):
        for name in ("a", "b", "c"):
            result = make_result(SUITE, track, method="ewc", variant=name)
            save_result(result, tmp_path / "runs" / result.place)
    told = json.loads(clbench("compare", "a", "b", "c", "--track", "objects", "--json", cwd=tmp_path))
    assert [(one["first"], one["second"], one["track"]) for one in told] == [
        ("a", "b", "objects"),
        ("a", "c", "objects"),
    ]
    shown = clbench("show", "a", "b", "--track", "styles", cwd=tmp_path)
    assert "a (ewc) on styles of mini-v2" in shown
    assert "b (ewc) on styles of mini-v2" in shown
    assert "give --track" in execute(CLBENCH, "compare", "a", "b", cwd=tmp_path, code=2).stderr
    assert "did you mean 'a'" in execute(CLBENCH, "show", "aa", "--track", "styles", cwd=tmp_path, code=2).stderr
    assert "two results or more" in execute(CLBENCH, "compare", "a", cwd=tmp_path, code=2).stderr


def test_compare_refuses_results_that_cannot_be_compared(saved, edited):
    assert "not valid: CLB" in refusal("compare", edited, saved())
    objects = saved("objects.json", track_name="objects")
    assert "different suites or tracks" in refusal("compare", saved(), objects)


def test_verify_recomputes_and_notes_it_for_the_maintainers(saved, edited, tmp_path):
    path, note = saved(), tmp_path / "VERIFIED.json"
    assert f"{path}: recomputed" in clbench("verify", path, "--record", note)
    noted = json.loads(note.read_text())["mini-v2/styles/mine"]
    assert (noted["level"], noted["checksum"]) == ("recomputed", json.loads(path.read_text())["checksum"])
    assert "CLB" in refusal("verify", edited)
    assert "did you mean 'rerun'" in refusal("verify", path, "--level", "reruns")
    assert "--images" in refusal("verify", path, "--level", "artifacts")


def test_validate_ends_with_one_verdict_over_many_files(saved, edited):
    done = execute(CLBENCH, "validate", saved("good.json"), edited, code=2)
    assert done.stdout.splitlines()[-1] == "1 of 2 files are valid"
    assert {"CLB011", "CLB016", "CLB018", "CLB019"} <= {
        word for line in done.stdout.splitlines() for word in line.split() if word.startswith("CLB")
    }


# --- run ---


def test_run_prints_progress_on_stderr_and_the_result_alone_on_stdout(mock_folder, mock_suite, tmp_path):
    options = ("--suite", mock_folder, "--method", "naive", "--track", "styles", "--quick", "--output", tmp_path)
    done = execute(CLBENCH, "run", *options, "--json")
    result = Result.model_validate_json(done.stdout)
    assert check_result(result, mock_suite, allow_partial=True) == []
    assert (tmp_path / "mock" / "styles" / "naive.partial.json").read_text() == done.stdout
    assert "100%" in done.stderr
    assert "done" in done.stderr
    assert "warning" not in done.stderr.lower()


def test_a_plugin_that_ran_here_is_found_again_without_plugin_unless_it_has_changed(mock_folder, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("from clbench import Method\n\n\nclass Mine(Method):\n    name = 'mine'\n")
    options = ("--suite", mock_folder, "--output", "runs", "--quick", "--device", "cpu", "--workers", "1")
    what = ("--method", "mine", "--plugin", plugin, "--track", "styles")
    execute(CLBENCH, "run", *what, *options, "--tracker", "none", cwd=tmp_path)
    samples = ("samples", "runs/mock/styles/mine.partial.json", "--suite", mock_folder, "--to", "grids")
    execute(CLBENCH, *samples, cwd=tmp_path)
    assert (tmp_path / "grids/mock/styles/mine.png").is_file()
    plugin.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n" + plugin.read_text())
    refused = execute(CLBENCH, *samples, cwd=tmp_path, code=2)
    assert "no method 'mine' is known here; give --plugin FILE" in refused.stderr
    assert not (tmp_path / "executed").exists(), "only a file that ran here is loaded"
    refused = execute(CLBENCH, *samples, "--plugin", plugin, cwd=tmp_path, code=2)
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


def test_run_exits_1_in_one_sentence_where_the_work_fails(mock_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        "from clbench import Method\n\n\nclass Bad(Method):\n    name = 'bad'\n\n"
        "    def loss(self, ctx, batch):\n        return float('nan')\n"
    )
    options = ["--method", "bad", "--track", "styles", "--plugin", str(plugin), "--output", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["clbench", "run", "--suite", mock_folder, *options])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    last = printed.err.splitlines()[-1]
    assert last.startswith("error: the loss became nan in task 'byzantine' (position 1) at step 1 of 2")


# --- export --format eee ---


def test_a_result_becomes_a_record_for_other_registries(saved, tmp_path):
    clbench("export", saved(), "--format", "eee", "--to", tmp_path / "record.json")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["schema_version"] == "0.3.0"
    assert len(record["evaluation_results"]) > 10


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--format", "eee", "--task", "winter"), "takes neither --task nor --images"),
        (("--format", "csv"), "there is no format 'csv'"),
    ],
)
def test_an_export_that_cannot_be_is_refused(saved, options, says):
    assert says in refusal("export", saved(), *options)
