"""One sequence of tasks by one method: train, hand on, draw and score every task seen so far, and again.

    Sequence(bench, get_method("merge_init"), order="0", seed=0).run()

Each piece is kept in the store under the hash of its recipe, so that a killed run goes on and equal work is done once:
first tasks that start alike, equal deployed weights, the base model.
"""

from __future__ import annotations

import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from clbench.errors import ClbenchError, WorkFailed
from clbench.lora import Adapter
from clbench.method import Context, Method
from clbench.plugins import source_of
from clbench.protocol.hook_checks import check_adapter, check_delta, check_examples, check_no_hooks, check_state
from clbench.protocol.track_runtime import Bench
from clbench.protocol.trainer import Task as TrainingTask
from clbench.protocol.trainer import fit
from clbench.results.schema import Run, to_rows
from clbench.state import State, StateSize, digest, regime
from clbench.storage.store import recipe_key
from clbench.utils.seeding import generator, global_seed


@dataclass(frozen=True)
class Row:
    """What is known after one task: one row of every score matrix, and its cost."""

    scores: dict[str, list[float]]
    """Metric -> scores of the tasks seen so far, in the run's order."""
    size: StateSize
    cells: list[str]
    """The cells' keys in the store."""
    train_seconds: float
    eval_seconds: float
    peak_memory_bytes: int | None
    """Highest use of the processes that trained and scored."""


class Cost(NamedTuple):
    """Of one training."""

    train_seconds: float
    peak_memory_bytes: int | None


