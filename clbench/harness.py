"""The ten-task protocol: one sequence of tasks, and one result of all its sequences.

    result = run(method="merge_init", track="styles", quick=True)

For each task of an order: the method says how the adapter starts, `train.fit` fits it, the method says what is handed
on, that state goes through its file format, and every task seen so far is drawn and scored. Each piece is kept in the
store under the hash of its recipe, so that a killed run goes on and equal work is done once: first tasks that start
alike, equal deployed weights, the base model.
"""

from __future__ import annotations

import json
import resource
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from clbench.backbone import Backbone
from clbench.environment import describe
from clbench.errors import ClbenchError, WorkFailed
from clbench.evaluate import Evaluator
from clbench.lora import Adapter, Delta
from clbench.method import Context, Example, Method, get_method, source_of
from clbench.miniworld.render import draw_set, to_pil
from clbench.result import (
    BackboneRef,
    Controls,
    MethodRef,
    Result,
    Run,
    SuiteRef,
    save_result,
    summarize,
    to_rows,
)
from clbench.rng import generator
from clbench.sample import draw_cell
from clbench.state import State, StateSize, digest, regime
from clbench.store import Store, folder_sha256, recipe_key, write_atomic
from clbench.suite import Suite, Task, Track, Weights, load_suite
from clbench.train import Task as TrainingTask
from clbench.train import fit

Report = Callable[[float, str], None]
"""`report(work, what)`: that much work (in U-Net passes of one image) was done; says what comes next."""


def silent(work: float, what: str) -> None:
    """The report of those who do not watch."""


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


class Bench:
    """One track of one suite on one device, its models loaded when first needed."""

    def __init__(self, suite: Suite, track: str, store: Store, device: str = "cpu", precision: str = "fp32") -> None:
        self.suite, self.track, self.store = suite, suite.track(track), store
        self.device, self.precision = device, precision

    @cached_property
    def backbone(self) -> Backbone:
        return Backbone.load(locate(self.suite.backbone), self.suite.training, self.device, self.precision)

    @cached_property
    def evaluator(self) -> Evaluator:
        folders = {name: locate(weights) for name, weights in self.suite.encoders.items()}
        return Evaluator(self.suite, self.track, folders, self.device)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What every artifact of this bench depends on; threads and versions because they change the last bits."""
        return {
            "suite": self.suite.sha256,
            "track": self.track.name,
            "device": self.device,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "clbench": version("clbench"),
            "torch": torch.__version__,
            "diffusers": version("diffusers"),
            "peft": version("peft"),
        }

    @property
    def train_work(self) -> float:
        """U-Net passes of one training: a backward pass counts as two."""
        return 3.0 * self.suite.training.steps * self.suite.training.batch_size

    @property
    def cell_work(self) -> float:
        images = self.suite.sampling.images_per_prompt * len(self.track.eval_prompt_templates)
        return 2.0 * self.suite.sampling.steps * images

    def work(self, runs: int) -> float:
        """U-Net passes of a whole result, nothing shared."""
        tasks = len(self.track.tasks)
        return tasks * self.cell_work + runs * (tasks * self.train_work + tasks * (tasks + 1) / 2 * self.cell_work)

    @property
    def trainable_parameters(self) -> int:
        """Number of values of one registered adapter."""
        return sum(self.suite.training.rank * (out + inputs) for out, inputs in self.backbone.shapes.values())

    def examples(self, task: Task) -> list[Example]:
        """A task's training images with their prompt."""
        images = draw_set(task.train, self.suite.resolution)
        pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1 for image in images]
        return [Example(image, self.track.train_prompt(task)) for image in pixels]

    def sample(
        self, prompts: Iterable[str], images_each: int, weights: Mapping[str, Tensor], source: torch.Generator
    ) -> Tensor:
        """Images of any model, for methods that replay: float [N, 3, H, W] in [-1, 1]; what is deployed stays so."""
        noise_seed = int(torch.randint(2**62, (), generator=source))
        own = {"images_per_prompt": images_each, "noise_seed": noise_seed}
        with self.backbone.other_weights(weights):
            return draw_cell(self.backbone, list(prompts), self.suite.sampling.model_copy(update=own)) * 2 - 1

    def controls(self) -> Controls:
        key = recipe_key("controls", self.recipe)
        stored = self.store.get_json(key)
        if stored is None:
            stored = self.store.put_json(key, self.evaluator.controls().model_dump(mode="json"))
        return Controls.model_validate(stored)

    def cell(self, task: Task, prompts: list[str], weights: Delta, weights_digest: str) -> tuple[str, dict[str, float]]:
        """One cell's key in the store and its scores; the weights are deployed only if it must be drawn.

        Beside the scores the store keeps a strip of the first image of each prompt, for the sample grids.
        """
        recipe = {**self.recipe, "task": task.name, "prompts": prompts, "weights": weights_digest}
        key = recipe_key("cell", recipe)
        stored = self.store.get_json(key)
        if stored is None:
            self.backbone.use_adapter(None)
            self.backbone.deploy(weights)
            drawn = draw_cell(self.backbone, prompts, self.suite.sampling)
            if not bool(torch.isfinite(drawn).all()):
                raise WorkFailed(f"the model draws task {task.name!r} as NaN or infinity; finished work is kept")
            images = to_pil(drawn)
            strip = side_by_side(images[:: self.suite.sampling.images_per_prompt])
            self.store.put(key, ".png", lambda path: strip.save(path, format="PNG"))
            stored = self.store.put_json(key, self.evaluator.score(task, images))
        return key, stored


