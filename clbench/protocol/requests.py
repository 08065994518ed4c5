"""What is asked of a method, as frozen records that go to a training process, and what comes back.

A request holds all that its work needs: tensors, training prompts, names of tasks that were begun, and seeds. Nothing
in it says how the result is scored. A reply is data: fields that are JSON, and tensors as a `State`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from clbench.backbones.sdxl import Backbone
from clbench.backbones.text_tokens import token_vectors, token_widths
from clbench.errors import WorkFailed
from clbench.lora import Adapter, AnyAdapter, Delta
from clbench.method import Context, Example, Method
from clbench.protocol.hook_checks import AdapterSpec, check_no_hooks, check_words_are_used
from clbench.protocol.hook_runner import HookRunner
from clbench.protocol.sampling import draw_for_method
from clbench.protocol.trainer import TaskDataset, fit
from clbench.state import State
from clbench.suite import Sampling, Training
from clbench.tokens import Tokens
from clbench.utils.seeding import generator

EmitEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Reply:
    """What a request gives."""

    fields: dict[str, Any] = field(default_factory=dict)
    """As JSON."""
    state: State = field(default_factory=State)
    """Tensors; which of them, the request says."""


@dataclass(frozen=True)
class TaskView:
    """What a method may know of one task."""

    position: int
    """0 for the first task."""
    name: str
    prompt: str
    """The task's training prompt."""
    seed: int
    """The run's seed."""
    state: State
    """The state that the request starts from: for a training, the one after the previous task."""
    spec: AdapterSpec
    resolution: int
    """Of the training images, in pixels."""

    def hooks(self, method: Method, emit: EmitEvent) -> HookRunner:
        return HookRunner(method, {self.position: self.name}, self.seed, self.spec, self.resolution, emit)

    def context(
        self,
        training: Training,
        modules: Mapping[str, Any] | None = None,
        sample: Callable[..., Tensor] | None = None,
        base_weight: Callable[[str], Tensor] | None = None,
        token_vectors: Callable[[str], list[Tensor]] | None = None,
    ) -> Context:
        """What hooks see; without the model where that is not given."""
        return Context(
            position=self.position,
            task=self.name,
            prompt=self.prompt,
            rank=self.spec.rank,
            scale=self.spec.scale,
            shapes=self.spec.shapes,
            # The method's name is not in its seed: fresh adapters of all methods are alike.
            generator=generator(self.seed, "method", self.position),
            state=self.state,
            modules=modules or {},
            sample=sample or _no_model,
            base_weight=base_weight or _no_model,
            training=training,
            token_vectors=token_vectors or _no_model,
        )


@dataclass(frozen=True)
class Request(ABC):
    """Something that is asked about one task."""

    task: TaskView
    needs_backbone: ClassVar[bool] = False
    """Whether it is answered with the model."""
    needs_method: ClassVar[bool] = True
    """Whether it is answered with the method; False: with the base class, in a process without the plugin."""
    hook: ClassVar[str]
    """The hook that gives the reply's tensors."""

    @abstractmethod
    def answer(self, hooks: HookRunner, backbone: Backbone | None, emit: EmitEvent) -> Reply:
        """Do what is asked.

        Args:
            backbone: as the base model; None where the request does not need it.
            emit: called with `loss`, `work` and `output` events.

        Raises:
            WorkFailed: a hook raised or returned something unusable.
        """


@dataclass(frozen=True)
class StartRequest(Request):
    """What the training of a first task starts from, without the model.

    The reply's state has the adapter and, as `merged`, the frozen weight changes; no adapter where the training may not
    be shared with other methods, such as that of another adapter than LoRA, or cannot be said without the model.
    """

    training: Training
    hook: ClassVar[str] = "begin_task()"

    def answer(self, hooks: HookRunner, backbone: Backbone | None, emit: EmitEvent) -> Reply:
        if hooks.shapes_training():
            return Reply()
        start = hooks.begin_task(self.task.context(self.training), self.task.state)
        if start is not None and not isinstance(start, Adapter):
            return Reply()
        frozen = hooks.frozen(self.task.position, self.task.state)
        return Reply({}, State(Delta(frozen), start))


@dataclass(frozen=True)
class FitRequest(Request):
    """The first task's training, which methods that start alike share: no plugin is in its process.

    The reply's state has the trained adapter.
    """

    examples: tuple[Example, ...]
    start: Adapter
    frozen: Delta
    training: Training
    work: float
    """U-Net passes of one image that are reported for the whole training."""
    needs_backbone: ClassVar[bool] = True
    needs_method: ClassVar[bool] = False
    hook: ClassVar[str] = "training"

    def answer(self, hooks: HookRunner, backbone: Backbone | None, emit: EmitEvent) -> Reply:
        assert backbone is not None
        ctx = self.task.context(self.training, backbone.layers)
        backbone.deploy(self.frozen)
        dataset = TaskDataset(backbone, list(self.examples), self.task.resolution)
        adapter = _fit(self.task, self.work, hooks.method, ctx, dataset, self.start, emit)
        backbone.use_adapter(None)
        assert isinstance(adapter, Adapter)
        return Reply({}, State(adapter=adapter))