class Sequence:
    """The tasks of one (order, seed) in a row, by one method."""

    def __init__(self, bench: Bench, method: Method, order: str, seed: int) -> None:
        self.bench, self.method, self.order, self.seed = bench, method, order, seed
        self.tasks = bench.track.ordered(order)
        self.identity = {
            "method": method.name,
            "config": method.config.model_dump(mode="json"),
            "source": source_of(method).sha256,
        }
        self.hashes: list[str] = []
        for position, task in enumerate(self.tasks):
            before = self.hashes[-1] if self.hashes else None
            recipe = {
                **bench.recipe,
                **self.identity,
                "before": before,
                "task": task.name,
                "position": position,
                "seed": seed,
            }
            self.hashes.append(recipe_key("state", recipe).split("-", 1)[1])
        self._latest: tuple[int, State] = (-1, State())

    def run(self) -> Run:
        """Every row, trained, drawn and scored, or found in the store.

        Raises:
            WorkFailed: a hook raised or returned something unusable, or the loss became NaN; finished work is kept.
        """
        drawn = self.bench.base_row()
        base = {
            metric: [drawn[task.name]["scores"][metric] for task in self.tasks] for metric in self.bench.track.metrics
        }
        rows = [self.row(position) for position in range(len(self.tasks))]
        return Run(
            order=self.order,
            task_order=tuple(task.name for task in self.tasks),
            seed=self.seed,
            scores={metric: to_rows(score_matrix(metric, base, rows)) for metric in self.bench.track.metrics},
            state_bytes=tuple(row.size.total for row in rows),
            regime=regime([row.size for row in rows], self.bench.suite.training.rank),
            train_seconds=sum(row.train_seconds for row in rows),
            eval_seconds=sum(row.eval_seconds for row in rows),
            peak_memory_bytes=max(row.peak_memory_bytes or 0 for row in rows) or None,
            trainable_parameters=self.bench.trainable_parameters,
        )

    def row(self, position: int) -> Row:
        """What is known after the task at `position`."""
        key = self.row_key(position)
        stored = self.bench.store.get_json(key)
        if stored is not None and self.bench.has_images(stored["cells"]):
            return Row(**{**stored, "size": StateSize(**stored["size"])})
        state = self.state(position)
        weights = self.call("weights", position, state)
        check_delta(
            self.bench.backbone,
            weights,
            f"method {self.method.name}: weights() after task {self.tasks[position].name!r}",
        )
        began = time.perf_counter()
        cells, scores = [], {metric: [] for metric in self.bench.track.metrics}
        weights_digest = digest(weights)
        for task in self.tasks[: position + 1]:
            prompts = self.prompts(position, state, self.bench.track.eval_prompts(task))
            cell, found = self.bench.cell(task, prompts, weights, weights_digest)
            cells.append(cell)
            for metric, value in found.items():
                scores[metric].append(value)
        cost = self.bench.store.get_json(self._cost_key(position)) or Cost(0.0, None)._asdict()
        train_seconds, peak = Cost(**cost)
        peak = max(peak or 0, peak_memory(self.bench.device) or 0) or None
        row = Row(scores, StateSize.of(state), cells, train_seconds, time.perf_counter() - began, peak)
        self.bench.store.put_json(key, {**vars(row), "size": vars(row.size)})
        return row

    def cell_scores(self, position: int, column: int) -> dict[str, float]:
        """Metric -> score of the task at `column` after the one at `position`, trained and drawn, or from the store."""
        state = self.state(position)
        weights = self.call("weights", position, state)
        prompts = self.prompts(position, state, self.bench.track.eval_prompts(self.tasks[column]))
        return self.bench.cell(self.tasks[column], prompts, weights, digest(weights))[1]

    def state_key(self, position: int) -> str:
        """Of the state after the task at `position`, in the store."""
        return f"state-{self.hashes[position]}"

    def row_key(self, position: int) -> str:
        """Of the row after the task at `position`, in the store."""
        return f"row-{self.hashes[position]}"

    def _cost_key(self, position: int) -> str:
        return f"cost-{self.hashes[position]}"

    def trained(self, position: int) -> bool:
        """Whether the state after the task at `position` is in the store."""
        return self.bench.store.has(self.state_key(position), ".safetensors")

    def passed(self, position: int) -> bool:
        """Whether the task at `position` needs no training: its state is there, or of no more use.

        An order that begins alike may have dropped a state that this one still needs.
        """
        last = position == len(self.tasks) - 1
        return self.trained(position) or (self.scored(position) and (last or self.passed(position + 1)))

    def scored(self, position: int) -> bool:
        """Whether the row after the task at `position` is in the store."""
        return self.bench.store.has(self.row_key(position), ".json")

    def spent(self, position: int) -> bool:
        """Whether the state after the task at `position` has been scored and trained on from; never the last one."""
        last = position == len(self.tasks) - 1
        return not last and self.scored(position) and (self.trained(position + 1) or self.scored(position + 1))

    def forget(self) -> None:
        """Keep no state in memory; the store has it."""
        self._latest = (-1, State())

    def state(self, position: int) -> State:
        """What the method hands on after the task at `position`: from memory, the store, or by training.

        Training holds the state's lock: where a damaged state is found, whoever needs it next waits for the new one.
        """
        if self._latest[0] == position:
            return self._latest[1]
        if position < 0:
            return State()
        found = self.stored_state(position)
        if found is None:
            with self.bench.store.lock(self.state_key(position)):
                return self.make_state(position)
        self._latest = (position, found)
        return found

    def make_state(self, position: int) -> State:
        """As `state`, by whoever holds the state's lock."""
        found = self.stored_state(position)
        if found is None:
            state, seconds = self.train(position, self.state(position - 1))
            cost = Cost(seconds, peak_memory(self.bench.device))
            self.bench.store.put_json(self._cost_key(position), cost._asdict())
            key = self.state_key(position)
            self.guard("end_task()", position, lambda: self.bench.store.put(key, ".safetensors", state.save))
            found = self.stored_state(position) or state  # as a resumed run would read it
        self._latest = (position, found)
        return found

    def stored_state(self, position: int) -> State | None:
        """The state after the task at `position`, if the store holds it."""
        try:
            path = self.bench.store.get(self.state_key(position), ".safetensors")
            return State.load(path) if path else None
        except FileNotFoundError:  # dropped at this moment by another order that begins alike
            return None

    def train(self, position: int, before: State) -> tuple[State, float]:
        """One task, from state to state, and the seconds that took."""
        began = time.perf_counter()
        ctx = self._context(position, before, self.bench.backbone.layers)
        adapter, waited = self._fitted(ctx, before)
        where = f"at task {ctx.task!r}"
        ctx.adapter = self.bench.backbone.use_adapter(adapter)  # found or trained: these values, no gradients
        state = self.call("end_task", position, ctx, before, adapter)
        check_state(self.bench.backbone, state, f"method {self.method.name}: end_task() {where}")
        check_no_hooks(self.bench.backbone, f"method {self.method.name}: end_task() {where}")
        self.bench.backbone.use_adapter(None)
        return state, waited + time.perf_counter() - began

    def first_fit(self) -> None:
        """Train the first task's adapter, for all methods and orders that start alike."""
        self._fitted(self._context(0, State(), self.bench.backbone.layers), State())
        check_no_hooks(self.bench.backbone, f"method {self.method.name}: training at task {self.tasks[0].name!r}")

    def shared_fit(self) -> str | None:
        """The key of the first task's training where other methods may share it; told without loading the model."""
        if self.method.shapes_training():
            return None
        ctx = self._context(0, State(), {})
        try:
            start, frozen = self.call("begin_task", 0, ctx, State()), self.call("frozen", 0, State())
            if start is None:
                return None
            return self._fit_key(ctx, digest(State(adapter=start).tensors()), digest(frozen))
        except Exception:  # it needs the model, or is wrong, which its training will tell
            return None

    def _context(self, position: int, before: State, modules: Mapping[str, Any]) -> Context:
        bench, task = self.bench, self.tasks[position]
        training, noise = bench.suite.training, generator(self.seed, "method samples", position)
        return Context(
            position=position,
            task=task.name,
            prompt=bench.track.train_prompt(task),
            rank=training.rank,
            scale=training.alpha / training.rank,
            shapes=bench.shapes,
            # The method's name is not in its seed: fresh adapters of all methods are alike.
            generator=generator(self.seed, "method", position),
            state=before,
            modules=modules,
            sample=lambda prompts, images_each, weights: bench.sample(prompts, images_each, weights, noise),
        )

    def _fit_key(self, ctx: Context, start: str, frozen: str) -> str:
        """Of a training that the method leaves alone, by the digests of what it starts from."""
        recipe = {"task": ctx.task, "seed": self.seed, "position": ctx.position, "start": start, "frozen": frozen}
        return recipe_key("fit", {**self.bench.recipe, **recipe})

    def _fitted(self, ctx: Context, before: State) -> tuple[Adapter | None, float]:
        """The task's trained adapter, and the seconds that others spent on it; the context is ready for `end_task`.

        None where the method trains nothing for this task.
        """
        bench, method, position = self.bench, self.method, ctx.position
        where = f"at task {ctx.task!r}"
        start = self.call("begin_task", position, ctx, before)
        if start is None:
            bench.worked(bench.train_work)
            return None, 0.0
        check_adapter(bench.backbone, start, f"method {method.name}: begin_task() {where}")
        frozen = self.call("frozen", position, before)
        check_delta(bench.backbone, frozen, f"method {method.name}: frozen() {where}")
        cuts = generator(self.seed, "crop", position)
        examples = self.call("data", position, ctx, bench.examples(self.tasks[position], cuts))
        check_examples(examples, bench.suite.resolution, f"method {method.name}: data() {where}")
        prompts = self.prompts(position, before, [example.prompt for example in examples])
        examples = [replace(example, prompt=prompt) for example, prompt in zip(examples, prompts, strict=True)]
        frozen_digest = digest(frozen)
        bench.backbone.deploy(frozen, frozen_digest)
        data = TrainingTask(bench.backbone, examples, bench.suite.resolution)
        own = generator(self.seed, "method batches", position)
        ctx.batches = lambda count: data.batches(count, bench.suite.training, own)
        ctx.denoising_loss = data.loss

        def made(step: int, loss: float) -> None:
            bench.tell({"event": "loss", "step": step, "loss": loss})
            bench.worked(bench.train_work / bench.suite.training.steps)

        def trained() -> Adapter:
            training = bench.suite.training
            return self.guard(
                "training", position, lambda: fit(bench.backbone, method, ctx, data, start, training, self.seed, made)
            )

        if position or method.shapes_training():
            return trained(), 0.0
        key = self._fit_key(ctx, digest(State(adapter=start).tensors()), frozen_digest)
        with bench.store.lock(key + ".fit"):  # other methods may begin alike, at the same time
            path = bench.store.get(key, ".safetensors")
            adapter = State.load(path).adapter if path else None
            if adapter is not None:
                return adapter, float(bench.store.get_json(key) or 0.0)
            began = time.perf_counter()
            adapter = trained()
            bench.store.put_json(key, time.perf_counter() - began)
            bench.store.put(key, ".safetensors", State(adapter=adapter).save)
            return adapter, 0.0

    def prompts(self, position: int, state: State, prompts: list[str]) -> list[str]:
        """The prompts as the method's model wants them, as many as were given."""
        changed = self.call("prompts", position, state, prompts)
        where = f"method {self.method.name}: prompts() at task {self.tasks[position].name!r}"
        if not isinstance(changed, list) or not all(isinstance(prompt, str) for prompt in changed):
            raise WorkFailed(f"{where} returned {type(changed).__name__}, expected a list of texts")
        if len(changed) != len(prompts):
            raise WorkFailed(f"{where} returned {len(changed)} prompts for {len(prompts)}")
        return changed

    def call(self, hook: str, position: int, *arguments: Any) -> Any:
        """One of the method's hooks; it may change no state, which others go on from."""
        states = [argument for argument in arguments if isinstance(argument, State)]
        before = [versions(state) for state in states]
        returned = self.guard(f"{hook}()", position, lambda: getattr(self.method, hook)(*arguments))
        if [versions(state) for state in states] != before:
            raise WorkFailed(
                f"method {self.method.name}: {hook}() at task {self.tasks[position].name!r} changed the state that it "
                f"was given; a state is never changed, but followed by a new one"
            )
        return returned

    def guard(self, what: str, position: int, work: Callable[[], Any]) -> Any:
        """Run what may hold a plugin's code; its errors become one sentence that says where."""
        try:
            with global_seed(self.seed, what, position):
                return work()
        except (ClbenchError, torch.OutOfMemoryError, torch.AcceleratorError):  # the latter are not the plugin's
            raise
        except Exception as error:
            file = source_of(self.method).path
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
            place = f"{file}:{lines[-1]}" if lines else str(file)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise WorkFailed(
                f"method {self.method.name} failed in {what} at task {self.tasks[position].name!r} ({place}): "
                f"{reason}; earlier tasks are kept"
            ) from error

    def label(self, position: int) -> str:
        count = f"task {position + 1} of {len(self.tasks)}"
        return f"order {self.order} seed {self.seed}, {count}: {self.tasks[position].name}"


def score_matrix(metric: str, base: Mapping[str, list[float]], rows: list[Row]) -> np.ndarray:
    """(T + 1) x T, nan above the tasks seen."""
    matrix = np.full((len(rows) + 1, len(rows)), np.nan)
    matrix[0] = base[metric]
    for index, row in enumerate(rows, start=1):
        matrix[index, :index] = row.scores[metric]
    return matrix


def versions(state: State) -> list[tuple[str, int, int]]:
    """What changes where a state's tensors are replaced or changed in place."""
    return [(name, id(value), 0 if value.is_inference() else value._version) for name, value in state.tensors().items()]


def peak_memory(device: str) -> int | None:
    """Highest memory use of this process on the device, in bytes."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