def locate(weights: Weights) -> Path:
    """The local folder of a model, its checksum compared.

    Raises:
        ClbenchError: missing, or not what the definition names.
    """
    kind, _, name = weights.source.partition(":")
    folder = Path(__file__).parent / "miniworld" / "weights" / name if kind == "bundled" else Path(weights.source)
    if not folder.is_dir():
        raise ClbenchError(f"the model {weights.source} is missing: there is no folder {folder}")
    found = folder_sha256(folder)
    if found != weights.sha256:
        raise ClbenchError(
            f"{folder} is not the model that the definition names: its sha256 is {found[:12]}..., "
            f"expected {weights.sha256[:12]}...; restore it, e.g. with `git checkout -- {folder}`"
        )
    return folder


# --- one sequence ---------------------------------------------------------------------------------------------------


class Sequence:
    """The tasks of one (order, seed) in a row, by one method."""

    def __init__(self, bench: Bench, method: Method, order: str, seed: int, report: Report = silent) -> None:
        self.bench, self.method, self.order, self.seed, self.report = bench, method, order, seed, report
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
        base, _ = self.base_row()
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
            peak_memory_bytes=peak_memory(self.bench.device),
            trainable_parameters=self.bench.trainable_parameters,
        )

    def row(self, position: int) -> Row:
        """What is known after the task at `position`."""
        key = f"row-{self.hashes[position]}"
        stored = self.bench.store.get_json(key)
        if stored is not None:
            self.report(self.bench.train_work + (position + 1) * self.bench.cell_work, self._label(position))
            return Row(**{**stored, "size": StateSize(**stored["size"])})
        state = self.state(position)
        weights = self.call("weights", position, state)
        check_delta(
            self.bench, weights, f"method {self.method.name}: weights() after task {self.tasks[position].name!r}"
        )
        began = time.perf_counter()
        scores, cells = self._cells(position, state, weights, position + 1)
        cost = self.bench.store.get_json(f"cost-{self.hashes[position]}") or {"train_seconds": 0.0}
        row = Row(scores, StateSize.of(state), cells, cost["train_seconds"], time.perf_counter() - began)
        self.bench.store.put_json(key, {**vars(row), "size": vars(row.size)})
        if position > 0:
            self.bench.store.drop(f"state-{self.hashes[position - 1]}", ".safetensors")
        return row

    def state(self, position: int) -> State:
        """What the method hands on after the task at `position`: from memory, the store, or by training."""
        if self._latest[0] == position:
            return self._latest[1]
        if position < 0:
            return State()
        key = f"state-{self.hashes[position]}"
        path = self.bench.store.get(key, ".safetensors")
        if path is None:
            before = self.state(position - 1)
            self.report(0, f"{self._label(position)}: training")
            state, seconds = self.train(position, before)
            self.report(self.bench.train_work, f"{self._label(position)}: scoring")
            self.bench.store.put_json(f"cost-{self.hashes[position]}", {"train_seconds": seconds})
            path = self.guard("end_task()", position, lambda: self.bench.store.put(key, ".safetensors", state.save))
        self._latest = (position, State.load(path))
        return self._latest[1]

    def train(self, position: int, before: State) -> tuple[State, float]:
        """One task, from state to state, and the seconds that took."""
        bench, method, task = self.bench, self.method, self.tasks[position]
        began = time.perf_counter()
        where = f"at task {task.name!r}"
        noise = generator(self.seed, "method samples", position)
        ctx = Context(
            position=position,
            task=task.name,
            prompt=bench.track.train_prompt(task),
            rank=bench.suite.training.rank,
            scale=bench.backbone.scale,
            shapes=bench.backbone.shapes,
            # The method's name is not in its seed: fresh adapters of all methods are alike.
            generator=generator(self.seed, "method", position),
            state=before,
            modules=bench.backbone.layers,
            sample=lambda prompts, images_each, weights: bench.sample(prompts, images_each, weights, noise),
        )
        start = self.call("begin_task", position, ctx, before)
        check_adapter(bench, start, f"method {method.name}: begin_task() {where}")
        frozen = self.call("frozen", position, before)
        check_delta(bench, frozen, f"method {method.name}: frozen() {where}")
        examples = self.call("data", position, ctx, bench.examples(task))
        check_examples(bench, examples, f"method {method.name}: data() {where}")
        prompts = self.prompts(position, before, [example.prompt for example in examples])
        examples = [replace(example, prompt=prompt) for example, prompt in zip(examples, prompts, strict=True)]
        bench.backbone.deploy(frozen)
        data = TrainingTask(bench.backbone, examples, bench.suite.resolution)
        size, own = bench.suite.training.batch_size, generator(self.seed, "method batches", position)
        ctx.batches = lambda count: data.batches(count, size, own)
        ctx.denoising_loss = data.loss

        # A first task is trained once for all methods and orders that start alike and leave its training alone.
        start_digests = {"start": digest(State(adapter=start).tensors()), "frozen": digest(frozen)}
        recipe = {**bench.recipe, "task": task.name, "seed": self.seed, "position": position, **start_digests}
        shared = None if position or method.shapes_training() else recipe_key("fit", recipe)
        path = bench.store.get(shared, ".safetensors") if shared else None
        if shared and path:
            adapter = State.load(path).adapter
            assert adapter is not None
            seconds = float(bench.store.get_json(shared) or 0.0)
        else:
            adapter = self.guard(
                "training",
                position,
                lambda: fit(bench.backbone, method, ctx, data, start, bench.suite.training, self.seed),
            )
            seconds = time.perf_counter() - began
            if shared:
                bench.store.put_json(shared, seconds)
                bench.store.put(shared, ".safetensors", State(adapter=adapter).save)
        began = time.perf_counter()
        ctx.adapter = bench.backbone.use_adapter(adapter)  # the same, found or trained: these values, no gradients
        state = self.call("end_task", position, ctx, before, adapter)
        check_state(bench, state, f"method {method.name}: end_task() {where}")
        bench.backbone.use_adapter(None)
        return state, seconds + time.perf_counter() - began

    def base_row(self) -> tuple[dict[str, list[float]], list[str]]:
        """Every task scored with the untouched model, and the cells' keys: drawn once a track, whatever the method."""
        return self._cells(0, State(), Delta(), len(self.tasks))

    def _cells(
        self, position: int, state: State, weights: Delta, count: int
    ) -> tuple[dict[str, list[float]], list[str]]:
        """Scores by metric and keys of the first `count` tasks' cells."""
        scores: dict[str, list[float]] = {metric: [] for metric in self.bench.track.metrics}
        keys = []
        weights_digest = digest(weights)
        for task in self.tasks[:count]:
            prompts = self.prompts(position, state, self.bench.track.eval_prompts(task))
            key, found = self.bench.cell(task, prompts, weights, weights_digest)
            keys.append(key)
            for metric, value in found.items():
                scores[metric].append(value)
            self.report(self.bench.cell_work, f"{self._label(position)}: scoring")
        return scores, keys

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
        """One of the method's hooks."""
        return self.guard(f"{hook}()", position, lambda: getattr(self.method, hook)(*arguments))

    def guard(self, what: str, position: int, work: Callable[[], Any]) -> Any:
        """Run what may hold a plugin's code; its errors become one sentence that says where."""
        try:
            return work()
        except ClbenchError:
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

    def _label(self, position: int) -> str:
        count = f"task {position + 1} of {len(self.tasks)}"
        return f"order {self.order} seed {self.seed}, {count}: {self.tasks[position].name}"


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """One row of pictures of the same size."""
    width, height = images[0].size
    strip = Image.new("RGB", (width * len(images), height))
    for index, image in enumerate(images):
        strip.paste(image, (index * width, 0))
    return strip


