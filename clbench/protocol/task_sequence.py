"""The task loop of one (order, seed): train a task, hand its state on, draw and score all tasks seen so far.

    TaskSequence(runtime, get_method("merge_init"), order="0", seed=0).run()

Each piece is kept in the store under its key, so that a killed run goes on and equal work is done once: first tasks
that start alike, equal deployed weights, the base model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from clbench.lora import Adapter
from clbench.method import Context, Method
from clbench.plugins import source_of
from clbench.protocol import probes
from clbench.protocol.device import peak_memory
from clbench.protocol.hook_checks import check_no_hooks
from clbench.protocol.hook_runner import HookRunner
from clbench.protocol.rows import COST, SECONDS, Cost, Row, read_run
from clbench.protocol.track_runtime import TrackRuntime
from clbench.protocol.trainer import TaskDataset, fit
from clbench.results.schema import Run
from clbench.state import State, StateSize, digest
from clbench.utils.seeding import generator


class TaskSequence:
    """The tasks of one (order, seed) in a row, by one method."""

    def __init__(self, runtime: TrackRuntime, method: Method, order: str, seed: int) -> None:
        self.runtime, self.order, self.seed = runtime, order, seed
        self.tasks = runtime.track.ordered(order)
        self.use_method(method)
        identity = {
            "method": method.name,
            "config": method.config.model_dump(mode="json"),
            "source": source_of(method).sha256,
        }
        self.keys = runtime.keys.sequence(identity, [task.name for task in self.tasks], seed)
        self._latest: tuple[int, State] = (-1, State())

    @property
    def method(self) -> Method:
        return self.hooks.method

    def use_method(self, method: Method) -> None:
        """Take another instance of the same method, so that nothing is handed on but the state."""
        names = [task.name for task in self.tasks]
        runtime = self.runtime
        self.hooks = HookRunner(
            method,
            names,
            self.seed,
            runtime.adapter_spec,
            runtime.suite.resolution,
            lambda event: runtime.emit(event),  # as it is when a hook is called
        )

    def renew_method(self, settings: Mapping[str, Any]) -> None:
        """Take a new instance of the same method."""
        make = type(self.method)
        self.use_method(self.hooks.call_plugin("__init__()", 0, lambda: make(**settings)))

    def run(self) -> Run:
        """Train, draw and score all tasks, or find what is in the store.

        Raises:
            WorkFailed: a hook raised or returned something unusable, or the loss became NaN; finished work is kept.
        """
        self.runtime.base_row()
        for position in range(len(self.tasks)):
            self.row(position)
        return read_run(self)

    def label(self, position: int) -> str:
        """A task of this sequence, for people."""
        count = f"task {position + 1} of {len(self.tasks)}"
        return f"order {self.order} seed {self.seed}, {count}: {self.tasks[position].name}"

    # --- scoring ---

    def row(self, position: int) -> Row:
        """The scores after the task at `position`, drawn or from the store."""
        runtime, key = self.runtime, self.keys.row(position)
        stored = Row.read(runtime, key, position)
        if stored is not None:
            return stored
        state = self.state(position)
        weights = self.hooks.weights(position, state)
        began = time.perf_counter()
        cells, scores = [], {metric: [] for metric in runtime.track.metrics}
        weights_digest = digest(weights)
        learned = position + 1
        for task in self.tasks[: runtime.track.measured(learned)]:
            prompts = self.hooks.prompts(position, state, runtime.track.eval_prompts(task))
            cell, found = runtime.cell(task, prompts, weights, weights_digest)
            cells.append(cell)
            for metric, value in found.items():
                scores[metric].append(value)
        leak = drift = None
        if learned == len(self.tasks):

            def received(prompts: list[str]) -> list[str]:
                return self.hooks.prompts(position, state, prompts)

            leak = probes.leak(runtime, self.tasks, weights, weights_digest, received)
            drift = probes.drift(runtime, weights, weights_digest, received)
            runtime.report_work(probes.leak_passes(runtime) + probes.drift_passes(runtime))
        cost = runtime.store.get_json(self.keys.cost(position), COST.validate_python) or Cost(0.0, None)
        train_seconds, peak = cost
        peak = max(peak or 0, peak_memory(runtime.config.device) or 0) or None
        row = Row(scores, StateSize.of(state), cells, train_seconds, time.perf_counter() - began, peak, leak, drift)
        row.write(runtime, key)
        return row

    def cell_scores(self, position: int, column: int) -> dict[str, float]:
        """Metric -> score of the task at `column` after the one at `position`, trained and drawn, or from the store."""
        state, task = self.state(position), self.tasks[column]
        weights = self.hooks.weights(position, state)
        prompts = self.hooks.prompts(position, state, self.runtime.track.eval_prompts(task))
        return self.runtime.cell(task, prompts, weights, digest(weights))[1]

    # --- states ---

    def state(self, position: int) -> State:
        """The state after the task at `position`: from memory, the store, or by training.

        Training holds the state's lock: where a damaged state is found, whoever needs it next waits for the new one.
        """
        if self._latest[0] == position:
            return self._latest[1]
        if position < 0:
            return State()
        found = self.stored_state(position)
        if found is None:
            with self.runtime.store.lock(self.keys.state(position)):
                return self.make_state(position)
        self._latest = (position, found)
        return found

    def make_state(self, position: int) -> State:
        """As `state`, by a caller that holds the state's lock."""
        found, store = self.stored_state(position), self.runtime.store
        if found is None:
            state, seconds = self._train(position, self.state(position - 1))
            store.put_json(self.keys.cost(position), Cost(seconds, peak_memory(self.runtime.config.device))._asdict())
            key = self.keys.state(position)
            self.hooks.call_plugin("end_task()", position, lambda: store.put(key, ".safetensors", state.save))
            found = self.stored_state(position) or state  # as a resumed run would read it
        self._latest = (position, found)
        return found

    def stored_state(self, position: int) -> State | None:
        """The state after the task at `position`, if the store holds it."""
        try:
            path = self.runtime.store.get(self.keys.state(position), ".safetensors")
            return State.load(path) if path else None
        except FileNotFoundError:  # dropped at this moment by another order that begins alike
            return None

    def forget(self) -> None:
        """Keep no state in memory; the store has it."""
        self._latest = (-1, State())

    # --- training ---

    def train_first_task(self) -> None:
        """Train the first task's adapter, for all methods and orders that start alike."""
        self._trained_adapter(self._context(0, State(), self.runtime.backbone.layers), State())
        check_no_hooks(self.runtime.backbone.unet, self.hooks.where("training", 0))

    @cached_property
    def shared_training_key(self) -> str | None:
        """The key of the first task's training where other methods may share it; found without loading the model."""
        ctx = self._context(0, State(), {})
        try:
            if self.hooks.shapes_training():
                return None
            start, frozen = self.hooks.begin_task(ctx, State()), self.hooks.frozen(0, State())
            return None if start is None else self._first_training_key(start, digest(frozen))
        except Exception:  # it needs the model, or is wrong, which its training will tell
            return None

    def _first_training_key(self, start: Adapter, frozen_digest: str) -> str:
        return self.runtime.keys.first_training(self.tasks[0].name, self.seed, digest(start.tensors()), frozen_digest)

    def _train(self, position: int, before: State) -> tuple[State, float]:
        """One task, from state to state, and the seconds that took."""
        began, backbone = time.perf_counter(), self.runtime.backbone
        ctx = self._context(position, before, backbone.layers)
        adapter, saved = self._trained_adapter(ctx, before)
        live = backbone.use_adapter(adapter)  # found or trained: these values, no gradients
        if live is not None:
            ctx.adapter = live
        state = self.hooks.end_task(ctx, before, adapter)
        check_no_hooks(backbone.unet, self.hooks.where("end_task()", position))
        backbone.use_adapter(None)
        return state, saved + time.perf_counter() - began

    def _trained_adapter(self, ctx: Context, before: State) -> tuple[Adapter | None, float]:
        """The task's trained adapter, and the seconds that another spent on it; the context is ready for `end_task`.

        None where the method trains nothing for this task.
        """
        runtime, backbone, position = self.runtime, self.runtime.backbone, ctx.position
        start = self.hooks.begin_task(ctx, before)
        if start is None:
            runtime.report_work(runtime.train_work)
            return None, 0.0
        frozen = self.hooks.frozen(position, before)
        cuts = generator(self.seed, "crop", position)
        examples = self.hooks.data(ctx, runtime.examples(self.tasks[position], cuts))
        prompts = self.hooks.prompts(position, before, [example.prompt for example in examples])
        examples = [replace(example, prompt=prompt) for example, prompt in zip(examples, prompts, strict=True)]
        frozen_digest = digest(frozen)
        backbone.deploy(frozen, frozen_digest)
        dataset = TaskDataset(backbone, examples, runtime.suite.resolution)
        own = generator(self.seed, "method batches", position)
        ctx.batches = lambda count: dataset.batches(count, runtime.suite.training, own)
        ctx.denoising_loss = dataset.loss
        if position or self.hooks.shapes_training():
            return self._fit(ctx, dataset, start), 0.0
        key, store = self._first_training_key(start, frozen_digest), runtime.store
        with store.lock(key + ".fit"):  # other methods may begin alike, at the same time
            path = store.get(key, ".safetensors")
            if path:
                return Adapter.load(path), store.get_json(key, SECONDS.validate_python) or 0.0
            began = time.perf_counter()
            adapter = self._fit(ctx, dataset, start)
            store.put_json(key, time.perf_counter() - began)
            store.put(key, ".safetensors", adapter.save)
            return adapter, 0.0

    def _fit(self, ctx: Context, dataset: TaskDataset, start: Adapter) -> Adapter:
        runtime, training = self.runtime, self.runtime.suite.training

        def on_step(step: int, loss: float) -> None:
            runtime.emit({"event": "loss", "step": step, "loss": loss})
            runtime.report_work(runtime.train_work / training.steps)

        return self.hooks.call_plugin(
            "training",
            ctx.position,
            lambda: fit(runtime.backbone, self.method, ctx, dataset, start, training, self.seed, on_step),
        )

    def _context(self, position: int, before: State, modules: Mapping[str, Any]) -> Context:
        runtime, task, spec = self.runtime, self.tasks[position], self.runtime.adapter_spec
        noise = generator(self.seed, "method samples", position)
        return Context(
            position=position,
            task=task.name,
            prompt=runtime.track.train_prompt(task),
            rank=spec.rank,
            scale=spec.scale,
            shapes=spec.shapes,
            # The method's name is not in its seed: fresh adapters of all methods are alike.
            generator=generator(self.seed, "method", position),
            state=before,
            modules=modules,
            sample=lambda prompts, images_each, weights: runtime.sample(prompts, images_each, weights, noise),
        )
