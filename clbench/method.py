"""The class that a plugin extends, and the arguments of its hooks.

A plugin is one Python file with a class:

    from clbench import Method

    class MergeInit(Method):
        \"\"\"Merge each task's adapter into the weights and start the next from a fresh one.\"\"\"
        name = "merge_init"

        def end_task(self, ctx, state, adapter):
            return state.with_merged(state.merged + adapter.delta())

Defining a subclass with a name registers it. `clbench.plugins` finds plugins in `methods/`, in files given with
`--plugin`, and in installed packages that declare an entry point in the group `clbench.methods`.
`clbench check mine.py` runs all hooks in seconds; `--debug` shows tracebacks and lets `breakpoint()` work.

A method decides about weights: it sees its state, the task's training data and the model, never the evaluation. Its
code runs in processes of its own, a new one for each task, which hand back states (`docs/trust.md`): what it keeps in
globals, on its class or in files is lost, and `--debug` alone runs it in the process that scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clbench.errors import ClbenchError, did_you_mean

if TYPE_CHECKING:  # `clbench list methods` must not load torch
    import torch
    from torch import Tensor, nn

    from clbench.lora import Adapter, AnyAdapter, Delta, PeftAdapter
    from clbench.state import State
    from clbench.suite import Training
    from clbench.tokens import Tokens


@dataclass(frozen=True)
class Batch:
    """One training batch."""

    latents: Tensor
    """Clean latents, [N, C, h, w]."""
    noise: Tensor
    """Gaussian noise of the same shape."""
    timesteps: Tensor
    """Diffusion timesteps, int64 [N]."""
    examples: Tensor
    """Index of each row's training example, int64 [N]."""


@dataclass(frozen=True)
class Example:
    """One training image with its prompt."""

    pixels: Tensor
    """float [3, H, W] in [-1, 1]."""
    prompt: str
    original_size: tuple[int, int] | None = None
    """(height, width) of the image before cropping, for SDXL's conditioning; None = that of `pixels`."""
    corner: tuple[int, int] = (0, 0)
    """(top, left) of the crop."""


def _not_available(*_: Any, **__: Any) -> Any:
    raise RuntimeError(
        "ctx.batches, ctx.denoising_loss and ctx.predict are available in prepare, during training and in end_task"
    )


def _no_text_encoders(text: str) -> Any:
    raise RuntimeError("ctx.token_vectors is available in trainings alone")


@dataclass
class Context:
    """What a method can see and use during one task."""

    position: int
    """0 for the first task."""
    task: str
    """The task's name."""
    prompt: str
    """The task's training prompt."""
    rank: int
    """The suite's rank of an adapter."""
    scale: float
    """alpha / rank."""
    shapes: Mapping[str, tuple[int, int]]
    """Adapted layer -> (out, in)."""
    generator: torch.Generator
    """For the method's own random numbers; on the CPU, seeded by (seed, position, method)."""
    state: State
    """The state after the previous task."""
    modules: Mapping[str, nn.Module]
    """Adapted layer -> the live module, for forward hooks."""
    sample: Callable[[Sequence[str], int, Mapping[str, Tensor]], Tensor]
    """`sample(prompts, images_each, weights)`: images of any model, prompt by prompt, float [N, 3, H, W] in [-1, 1].

    Their noise differs from the evaluation's. Not to be called in `loss`, whose graph needs the deployed weights.
    """
    base_weight: Callable[[str], Tensor]
    """`base_weight(layer)`: the layer's weight in the untouched model, fp32 [out, in], on the CPU."""
    training: Training
    """The suite's training settings; its `learning_rate` is the method's own where that is set, and from the first step
    on its `steps` are those that the method's hook gave."""
    token_vectors: Callable[[str], list[Tensor]] = _no_text_encoders
    """`token_vectors(text)`: input embeddings of a text's tokens in each text encoder, float32 [n_i, d_i], on the CPU.

    A learned token in the text has its present vector.
    """
    step: int = 0
    """The current training step."""
    adapter: Any = None
    """From `prepare` on: the live adapter, whose A and B (of a `PeftAdapter`: values) are the trained parameters."""
    tokens: Tokens = field(default_factory=dict)
    """From `prepare` on: the tokens of `new_tokens`, whose vectors are trained parameters; in `end_task` detached."""
    batches: Callable[[int], Iterator[Batch]] = _not_available
    """From `prepare` on: `batches(count)` draws more training batches, with a generator of its own."""
    denoising_loss: Callable[[Batch], Tensor] = _not_available
    """From `prepare` on: the diffusion loss of a batch under the live weights."""
    predict: Callable[..., Tensor] = _not_available
    """From `prepare` on: `predict(batch, prompts=None, weights=None)`, the U-Net's output for a batch, no gradient.

    Float [N, C, h, w]: the noise or the velocity, as the model was trained. `prompts`: a text for each row, instead of
    the examples' own. `weights`: the weight changes of another model, such as `self.weights(ctx.state)`, which then
    predicts without the live adapter. May be called in `loss`.
    """
    predicted: Tensor = None  # type: ignore[assignment]
    """In `loss`: the live U-Net's output for the step's batch, float [N, C, h, w], with its gradient; None before."""

    def fresh_adapter(self, ranks: Mapping[str, int] | None = None) -> Adapter:
        """A new adapter as PEFT's `gaussian` initialises it: A ~ N(0, (1/r)^2), B = 0.

        Args:
            ranks: layer -> its rank r, at most the suite's; other layers are not trained. Default the suite's on all.
        """
        import torch

        from clbench.lora import Adapter

        ranks = dict.fromkeys(self.shapes, self.rank) if ranks is None else ranks
        A = {
            name: torch.randn(rank, self.shapes[name][1], generator=self.generator) / rank
            for name, rank in ranks.items()
        }
        return Adapter(A, {name: torch.zeros(self.shapes[name][0], rank) for name, rank in ranks.items()}, self.scale)

    def peft_adapter(self, kind: str, layers: Sequence[str] | None = None, **settings: Any) -> PeftAdapter:
        """A new adapter of another kind, such as `ctx.peft_adapter("DORA", r=8, lora_alpha=8)`, as PEFT initialises it.

        Args:
            kind: DORA, LOHA, LOKR, OFT or VERA.
            layers: the layers that it changes; default all.
            settings: PEFT's own. The parameters may be at most as many as those of the suite's adapter.
        """
        import torch

        from clbench.lora import PeftAdapter

        seed = int(torch.randint(2**62, (), generator=self.generator))
        return PeftAdapter(kind, settings, tuple(dict.fromkeys(self.shapes if layers is None else layers)), seed)