def score_matrix(metric: str, base: Mapping[str, list[float]], rows: list[Row]) -> np.ndarray:
    """(T + 1) x T, nan above the tasks seen."""
    matrix = np.full((len(rows) + 1, len(rows)), np.nan)
    matrix[0] = base[metric]
    for index, row in enumerate(rows, start=1):
        matrix[index, :index] = row.scores[metric]
    return matrix


# --- what a hook may return -----------------------------------------------------------------------------------------


def check_delta(bench: Bench, delta: Any, where: str) -> None:
    if not isinstance(delta, Mapping):
        raise WorkFailed(f"{where} returned {type(delta).__name__}, expected a mapping of layer to tensor")
    for layer, value in delta.items():
        _check_tensor(value, bench.backbone.shapes.get(layer), f"{where}: layer {layer!r}")


def check_adapter(bench: Bench, adapter: Any, where: str) -> None:
    if not isinstance(adapter, Adapter):
        raise WorkFailed(f"{where} returned {type(adapter).__name__}, expected an Adapter")
    rank = bench.suite.training.rank
    if adapter.scale != bench.backbone.scale:
        raise WorkFailed(f"{where}: the adapter's scale is {adapter.scale}, expected {bench.backbone.scale}")
    for factor, shapes in (
        ("A", {layer: (rank, inputs) for layer, (_, inputs) in bench.backbone.shapes.items()}),
        ("B", {layer: (outputs, rank) for layer, (outputs, _) in bench.backbone.shapes.items()}),
    ):
        tensors = getattr(adapter, factor)
        if not isinstance(tensors, Mapping):
            raise WorkFailed(f"{where}: the adapter's {factor} is {type(tensors).__name__}, expected a mapping")
        if missing := sorted(set(shapes) - set(tensors)):
            raise WorkFailed(f"{where}: the adapter's {factor} lacks {len(missing)} layers, e.g. {missing[0]!r}")
        for layer, value in tensors.items():
            _check_tensor(value, shapes.get(layer), f"{where}: {factor} of layer {layer!r}")


