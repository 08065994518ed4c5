"""The task loop of one (order, seed): train a task, hand its state on, draw and score all tasks seen so far.

    TaskSequence(runtime, get_method("merge_init"), order="0", seed=0).run()

Each piece is kept in the store under its key, so that a killed run goes on and equal work is done once: first tasks
that start alike, equal deployed weights, the base model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from clbench.errors import MethodFailed, WorkFailed
from clbench.lora import Adapter, Delta
from clbench.method import Example, Method
from clbench.protocol import probes
from clbench.protocol.device import peak_memory, reset_peak_memory
from clbench.protocol.hook_checks import check_adapter, check_delta, check_state, check_tokens
from clbench.protocol.hook_runner import HookRunner
from clbench.protocol.method_host import MethodHere, MethodHost
from clbench.protocol.requests import DeployRequest, FitRequest, Reply, Request, StartRequest, TaskView, TrainRequest
from clbench.protocol.rows import COST, SECONDS, Cost, Row, read_run
from clbench.protocol.track_runtime import TrackRuntime
from clbench.results.schema import Run
from clbench.state import State, StateSize, digest
from clbench.suite import Task, Track, Training
from clbench.tokens import Tokens, tokens_among, tokens_in
from clbench.utils.seeding import generator

_TEXT = TypeAdapter(str).validate_python


@dataclass(frozen=True)
class Deployed:
    """What is evaluated after a task."""

    weights: Delta
    words: Mapping[str, Mapping[str, str]]
    """Task -> field of the prompt templates -> the words that the method put in its place."""
    tokens: Tokens = field(default_factory=dict)
    """The learned tokens."""

    def prompts(self, track: Track, task: Task) -> list[str]:
        """A task's evaluation prompts, as the model gets them."""
        return track.eval_prompts(self._worded(task))

    def leak_prompts(self, track: Track, task: Task) -> list[str]:
        """Prompts that do not ask for the task's look, as the model gets them."""
        return track.leak_prompts(self._worded(task))

    def tokens_of(self, task: Task) -> Tokens:
        """The learned tokens that the method put into a task's prompts: no word of the prompts' own becomes another."""
        return tokens_in(self.tokens, list(self.words.get(task.name, {}).values()))

    def _worded(self, task: Task) -> Task:
        return task.model_copy(update={"fields": {**task.fields, **self.words.get(task.name, {})}})


