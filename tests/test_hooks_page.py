"""`docs/hooks.md` has every hook and every field of a context, and its loop calls the hooks as the engine does."""

from __future__ import annotations

import re
from dataclasses import fields
from inspect import isfunction
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from paths import ROOT

from clbench.method import Context, Method
from clbench.protocol.hook_lint import HOOKS
from clbench.protocol.task_sequence import TaskSequence

PAGE = (ROOT / "docs" / "hooks.md").read_text()
CONTEXT = {field.name for field in fields(Context)} | {
    name for name, value in vars(Context).items() if isfunction(value) and not name.startswith("_")
}
OUTSIDE = ("shapes_training", "weights", "weights_for")
"""Hooks that are not called while a task is trained."""


def first_column(heading: str) -> list[str]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_the_page_has_every_hook_and_no_other():
    assert sorted(first_column("What is called when")) == sorted(HOOKS)


def test_the_page_has_every_field_of_a_context_and_no_other():
    assert sorted(first_column("What `ctx` has")) == sorted(CONTEXT)
    assert set(re.findall(r"\bctx\.([a-z]\w*)", PAGE)) <= CONTEXT
    assert set(re.findall(r"\bmethod\.([a-z]\w*)\(", PAGE)) <= set(HOOKS)


def test_the_hooks_stand_in_the_order_in_which_a_task_calls_them(runtime):
    in_training = [hook for hook in first_column("What is called when") if hook not in OUTSIDE]
    assert in_training == list(dict.fromkeys(called_by_the_engine(runtime)))


def test_the_loop_on_the_page_calls_the_hooks_as_the_engine_does(runtime):
    [loop] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    known: dict[str, Any] = {name: MagicMock() for name in re.findall(r"[a-z_]+", loop)}
    known |= {"enumerate": enumerate, "ctx": SimpleNamespace(training=MagicMock(), adapter=None, step=0)}
    known["encode"].return_value.batches.return_value = range(runtime.suite.training.steps)
    exec(loop, known)
    assert [call[0] for call in known["method"].method_calls if "." not in call[0]] == called_by_the_engine(runtime)


def called_by_the_engine(runtime) -> list[str]:
    """The hooks that the training of a task calls, in that order."""
    calls: list[str] = []

    def overridden(name: str):
        def hook(self, *given):
            calls.append(name)
            return getattr(Method, name)(self, *given)

        return hook

    watching = type("Watching", (Method,), {name: overridden(name) for name in HOOKS})
    TaskSequence(runtime, watching(), "forward", 0).state(0)
    return [name for name in calls if name not in OUTSIDE]
