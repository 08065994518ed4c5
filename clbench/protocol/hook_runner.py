"""Calls a method's hooks: their errors become one sentence, and what they return is checked before it is used."""

from __future__ import annotations

from bdb import BdbQuit
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from clbench.errors import ClbenchError, WorkFailed
from clbench.lora import Adapter, Delta
from clbench.method import Context, Example, Method
from clbench.plugins import describe_error, files_of
from clbench.protocol.hook_checks import AdapterSpec, check_adapter, check_delta, check_examples, check_state
from clbench.state import State
from clbench.utils.output import captured
from clbench.utils.seeding import global_seed

Returned = TypeVar("Returned")
KEPT = "; earlier tasks are kept"
"""Ends the sentence about a failure in the middle of a run."""


class HookRunner:
    """The hooks of one method on one sequence of tasks.

    Every call starts from random numbers of its own, and may change no state that it is given.

    Args:
        tasks: position -> name, of the tasks whose hooks are called.
        resolution: of the training images, in pixels.
        emit: called with an `output` event for each line that a hook prints.
    """

    def __init__(
        self,
        method: Method,
        tasks: Mapping[int, str],
        seed: int,
        spec: AdapterSpec,
        resolution: int,
        emit: Callable[[dict[str, Any]], None],
    ) -> None:
        self.method, self._tasks, self._seed = method, tasks, seed
        self._spec, self._resolution, self._emit = spec, resolution, emit

    def begin_task(self, ctx: Context, state: State) -> Adapter | None:
        start = self._call("begin_task", ctx.position, ctx, state)
        if start is not None:
            check_adapter(self._spec, start, self.where("begin_task()", ctx.position))
        return start

    def frozen(self, position: int, state: State) -> Delta:
        delta = self._call("frozen", position, state)
        check_delta(self._spec, delta, self.where("frozen()", position))
        return delta

    def data(self, ctx: Context, examples: list[Example]) -> list[Example]:
        changed = self._call("data", ctx.position, ctx, examples)
        check_examples(changed, self._resolution, self.where("data()", ctx.position))
        return changed

    def prompts(self, position: int, state: State, prompts: list[str]) -> list[str]:
        """The prompts as the method's model wants them, as many as were given."""
        changed = self._call("prompts", position, state, prompts)
        where = self.where("prompts()", position)
        if not isinstance(changed, list) or not all(isinstance(prompt, str) for prompt in changed):
            raise WorkFailed(f"{where} returned {type(changed).__name__}, expected a list of texts")
        if len(changed) != len(prompts):
            raise WorkFailed(f"{where} returned {len(changed)} prompts for {len(prompts)}")
        return changed

    @property
    def prepares(self) -> bool:
        """Whether the method defines `prepare`."""
        return type(self.method).prepare is not Method.prepare

    def prepare(self, ctx: Context, adapter: Adapter) -> Adapter:
        start = self._call("prepare", ctx.position, ctx, adapter)
        check_adapter(self._spec, start, self.where("prepare()", ctx.position))
        return start.detach()

    def steps(self, ctx: Context) -> int:
        count = self._call("steps", ctx.position, ctx)
        if type(count) is not int or count < 1:
            raise WorkFailed(f"{self.where('steps()', ctx.position)} returned {count!r}, expected a number of steps")
        return count

    def end_task(self, ctx: Context, state: State, adapter: Adapter | None) -> State:
        after = self._call("end_task", ctx.position, ctx, state, adapter)
        check_state(self._spec, after, self.where("end_task()", ctx.position))
        return after

    def weights(self, position: int, state: State, told: str | None = None) -> Delta:
        """The weight changes that are deployed after the task at `position`, for images of a task if it is told."""
        hook, task = ("weights", ()) if told is None else ("weights_for", (told,))
        delta = self._call(hook, position, state, *task)
        check_delta(self._spec, delta, f"method {self.method.name}: {hook}() after task {self._tasks[position]!r}")
        return delta

    def shapes_training(self) -> bool:
        return self.call_plugin("shapes_training()", 0, self.method.shapes_training)

    def where(self, what: str, position: int) -> str:
        """The beginning of a sentence about something that the method did at a task."""
        return f"method {self.method.name}: {what} at task {self._tasks[position]!r}"

    def _call(self, hook: str, position: int, *arguments: Any) -> Any:
        states = [argument for argument in arguments if isinstance(argument, State)]
        before = [_versions(state) for state in states]
        returned = self.call_plugin(f"{hook}()", position, lambda: getattr(self.method, hook)(*arguments))
        if [_versions(state) for state in states] != before:
            raise WorkFailed(
                f"{self.where(f'{hook}()', position)} changed the state that it was given; a state is never changed, "
                f"but followed by a new one"
            )
        return returned

    def call_plugin(self, what: str, position: int, function: Callable[[], Returned]) -> Returned:
        """Call what runs a plugin's code.

        Raises:
            WorkFailed: it raised; the sentence names the hook, the task, and the line of the plugin's file.
        """
        try:
            with global_seed(self._seed, what, position), captured(self._pass_on):
                return function()
        except (ClbenchError, torch.OutOfMemoryError, torch.AcceleratorError, BdbQuit):  # none is the plugin's fault
            raise
        except (Exception, SystemExit) as error:
            raise WorkFailed(
                f"method {self.method.name} failed in {what} at task {self._tasks[position]!r}: "
                f"{describe_error(error, files_of(type(self.method)))}{KEPT}"
            ) from error

    def _pass_on(self, line: str) -> None:
        self._emit({"event": "output", "method": self.method.name, "text": line})


def _versions(state: State) -> list[tuple[str, int, int]]:
    """A value for each tensor of a state that changes where it is replaced, or changed in place."""
    return [(name, id(value), 0 if value.is_inference() else value._version) for name, value in state.tensors().items()]