def check_state(bench: Bench, state: Any, where: str) -> None:
    if not isinstance(state, State):
        raise WorkFailed(f"{where} returned {type(state).__name__}, expected a State")
    check_delta(bench, state.merged, where)
    if state.adapter is not None and not isinstance(state.adapter, Adapter):
        raise WorkFailed(f"{where}: the state's adapter is {type(state.adapter).__name__}, expected an Adapter or None")
    factors = [state.adapter.A, state.adapter.B] if state.adapter else []
    if not all(isinstance(part, Mapping) for part in (*factors, state.extra)):
        raise WorkFailed(f"{where}: the state holds something else than mappings of names to tensors")
    for name, value in state.tensors().items():
        if not isinstance(value, Tensor) or (value.is_floating_point() and not bool(torch.isfinite(value).all())):
            raise WorkFailed(f"{where}: {name!r} of the state is not a tensor of finite values")


def check_examples(bench: Bench, examples: Any, where: str) -> None:
    if not isinstance(examples, list) or not examples or not all(isinstance(one, Example) for one in examples):
        raise WorkFailed(f"{where} returned {type(examples).__name__}, expected a list of one or more Examples")
    size = bench.suite.resolution
    for number, example in enumerate(examples, start=1):
        _check_tensor(example.pixels, (3, size, size), f"{where}: the pixels of example {number}")


def _check_tensor(value: Any, shape: tuple[int, ...] | None, where: str) -> None:
    if shape is None:
        raise WorkFailed(f"{where} is not an adapted layer of this backbone")
    if not isinstance(value, Tensor):
        raise WorkFailed(f"{where} is {type(value).__name__}, expected a tensor")
    if tuple(value.shape) != shape:
        raise WorkFailed(f"{where} has shape {tuple(value.shape)}, expected {shape}")
    if not bool(torch.isfinite(value).all()):
        raise WorkFailed(f"{where} holds NaN or infinity")


# --- one result -----------------------------------------------------------------------------------------------------