class TaskSequence:
    """The tasks of one (order, seed) in a row, by one method.

    Args:
        method: where its code runs; an instance runs in this process, and its results cannot be submitted.
    """

    def __init__(self, runtime: TrackRuntime, method: Method | MethodHost, order: str, seed: int) -> None:
        self.runtime, self.order, self.seed = runtime, order, seed
        self.tasks = runtime.track.ordered(order)
        self.host: MethodHost = MethodHere(method) if isinstance(method, Method) else method
        self.keys = runtime.keys.sequence(self.host.identity, [task.name for task in self.tasks], seed)
        self._latest: tuple[int, State] = (-1, State())

    @property
    def hooks(self) -> HookRunner:
        """The method's hooks, where its code runs in this process."""
        assert isinstance(self.host, MethodHere)
        spec, resolution = self.runtime.adapter_spec, self.runtime.suite.resolution
        names = {position: task.name for position, task in enumerate(self.tasks)}
        return HookRunner(self.host.method, names, self.seed, spec, resolution, lambda event: self.runtime.emit(event))

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
        deployed = self.deployed(position, state)
        began = time.perf_counter()
        reset_peak_memory(runtime.config.device)
        cells, scores = [], {metric: [] for metric in runtime.track.metrics}
        weights_digest, learned = digest(deployed.weights), position + 1
        for column, task in enumerate(self.tasks[: runtime.track.measured(learned)]):
            if self.is_told and column < learned:
                cell, found = self._cell(task, self.deployed(position, state, task))
            else:
                cell, found = self._cell(task, deployed, weights_digest)
            cells.append(cell)
            for metric, value in found.items():
                scores[metric].append(value)
        leak = drift = None
        if learned == len(self.tasks):
            own = deployed.leak_prompts, deployed.tokens_of
            leak = probes.leak(runtime, self.tasks, deployed.weights, weights_digest, *own)
            drift = probes.drift(runtime, deployed.weights, weights_digest)
            runtime.report_work(probes.leak_passes(runtime) + probes.drift_passes(runtime))
        cost = self.stored_cost(position)
        peak = max(cost.peak_memory_bytes or 0, peak_memory(runtime.config.device) or 0) or None
        seconds = time.perf_counter() - began
        row = Row(scores, StateSize.of(state), cells, cost.train_seconds, seconds, peak, leak, drift)
        row.write(runtime, key)
        return row

    def cell_scores(self, position: int, column: int) -> dict[str, float]:
        """Metric -> score of the task at `column` after the one at `position`, trained and drawn, or from the store."""
        task, state = self.tasks[column], self.state(position)
        told = task if self.is_told and column <= position else None
        return self._cell(task, self.deployed(position, state, told))[1]

    def _cell(self, task: Task, deployed: Deployed, weights_digest: str | None = None) -> tuple[str, dict[str, float]]:
        prompts = deployed.prompts(self.runtime.track, task)
        weights_digest = weights_digest or digest(deployed.weights)
        return self.runtime.cell(task, prompts, deployed.weights, weights_digest, deployed.tokens_of(task))

    @property
    def is_told(self) -> bool:
        """Whether the method is told which task's images are to be drawn."""
        return "weights_for" in self.host.own_hooks

    def deployed(self, position: int, state: State, told: Task | None = None) -> Deployed:
        """What is evaluated after the task at `position`, as the method says; it gets words of training prompts alone.

        Args:
            told: the task whose images are to be drawn, for a method that is told; None: any.

        Raises:
            WorkFailed: a hook raised or returned something unusable.
        """
        own, weights, words, tokens = self.host.own_hooks, Method().weights(state), {}, {}
        if told or not own.isdisjoint({"weights", "prompts"}):
            seen = self.tasks[: position + 1] if "prompts" in own else ()
            words = {task.name: self.runtime.training_words(task) for task in seen}
            reply = self._ask(DeployRequest(self._view(position, state), words, told.name if told else None))
            weights, words = reply.state.merged, self._changed_words(words, reply.fields.get("words"))
            tokens = tokens_among(reply.state.extra)
        after = f"after task {self.tasks[position].name!r}"
        if weights is not state.merged:  # which was checked when it was made
            check_delta(self.runtime.adapter_spec, weights, f"method {self.host.name}: weights() {after}")
        if tokens:
            check_tokens(tokens, self.runtime.models.token_widths, f"method {self.host.name}: tokens() {after}")
        return Deployed(weights, words, tokens)

    def _changed_words(self, words: dict[str, dict[str, str]], changed: Any) -> dict[str, dict[str, str]]:
        try:
            return {task: {name: _TEXT(changed[task][name]) for name in fields} for task, fields in words.items()}
        except (KeyError, TypeError, ValueError):
            raise WorkFailed(
                f"method {self.host.name}: its process gave no words for the evaluation's prompts"
            ) from None

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
            state, cost = self._train(position, self.state(position - 1))
            store.put_json(self.keys.cost(position), cost._asdict())
            path = store.put(self.keys.state(position), ".safetensors", state.save)
            found = self._read(path) or state  # as a resumed run would read it
        self._latest = (position, found)
        return found

    def stored_state(self, position: int) -> State | None:
        """The state after the task at `position`, if the store holds it."""
        path = self.runtime.store.get(self.keys.state(position), ".safetensors")
        return self._read(path) if path else None

    @staticmethod
    def _read(path: Path) -> State | None:
        """The state of a file; None where it was dropped at this moment by another order that begins alike."""
        try:
            return State.load(path)
        except FileNotFoundError:
            return None

    def stored_cost(self, position: int) -> Cost:
        """What the training at `position` cost, as far as the store knows."""
        return self.runtime.store.get_json(self.keys.cost(position), COST.validate_python) or Cost(0.0, None)

    def forget(self) -> None:
        """Keep no state in memory; the store has it."""
        self._latest = (-1, State())

    # --- training ---

    @cached_property
    def training(self) -> Training:
        """The suite's, with the learning rate that the method was given."""
        training, own = self.runtime.suite.training, self.host.identity["config"].get("learning_rate")
        return training if own is None else training.model_copy(update={"learning_rate": float(own)})

    @cached_property
    def shared_training_key(self) -> str | None:
        """The key of the first task's training where other methods may share it; found without loading the model."""
        try:
            return self._first_training_key(self._start())
        except Exception:  # it needs the model, or is wrong, which its training will tell
            return None

    def train_first_task(self) -> tuple[Adapter, float]:
        """Train the first task's adapter, for all methods and orders that start alike, where no plugin is.

        Returns:
            The adapter, and the seconds that another spent on it, if the store has it.

        Raises:
            WorkFailed: the method starts otherwise than it did before.
        """
        key, store, runtime = self.shared_training_key, self.runtime.store, self.runtime
        assert key is not None
        with store.lock(key + ".fit"):  # other methods may begin alike, at the same time
            path = store.get(key, ".safetensors")
            if path:
                return Adapter.load(path), store.get_json(key, SECONDS.validate_python) or 0.0
            began, start = time.perf_counter(), self._start()
            if start.adapter is None or self._first_training_key(start) != key:
                raise WorkFailed(f"{self._where('begin_task()', 0)} gave another adapter than before")
            view, work = self._view(0, State()), runtime.train_work
            reply = self._ask(FitRequest(view, self._examples(0), start.adapter, start.merged, self.training, work))
            check_adapter(runtime.adapter_spec, reply.state.adapter, self._where("training", 0))
            assert reply.state.adapter is not None
            store.put_json(key, time.perf_counter() - began)
            path = store.put(key, ".safetensors", reply.state.adapter.save)
            return Adapter.load(path), 0.0  # its layers in the order in which others find them

    def _start(self) -> State:
        """The adapter and the weight changes that a first training starts from; no adapter where it is not shared."""
        request = StartRequest(self._view(0, State()), self.training)
        return self.host.ask(request, self.runtime.models, lambda event: None).state  # printed again in the training

    def _first_training_key(self, start: State) -> str | None:
        if start.adapter is None:
            return None
        tensors, frozen = digest(start.adapter.tensors()), digest(start.merged)
        own = self.training.learning_rate
        rate = None if own == self.runtime.suite.training.learning_rate else own
        return self.runtime.keys.first_training(self.tasks[0].name, self.seed, tensors, frozen, rate)

    def _train(self, position: int, before: State) -> tuple[State, Cost]:
        """One task, from state to state, and what it cost."""
        runtime, training, began = self.runtime, self.training, time.perf_counter()
        trained, saved, shared_passes = None, 0.0, 0
        if position == 0 and self.shared_training_key:
            trained, saved = self.train_first_task()
            shared_passes = training.passes
        reply = self._ask(
            TrainRequest(
                self._view(position, before),
                self._examples(position),
                training,
                runtime.suite.sampling.model_copy(
                    update={"noise_seed": 0}
                ),  # the evaluation's is not a method's to know
                runtime.train_work,
                trained,
            )
        )
        check_state(runtime.adapter_spec, reply.state, self._where("end_task()", position))
        gradients, without = (_count(reply.fields.get(name)) for name in ("passes_with_gradient", "passes_without"))
        gradients += shared_passes
        if gradients > training.most_passes and not self.host.is_bound:
            raise MethodFailed(
                f"{self._where('training', position)} took {gradients} U-Net passes with a gradient, and the "
                f'suite allows {training.most_passes}; train less, or let the method be a bound (family = "bound")'
            )
        seconds = saved + time.perf_counter() - began
        peak = _count(reply.fields.get("peak_memory_bytes")) or None
        count = _count(reply.fields.get("trained_parameters"))
        return reply.state, Cost(seconds, peak, gradients, without, count)

    def _examples(self, position: int) -> tuple[Example, ...]:
        return tuple(self.runtime.examples(self.tasks[position], generator(self.seed, "crop", position)))

    def _view(self, position: int, state: State) -> TaskView:
        runtime, task = self.runtime, self.tasks[position]
        prompt, spec = runtime.track.train_prompt(task), runtime.adapter_spec
        return TaskView(position, task.name, prompt, self.seed, state, spec, runtime.suite.resolution)

    def _ask(self, request: Request) -> Reply:
        return self.host.ask(request, self.runtime.models, lambda event: self.runtime.emit(event))

    def _where(self, what: str, position: int) -> str:
        return f"method {self.host.name}: {what} at task {self.tasks[position].name!r}"


def _count(value: Any) -> int:
    """A count as a process gave it; 0 where it is none."""
    return value if isinstance(value, int) and value >= 0 else 0
