"""Write the plugin file of a new method, as a commented copy of another one, and its test. Nothing here needs torch."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import io
import keyword
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

from clbench.errors import ClbenchError, did_you_mean
from clbench.method import Method
from clbench.plugins import list_methods
from clbench.protocol.hook_lint import HOOKS, own_hooks
from clbench.suite import content_root
from clbench.utils.files import write_text

PLAIN = "merge_init"
"""The method that a file without `like` is a copy of; the other hooks stand in it as comments."""
PAPER_FIELDS = ("paper", "arxiv", "year", "code", "departures", "version")
"""What a copy does not take over: it is not from that paper."""

HEADER = """\
# A method of your own, which starts as a copy of {like}.
#
# To change: the class's docstring (the equation, what is passed on, where settings come from), the settings in
# `Config`, if it has any, and the hooks. docs/hooks.md says which hook is called when, and what it gets. Where the
# method comes from can be said beside `name`: `family`, `paper`, `arxiv`, `year`, `code` and `departures`.
#
# Next:
#     clbench check {name}.py
#     clbench run --plugin {name}.py --method {name} --track styles --quick
#
# `pytest test_{name}.py` runs the tests beside it.
"""
HOOKS_HEADER = """
    # The other hooks, each with its default. Take the # away from those that the method needs.
"""
INDENT = "    #     "
"""What begins the lines of a function's body that is a comment."""
TEST = '''\
"""Tests of the method in {name}.py, on three short tasks of a small untrained model."""

from functools import cache
from pathlib import Path

from clbench import check

PLUGIN = Path(__file__).with_name("{name}.py")


@cache
def checked(run=1):
    """What a run of all hooks found; each number is a run of its own."""
    return check("{name}", [PLUGIN])


def test_every_hook_works_and_no_function_looks_like_a_misspelt_hook():
    assert checked().error is None
    assert not checked().warnings


def test_two_runs_give_the_same_bits():
    assert checked(1).state_sha256 == checked(2).state_sha256
'''
CONSTANT_TEST = """

def test_the_state_does_not_grow_with_the_tasks():
    sizes = checked().state_bytes
    assert sizes[-1] == sizes[1]
"""
GROWING_TEST = """

def test_the_state_grows_with_the_tasks():
    sizes = checked().state_bytes
    assert sizes[0] < sizes[1] < sizes[2]
"""


def write_method_template(name: str, like: str | None, folder: Path) -> list[Path]:
    """Write `folder/<name>.py` and `folder/test_<name>.py`; returns the files.

    Args:
        like: the registered method to copy; None: a plain one, with the hooks that it does not define as comments.

    Raises:
        ClbenchError: the name is not fit for a method or taken, there is no method `like`, its file cannot be copied,
            or one of the files exists.
    """
    methods = list_methods()
    files = [folder / f"{name}.py", folder / f"test_{name}.py"]
    _check_name(name, list(methods))
    for file in files:
        if file.exists() or file.is_symlink():
            raise ClbenchError(f"{file} exists; give another name, or another folder (--to)")
    if folder.resolve() == (content_root() / "methods").resolve():
        raise ClbenchError(
            f"every file in {folder} is loaded as a method; write it elsewhere, and move {name}.py later"
        )
    if like is not None and like not in methods:
        raise ClbenchError(f"there is no method {like!r}{did_you_mean(like, list(methods))}")
    source = methods[like or PLAIN]
    text = HEADER.format(like=source.name, name=name) + "\n" + _renamed(source, name)
    write_text(files[0], text if like else text + "".join(_commented_hooks(source)))
    write_text(files[1], TEST.format(name=name) + _size_test(source))
    return files


def _check_name(name: str, taken: list[str]) -> None:
    if not (name.isidentifier() and name.isascii() and name[0] != "_" and len(name) <= 64):
        raise ClbenchError(f"{name!r} is no name for a method: use letters, digits and '_', and begin with a letter")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ClbenchError(f"{name!r} is a word of Python, so it cannot name a method; give another name")
    if name in taken:
        raise ClbenchError(f"there is a method {name!r} already; give another name (`clbench list methods` has all)")
    if name in sys.stdlib_module_names or importlib.util.find_spec(name):  # its file would be imported instead
        raise ClbenchError(f"{name!r} is a module of Python or of an installed package; give another name")


def _renamed(source: type[Method], name: str) -> str:
    """The text of a method's file, with another name and class, and without what the paper's method alone can say.

    Raises:
        ClbenchError: the file has several methods.
    """
    path = Path(inspect.getfile(source))
    text = path.read_text(encoding="utf-8")
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    named = [node for node in classes if "name" in _fields(node)]
    if len(named) != 1:
        raise ClbenchError(f"{path} has {len(named)} methods, and a copy starts from a file that has one")
    fields = _fields(named[0])
    lines: list[str] = text.splitlines(keepends=True)
    left_out = [*PAPER_FIELDS, *(["family"] if source.family == "paper" else [])]
    for field in (fields[key] for key in left_out if key in fields):
        assert field.end_lineno is not None
        lines[field.lineno - 1 : field.end_lineno] = [""] * (field.end_lineno - field.lineno + 1)
    lines[fields["name"].lineno - 1] = f'    name = "{name}"\n'
    return _with_class("".join(lines), named[0].name, name)


def _fields(node: ast.ClassDef) -> dict[str, ast.stmt]:
    """Name -> the statement of a class's body that gives it a value."""
    found: dict[str, ast.stmt] = {}
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        found |= {target.id: statement for target in targets if isinstance(target, ast.Name)}
    return found


def _with_class(text: str, old: str, name: str) -> str:
    """The text with the class `old` renamed after the method, in code alone; no other name of the file is taken."""
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.NAME]
    new = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    while new in {token.string for token in tokens}:
        new += "Method"
    lines = text.splitlines(keepends=True)
    for token in reversed([token for token in tokens if token.string == old]):
        (row, begin), (_, end) = token.start, token.end
        lines[row - 1] = lines[row - 1][:begin] + new + lines[row - 1][end:]
    return "".join(lines)


def _commented_hooks(source: type[Method]) -> Iterator[str]:
    """The hooks that a method does not define, as comments."""
    yield HOOKS_HEADER
    for hook in (hook for hook in HOOKS if hook not in own_hooks(source)):
        default = getattr(Method, hook)
        parameters = list(inspect.signature(default).parameters)
        about = (inspect.getdoc(default) or "").partition("\n")[0]
        given, passed_on = ", ".join(parameters), ", ".join(parameters[1:])
        yield f"\n    # def {hook}({given}):\n"
        yield textwrap.fill(f'"""{about}"""', 120, initial_indent=INDENT, subsequent_indent=INDENT)
        yield f"\n{INDENT}return super().{hook}({passed_on})\n"


def _size_test(source: type[Method]) -> str:
    """A test of how the state's size goes, as far as the method's docstring says it."""
    _, said, rest = (source.__doc__ or "").partition("Passed on:")
    passed_on = rest.partition("Settings:")[0]
    if not said or "grows up to" in passed_on:  # three tasks may or may not reach the limit
        return ""
    return GROWING_TEST if "grows" in passed_on else CONSTANT_TEST