def run(
    method: str,
    track: str,
    suite: str = "mini-v1",
    *,
    orders: Iterable[str] | None = None,
    seeds: Iterable[int] | None = None,
    quick: bool = False,
    output: str | Path = "runs",
    settings: Mapping[str, Any] | None = None,
    plugins: tuple[Path, ...] = (),
    device: str | None = None,
    precision: str = "fp32",
    resume: bool = True,
    report: Report = silent,
    started: Callable[[float], None] = lambda work: None,
) -> Result:
    """Run a method through the protocol and write `<output>/<suite>/<track>/<method>.json`.

    Args:
        orders, seeds: a part of the protocol; default all. `quick` means the first order and the first seed.
        settings: the method's hyper-parameters.
        device: default CUDA where there is one, else the CPU.
        precision: "fp32" or "bf16" (autocast; adapters stay fp32).
        resume: whether work of earlier processes found under `output` counts.
        report: told of progress. started: told the whole amount of work before it begins.

    Raises:
        ClbenchError: bad input. WorkFailed: the work failed; what was finished is kept.
    """
    definition = load_suite(suite)
    instance = get_method(method, settings, plugins)
    chosen = definition.track(track)
    order_names = _chosen(list(chosen.orders), orders, "order", quick)
    seed_values = _chosen(list(definition.seeds), seeds, "seed", quick)
    if precision not in ("fp32", "bf16"):
        raise ClbenchError(f"there is no precision {precision!r} (known: fp32, bf16)")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check_device(device)
    reference = _reference(instance)
    folder = Path(output)
    write_atomic(folder / ".writable", lambda path: path.touch())
    (folder / ".writable").unlink()
    bench = Bench(definition, track, Store(folder / "store", reuse=resume), device, precision)
    started(bench.work(len(order_names) * len(seed_values)))
    report(0, "loading the models")
    controls = bench.controls()
    runs = []
    for order in order_names:
        for seed in seed_values:
            runs.append(Sequence(bench, instance, order, seed, report).run())
    result = Result(
        schema_version="1",
        suite=SuiteRef(name=definition.name, version=definition.version, sha256=definition.sha256),
        track=track,
        method=reference,
        backbone=BackboneRef(id=definition.backbone.source, revision=definition.backbone.sha256),
        runs=tuple(runs),
        controls=controls,
        summary=summarize(tuple(runs), controls, chosen),
        partial=len(runs) < len(chosen.orders) * len(definition.seeds),
        environment=describe(device),
        settings={"device": device, "precision": precision},
        command=_command(method, track, suite, order_names, seed_values, chosen, definition, instance, plugins),
        created_at=datetime.now(UTC).replace(microsecond=0),
        submitter=None,
    )
    save_result(result, result_path(folder, result))
    return result


def result_path(output: Path, result: Result) -> Path:
    """Where `run` puts a result; a partial one gets a name of its own, so that it never replaces a whole one."""
    name = f"{result.method.name}.partial.json" if result.partial else f"{result.method.name}.json"
    return output / result.suite.name / result.track / name


def _reference(method: Method) -> MethodRef:
    """What the result will say of the method: made first, so that no run ends with a result that cannot be written."""
    source = source_of(method)
    try:
        return MethodRef(
            name=method.name,
            version=method.version,
            config=method.config.model_dump(mode="json"),
            source_sha256=source.sha256,
            distribution=source.distribution,
        )
    except ValueError as error:  # pydantic's errors are ValueErrors, both ways
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("config",), "msg": str(error)}
        place = f"method {method.name!r} ({source.path}): its {'.'.join(map(str, first['loc']))}"
        raise ClbenchError(f"{place} cannot be recorded in a result: {first['msg']}") from None


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ClbenchError(f"there is no device {device!r} here: {reason}") from None


def _chosen(known: list[Any], wanted: Iterable[Any] | None, what: str, quick: bool) -> list[Any]:
    if wanted is None:
        return known[:1] if quick else known
    wanted = list(dict.fromkeys(wanted))
    for value in wanted:
        if value not in known:
            raise ClbenchError(f"the protocol has no {what} {value!r} (known: {', '.join(map(str, known))})")
    if not wanted:
        raise ClbenchError(f"no {what} was chosen (known: {', '.join(map(str, known))})")
    return wanted


def _command(
    method: str,
    track: str,
    suite: str,
    orders: list[str],
    seeds: list[int],
    chosen: Track,
    definition: Suite,
    instance: Method,
    plugins: tuple[Path, ...],
) -> str:
    """The command line that makes the same result again."""
    words = ["clbench", "run", "--method", method, "--track", track, "--suite", suite]
    if orders != list(chosen.orders):
        words += ["--orders", ",".join(orders)]
    if seeds != list(definition.seeds):
        words += ["--seeds", ",".join(map(str, seeds))]
    defaults = type(instance)().config if not _required(instance) else None
    for name, value in instance.config.model_dump(mode="json").items():
        if defaults is None or getattr(defaults, name) != getattr(instance.config, name):
            words += ["--set", f"{name}={json.dumps(value)}"]
    for plugin in plugins:
        words += ["--plugin", plugin.name]
    return shlex.join(words)


def _required(instance: Method) -> bool:
    return any(field.is_required() for field in type(instance.config).model_fields.values())


def peak_memory(device: str) -> int | None:
    """Highest memory use of this process on the device, in bytes."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