@dataclass(frozen=True)
class TrainRequest(Request):
    """A task's training, from state to state: the reply's state is the one to pass on.

    Its fields are `passes_with_gradient` and `passes_without`, U-Net passes of one image by the training and hooks, and
    `trained_parameters`, the number of values that the task trained.
    """

    examples: tuple[Example, ...]
    """The task's training images with their prompt."""
    training: Training
    sampling: Sampling
    """For `Context.sample`: the sampler, its steps and its guidance."""
    work: float
    """U-Net passes of one image that are reported for the whole training."""
    trained: Adapter | None = None
    """The trained adapter, where the first task's training is shared."""
    needs_backbone: ClassVar[bool] = True
    hook: ClassVar[str] = "end_task()"

    def answer(self, hooks: HookRunner, backbone: Backbone | None, emit: EmitEvent) -> Reply:
        assert backbone is not None
        task, before = self.task, self.task.state
        backbone.passes.clear()
        noise = generator(task.seed, "method samples", task.position)
        known = hooks.tokens(task.position, before, token_widths(backbone.pipeline))

        def tokens() -> Tokens:
            return {**known, **ctx.tokens}

        def sample(prompts: Sequence[str], images_each: int, weights: Mapping[str, Tensor]) -> Tensor:
            rest = noise, self.sampling, task.resolution, tokens()
            return draw_for_method(backbone, prompts, images_each, weights, *rest)

        def vectors(text: str) -> list[Tensor]:
            return token_vectors(backbone.pipeline, text, tokens())

        ctx = task.context(self.training, backbone.layers, sample, backbone.base_weight, vectors)
        adapter = self._train(hooks, backbone, ctx, tokens, emit)
        live = backbone.use_adapter(adapter)  # found or trained: these values, no gradients
        if live is not None:
            ctx.adapter = live
        state = hooks.end_task(ctx, before, adapter)
        check_no_hooks(backbone.unet, hooks.where("end_task()", task.position))
        backbone.use_adapter(None)
        fields = {"passes_with_gradient": backbone.passes[True], "passes_without": backbone.passes[False]}
        trained = [*(adapter.parameters() if adapter else ()), *(one for own in ctx.tokens.values() for one in own)]
        count = sum(value.numel() for value in trained)
        return Reply({**fields, "trained_parameters": count}, state)

    def _train(
        self, hooks: HookRunner, backbone: Backbone, ctx: Context, tokens: Callable[[], Tokens], emit: EmitEvent
    ) -> AnyAdapter | None:
        """The task's trained adapter; the context is ready for `end_task`. None where the method trains none."""
        task, before = self.task, self.task.state
        start = hooks.begin_task(ctx, before)
        new = hooks.new_tokens(ctx, before, token_widths(backbone.pipeline))
        if start is None and not new:
            emit({"event": "work", "made": self.work})
            return None
        frozen = hooks.frozen(task.position, before)
        examples = hooks.data(ctx, list(self.examples))
        prompts = hooks.prompts(task.position, before, [example.prompt for example in examples])
        examples = [replace(example, prompt=prompt) for example, prompt in zip(examples, prompts, strict=True)]
        check_words_are_used(new, [example.prompt for example in examples], hooks.where("new_tokens()", task.position))
        backbone.deploy(frozen)
        ctx.tokens = {
            word: tuple(torch.nn.Parameter(one.detach().to(backbone.device, copy=True)) for one in vectors)
            for word, vectors in new.items()
        }
        encoding: AbstractContextManager[None] = backbone.text_encoders() if new else nullcontext()
        with encoding:
            dataset = TaskDataset(backbone, examples, task.resolution, tokens)
            own = generator(task.seed, "method batches", task.position)
            ctx.batches = lambda count: dataset.batches(count, self.training, own)
            ctx.denoising_loss, ctx.predict = dataset.loss, dataset.predict
            if hooks.prepares and start is not None:
                ctx.adapter = _live(backbone, start)
                start = hooks.prepare(ctx, start)
            trained = self.trained
            if not trained:
                ctx.training = self.training.model_copy(update={"steps": hooks.steps(ctx)})
                trained = hooks.call_plugin(
                    "training",
                    task.position,
                    lambda: _fit(task, self.work, hooks.method, ctx, dataset, start, emit),
                )
        ctx.tokens = {word: tuple(vector.detach().cpu() for vector in own) for word, own in ctx.tokens.items()}
        return trained


@dataclass(frozen=True)
class DeployRequest(Request):
    """What is evaluated after a task, or what is for images of one task: the reply's state has it, as `merged`.

    Its field `words` has the words that the evaluation's prompts get: task -> field of the prompt templates -> words;
    the state's `extra` has the learned tokens among them.
    """

    words: Mapping[str, Mapping[str, str]]
    """The same, with the words of the training prompts; of the tasks so far."""
    told: str | None = None
    """The task whose images are to be drawn, for a method that is told; None: any."""
    hook: ClassVar[str] = "weights()"

    def answer(self, hooks: HookRunner, backbone: Backbone | None, emit: EmitEvent) -> Reply:
        position, state = self.task.position, self.task.state
        weights = hooks.weights(position, state, self.told)
        changed = {}
        for task, fields in self.words.items():
            changed[task] = dict(zip(fields, hooks.prompts(position, state, list(fields.values())), strict=True))
        return Reply({"words": changed}, State(Delta(weights)).with_tokens(hooks.tokens(position, state)))


def _fit(
    task: TaskView,
    work: float,
    method: Method,
    ctx: Context,
    dataset: TaskDataset,
    start: AnyAdapter | None,
    emit: EmitEvent,
) -> AnyAdapter | None:
    def on_step(step: int, loss: float) -> None:
        emit({"event": "loss", "step": step, "steps": ctx.training.steps, "loss": loss})
        emit({"event": "work", "made": work / ctx.training.steps})

    return fit(dataset.backbone, method, ctx, dataset, start, task.seed, on_step)


def _live(backbone: Backbone, adapter: AnyAdapter) -> AnyAdapter:
    live = backbone.use_adapter(adapter)
    assert live is not None
    return live


def _no_model(*_: Any) -> Any:
    raise WorkFailed(
        "ctx.sample, ctx.base_weight and ctx.token_vectors are not available where the first task's start is asked for "
        "without the model"
    )
