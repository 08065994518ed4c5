"""`clbench new-method`: a copy of any method works at once, and the test beside it passes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from commands import clbench, execute, refusal
from every_method import NAMES, most_long
from paths import ROOT

from clbench.errors import ClbenchError
from clbench.method import REGISTRY, Method
from clbench.plugins import get_method, list_methods, load_plugin
from clbench.protocol.hook_lint import HOOKS, hook_warnings, own_hooks
from clbench.protocol.task_sequence import TaskSequence
from clbench.runner.method_template import CONSTANT_TEST, GROWING_TEST, PAPER_FIELDS, write_method_template

RUFF = Path(sys.executable).with_name("ruff")
FEW = ("batches", "images")
"""Settings of several methods that say how much is drawn; 2 is enough here."""


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """Methods of these files are known in no other test."""
    before = dict(list_methods())
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.mark.parametrize("like", most_long())
def test_a_copy_has_its_models_hooks_works_and_grows_as_its_test_says(like, runtime, tmp_path):
    plugin, test = write_method_template("copied", like, tmp_path)
    assert _functions(plugin) == _functions(ROOT / "methods" / f"{like}.py")
    settings = {name: 2 for name in FEW if name in list_methods()[like].Config.model_fields}
    copy = get_method("copied", settings, [plugin])
    assert hook_warnings(copy) == []
    assert all(getattr(copy, field) == getattr(Method, field) for field in PAPER_FIELDS)
    sequence = TaskSequence(runtime, copy, "forward", 0)
    first, second, third = (sequence.state(position).nbytes for position in range(3))
    said = test.read_text()
    assert (GROWING_TEST not in said) or first < second < third
    assert (CONSTANT_TEST not in said) or second == third
    sequence.deployed(2, sequence.state(2))


def _functions(file: Path) -> list[str]:
    """The code of a file's functions."""
    return [ast.dump(node) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]


def test_all_copies_are_formatted_and_without_complaints(tmp_path):
    for like in (None, *NAMES):
        write_method_template(f"like_{like}", like, tmp_path)
    options = ("--no-cache", "--config", ROOT / "pyproject.toml")
    own_package = ("--config", 'lint.isort.known-first-party=["clbench"]')  # as in this repository
    for command in (("check", *options, *own_package), ("format", "--check", *options)):
        done = subprocess.run([RUFF, *command, tmp_path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_plain_file_shows_every_other_hook_as_a_comment_that_can_be_used(tmp_path):
    plugin, _ = write_method_template("plain", None, tmp_path)
    text = plugin.read_text()
    used = tmp_path / "used.py"
    used.write_text("".join(_without_mark(line) for line in text.splitlines(keepends=True)))
    assert own_hooks(load_plugin(plugin)["plain"]) == ["end_task"]
    assert own_hooks(load_plugin(used)["plain"]) == [*HOOKS]
    assert hook_warnings(get_method("plain", {}, [used])) == []


def _without_mark(line: str) -> str:
    is_code = line.startswith(("    # def ", "    #     "))
    return line.replace("# ", "", 1) if is_code else line


def test_the_class_gets_a_name_that_the_file_does_not_use_for_something_else(tmp_path):
    names = {}
    for name, like in (("delta", "dare"), ("method", "naive"), ("my_2nd_dare", "dare")):
        plugin, _ = write_method_template(name, like, tmp_path)
        [cls] = [node for node in ast.parse(plugin.read_text()).body if isinstance(node, ast.ClassDef)]
        names[name] = cls.name
        assert load_plugin(plugin)[name].name == name
    assert names == {"delta": "DeltaMethod", "method": "MethodMethod", "my_2nd_dare": "My2ndDare"}


def test_a_bound_stays_a_bound_and_the_papers_family_is_left(tmp_path):
    families = {}
    for like in ("single_task", "naive"):
        plugin, _ = write_method_template(f"my_{like}", like, tmp_path)
        families[like] = load_plugin(plugin)[f"my_{like}"].family
    assert families == {"single_task": "bound" if REGISTRY["single_task"].family == "bound" else "", "naive": ""}


def test_a_file_with_several_methods_is_not_copied(tmp_path):
    both = tmp_path / "both.py"
    both.write_text(
        "from clbench import Method\n\n\nclass A(Method):\n    name = 'a'\n\n\nclass B(Method):\n    name = 'b'\n"
    )
    load_plugin(both)
    with pytest.raises(ClbenchError, match="has 2 methods"):
        write_method_template("mine", "a", tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("1st",), "'1st' is no name for a method"),
        (("_mine",), "'_mine' is no name for a method"),
        (("my-method",), "'my-method' is no name for a method"),
        (("../mine",), "is no name for a method"),
        (("lambda",), "'lambda' is a word of Python"),
        (("ewc",), "there is a method 'ewc' already"),
        (("random",), "'random' is a module of Python"),
        (("mine", "--like", "ecw"), "there is no method 'ecw'; did you mean 'ewc'?"),
        (("mine", "--to", "{methods}"), "is loaded as a method"),
        (("mine", "--to", "{file}"), "cannot write"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(words, says, tmp_path):
    (tmp_path / "file").write_text("")
    given = [word.format(methods=ROOT / "methods", file=tmp_path / "file") for word in words]
    code = 1 if "cannot write" in says else 2
    assert says in refusal("new-method", *given, code=code, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("there", ["mine.py", "test_mine.py"])
def test_no_file_is_overwritten(there, tmp_path):
    (tmp_path / there).write_text("mine")
    assert f"{there} exists" in refusal("new-method", "mine", cwd=tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.long
def test_the_test_that_is_written_passes_as_it_is(tmp_path):
    wrote = clbench("new-method", "mine", "--like", "l2_anchor", "--to", "new", cwd=tmp_path).splitlines()
    assert wrote == ["wrote new/mine.py", "wrote new/test_mine.py"]
    done = execute(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_mine.py", cwd=tmp_path / "new")
    assert "3 passed" in done.stdout