Family = Literal["", "paper", "bound", "regularization", "orthogonal", "merging", "replay", "distillation", "tokens"]
"""What a method's `family` may be, in the order in which methods are listed; "" = it names none."""
FAMILIES: tuple[Family, ...] = get_args(Family)
BOUND: Family = "bound"
"""The family of methods that are not continual, such as one that keeps all data."""


@dataclass(frozen=True)
class SearchRange:
    """Where `clbench tune` looks for a setting: `strength: Annotated[float, SearchRange(0.1, 10)] = Field(1.0)`."""

    low: float
    high: float
    log: bool = True
    """Whether each factor is as likely as any other, instead of each difference."""
    relative: bool = False
    """Whether `low` and `high` are multiples of the suite's value."""


class Settings(BaseModel):
    """The settings that every method has; a method with more of its own extends this class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: Annotated[float | None, SearchRange(0.25, 4, relative=True)] = Field(
        None, gt=0, le=1, description="Learning rate; default the suite's."
    )


class Method:
    """Base class of all plugins. Every hook has a default; together they merge each task's adapter into the weights."""

    name: ClassVar[str] = ""
    """The name that `--method` takes; a class without one is not registered."""
    version: ClassVar[str] = "1"
    family: ClassVar[Family] = ""
    """What kind of method it is. A "bound" may train longer than the suite allows, and has no rank."""
    paper: ClassVar[str] = ""
    """The title of the paper that it comes from."""
    arxiv: ClassVar[str] = ""
    """That paper's arXiv identifier."""
    year: ClassVar[str] = ""
    """The year in which that paper was first public."""
    code: ClassVar[str] = ""
    """URL of the public code that was read for it."""
    departures: ClassVar[str] = ""
    """Where it departs from paper and code, in a sentence or two."""
    Config: ClassVar[type[BaseModel]] = Settings
    """Settings, as a pydantic model: `--set key=value` is validated with it, and the result records them.

    One that has no `learning_rate` trains with the suite's.
    """

    def __init__(self, /, **settings: Any) -> None:
        if not (isinstance(self.Config, type) and issubclass(self.Config, BaseModel)):
            raise ClbenchError(
                f"method {self.name}: its Config is {self.Config!r}, expected a pydantic model (a class)"
            )
        fields = self.Config.model_fields
        known = [*fields, *(field.alias for field in fields.values() if field.alias)]
        for name in settings:  # a plain pydantic model would ignore an unknown one
            if name not in known:
                raise ClbenchError(f"method {self.name} has no setting {name!r}{did_you_mean(name, known)}")
        try:
            self.config: Any = self.Config(**settings)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise ClbenchError(f"method {self.name}: setting {field!r}: {first['msg']}") from None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            REGISTRY[cls.name] = cls

    def begin_task(self, ctx: Context, state: State) -> AnyAdapter | None:
        """The adapter to train; None trains none in this task, and `end_task` then receives None.

        An `Adapter` may have fewer layers than `ctx.shapes`, and smaller ranks than `ctx.rank`; what it has is trained.
        A `PeftAdapter` is trained too, but `end_task` merges it: a state's adapter is an `Adapter`.
        """
        return ctx.fresh_adapter()

    def frozen(self, state: State) -> Delta:
        """The weight changes that the model has, frozen, while the adapter trains."""
        return state.merged

    def new_tokens(self, ctx: Context, state: State) -> Tokens:
        """Learned tokens that are trained in this task beside the adapter: word -> the vectors to start from.

        A word looks like `<style-3>`, and has one vector for each text encoder, float32 [d_i]: for example, rows of
        `ctx.token_vectors("boot")`. `data` or `prompts` puts it into training prompts, where it is one position, and
        `end_task` puts what was learned, `ctx.tokens`, into the state (`State.with_tokens`). Tokens are trained alone
        where `begin_task` returned None; the hooks between then see no adapter, and `prepare` is not called.
        """
        return {}

    def tokens(self, state: State) -> Tokens:
        """The learned tokens that prompts may contain: frozen in a training, and for evaluation.

        One of the same word in `new_tokens` takes its place. In the evaluation's prompts a word stands for its token
        only where `prompts` put it; there are at most 64.
        """
        return state.tokens

    def data(self, ctx: Context, examples: list[Example]) -> list[Example]:
        """The training examples; a replay method adds some of its own."""
        return examples

    def prompts(self, state: State, prompts: list[str]) -> list[str]:
        """The prompts that the model receives; a method that learns tokens replaces words in them.

        A training gives the prompts of its examples. The evaluation's prompts are never given: instead, for every task
        so far, each field of its training prompt is, as a text of its own, such as `["sks", "boot"]`, and what is
        returned for a field takes its place in the evaluation's prompts.
        """
        return prompts

    def prepare(self, ctx: Context, adapter: Adapter) -> Adapter:
        """The adapter to train, chosen from data: called once before the first step, with the frozen weights deployed.

        `adapter` is what `begin_task` returned; its live copy is `ctx.adapter`, so that losses have gradients.
        """
        return adapter

    def steps(self, ctx: Context) -> int:
        """The number of steps of the task's training; only a bound may take more than the suite allows."""
        return ctx.training.steps

    def optimizer(self, ctx: Context, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """The optimizer of a task's training; `parameters` are the adapter's factors and `ctx.tokens`'s vectors."""
        import torch

        return torch.optim.AdamW(
            parameters,
            lr=ctx.training.learning_rate,
            betas=ctx.training.betas,
            eps=1e-8 if ctx.training.epsilon is None else ctx.training.epsilon,
            weight_decay=ctx.training.weight_decay,
            fused=True,
        )

    def loss(self, ctx: Context, batch: Batch) -> Tensor | float:
        """Terms to add to the diffusion loss."""
        return 0.0

    def on_gradients(self, ctx: Context) -> None:
        """Called between the backward pass and the optimizer's step, before gradients are clipped."""

    def after_step(self, ctx: Context) -> None:
        """Called after each step of the optimizer; a method may change the live factors in place, under no_grad."""

    def end_task(self, ctx: Context, state: State, adapter: Adapter) -> State:
        """The state to pass on; `adapter` is trained and detached, or None if `begin_task` returned None."""
        return state.with_merged(state.merged + adapter.delta())

    def weights(self, state: State) -> Delta:
        """The weight changes to deploy, and so to evaluate."""
        return state.merged if state.adapter is None else state.merged + state.adapter.delta()

    def weights_for(self, state: State, task: str) -> Delta:
        """The weight changes for images of one of the tasks so far, for a method that is told the task at sampling.

        A method that defines this is ranked apart. What is drawn without a task in mind, such as unrelated prompts,
        gets `weights`.
        """
        return self.weights(state)

    def shapes_training(self) -> bool:
        """Whether this class changes the training itself, because it overrides a hook that acts inside it.

        If it does not, the first task's training is shared with other methods. A method that observes training through
        forward hooks on `ctx.modules` must override this to return True.
        """
        hooks = (
            "new_tokens",
            "tokens",
            "data",
            "prompts",
            "prepare",
            "steps",
            "optimizer",
            "loss",
            "on_gradients",
            "after_step",
        )
        return any(getattr(type(self), hook) is not getattr(Method, hook) for hook in hooks)


REGISTRY: dict[str, type[Method]] = {}
"""Name -> class of every method defined in this process; `clbench.plugins` loads the known plugins."""
