"""What is printed fits terminals of any width, and logs get plain lines."""

import re

import pytest
from builders import make_result
from commands import CLBENCH, clbench, execute
from terminals import check_fits, lines_of, on_terminal

from clbench.results.io import save_result
from clbench.suite import load_suite

WIDTHS = (40, 50, 60, 80)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two results of mini-v2, one with a long name and negative scores."""
    folder = tmp_path_factory.mktemp("results")
    for name, level in (("mine", 0.4), ("merge_ortho_products", -0.1)):
        save_result(make_result(load_suite("mini-v2"), method=name, level=level), folder / f"{name}.json")
    return folder


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "command",
    [
        *(("list", what) for what in ("suites", "tracks", "methods", "metrics")),
        ("show", "merge_ortho_products.json"),
        ("show", "merge_ortho_products.json", "--run", "1"),
        ("compare", "mine.json", "merge_ortho_products.json"),
    ],
    ids=" ".join,
)
def test_no_table_is_wider_than_the_terminal_and_no_number_is_cut(command, width, folder):
    told = clbench(*command, cwd=folder, env={"COLUMNS": str(width)})
    check_fits(told, width)
    if width == 40 and command[0] in ("show", "compare"):
        assert "wider terminals also show" in told


def test_a_narrow_terminal_shows_what_matters_most(folder):
    told = clbench("compare", "mine.json", "merge_ortho_products.json", cwd=folder, env={"COLUMNS": "40"})
    assert re.search(r"CSD +kept, % +[+-]\d+\.\d ", told)
    assert "wider terminals also show mine, merge_ortho_products, 95 % interval" in " ".join(told.split())
    told = clbench("show", "mine.json", cwd=folder, env={"COLUMNS": "40"})
    assert re.search(r"average score +0\.\d{3} ± 0\.\d{3} ", told)


NARROW = 40
RUN = ("run", "--method", "naive", "--track", "styles", "--quick", "--device", "cpu", "--tracker", "none")


@pytest.mark.long
def test_the_screen_of_a_run_tells_of_loading_and_fits_and_the_second_is_from_the_store(mock_folder, tmp_path):
    command = (CLBENCH, *RUN, "--suite", mock_folder, "--output", "o", "--workers", "2")
    screen = on_terminal(*command, width=NARROW, cwd=tmp_path)
    check_fits(screen, NARROW)
    libraries, rest = screen.split("loading torch and the libraries", 1)
    assert lines_of(libraries) == [""], "nothing is loaded in silence"
    first, rest = rest.split("loading models", 1)
    assert "first training" not in first, "before the models are loaded, nothing is trained"
    assert "order forward" in rest
    assert "100%" in rest
    assert "wider terminals also show" in rest

    for term in ("xterm-256color", "dumb"):
        screen = on_terminal(*command, width=NARROW, cwd=tmp_path, env={"TERM": term, "COLUMNS": str(NARROW)})
        assert "all from the store" in screen
        assert "0%" not in screen.split("all from the store")[1]
        assert ("\x1b" in screen) == (term != "dumb")


@pytest.mark.long
def test_a_run_in_one_process_tells_that_it_loads_models(mock_folder, tmp_path):
    command = (CLBENCH, *RUN, "--suite", mock_folder, "--output", "o", "--workers", "1")
    assert "loading models" in on_terminal(*command, width=80, cwd=tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("env", [{"FORCE_COLOR": "1", "NO_COLOR": ""}, {"TERM": "dumb"}])
def test_a_log_gets_plain_lines_and_not_one_control_code(env, mock_folder, tmp_path):
    command = (CLBENCH, *RUN, "--suite", mock_folder, "--output", tmp_path, "--workers", "1")
    log = execute(*command, env=env).stderr
    assert re.fullmatch(r"estimate: .*\n(\d+%, about .* left: .*\n)*100%, done after .*\n", log)
    again = execute(*command, env=env).stderr
    assert re.fullmatch(r"estimate: .*\nall from the store\n", again)


@pytest.mark.long
def test_the_plan_of_a_dry_run_fits(mock_folder, tmp_path):
    command = ("sweep", "--methods", "naive,magmax", "--tracks", "styles,objects", "--suite", mock_folder, "--dry-run")
    check_fits(clbench(*command, cwd=tmp_path, env={"COLUMNS": str(NARROW)}), NARROW)
