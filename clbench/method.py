"""Methods: what a plugin is, how it is registered, and how it is found.

A plugin is one Python file with a class:

    from clbench import Method

    class MergeInit(Method):
        \"\"\"Merge each task's adapter into the weights and start the next from a fresh one.\"\"\"
        name = "merge_init"

        def end_task(self, ctx, state, adapter):
            return state.with_merged(state.merged + adapter.delta())

Defining a named subclass registers it. Plugins are found in `methods/`, in files given with `--plugin`, and in
installed packages that declare an entry point in the group `clbench.methods`.

A method owns weights: it sees its state, the task's training data and the model, never the evaluation.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from clbench.errors import ClbenchError, WorkFailed, did_you_mean
from clbench.suite import content_root

if TYPE_CHECKING:  # `clbench list methods` must not pay for torch
    import torch
    from torch import Tensor, nn

    from clbench.lora import Adapter, Delta
    from clbench.state import State


@dataclass(frozen=True)
class Batch:
    """One training batch."""

    latents: Tensor
    """Clean latents, [N, C, h, w]."""
    noise: Tensor
    """Gaussian noise of the same shape."""
    timesteps: Tensor
    """Diffusion time steps, int64 [N]."""
    examples: Tensor
    """Which training example each row is, int64 [N]."""


@dataclass(frozen=True)
class Example:
    """One training image with its prompt."""

    pixels: Tensor
    """float [3, H, W] in [-1, 1]."""
    prompt: str
    original_size: tuple[int, int] | None = None
    """(height, width) of the picture these pixels were cut from, for SDXL's conditioning; None = that of the pixels."""
    corner: tuple[int, int] = (0, 0)
    """(top, left) of the cut."""


def _only_later(*_: Any) -> Any:
    raise RuntimeError("ctx.batches and ctx.denoising_loss are there while training and in end_task")


@dataclass
class Context:
    """What a method may see and use during one task."""

    position: int
    """0 for the first task."""
    task: str
    """The task's name."""
    prompt: str
    """The task's training prompt."""
    rank: int
    """The registered rank."""
    scale: float
    """alpha / rank of a registered adapter."""
    shapes: Mapping[str, tuple[int, int]]
    """Adapted layer -> (out, in)."""
    generator: torch.Generator
    """For the method's own draws: seeded by (seed, position, method), on the CPU."""
    state: State
    """What the previous task handed on."""
    modules: Mapping[str, nn.Module]
    """Adapted layer -> the live module, for forward hooks."""
    sample: Callable[[Sequence[str], int, Mapping[str, Tensor]], Tensor]
    """`sample(prompts, images_each, weights)`: images of any model, prompt by prompt, float [N, 3, H, W] in [-1, 1].

    Their noise is the method's own, never the evaluation's. Not in `loss`, whose graph needs the deployed weights.
    """
    step: int = 0
    """The current training step."""
    adapter: Adapter | None = None
    """While training: the live adapter, whose A and B are the trained parameters."""
    batches: Callable[[int], Iterator[Batch]] = _only_later
    """While training and in `end_task`: `batches(count)` draws more training batches, from a stream of their own."""
    denoising_loss: Callable[[Batch], Tensor] = _only_later
    """While training and in `end_task`: the diffusion loss of a batch under the live weights."""

    def fresh_adapter(self) -> Adapter:
        """PEFT's `gaussian` start: A ~ N(0, (1/r)^2), B = 0."""
        import torch

        from clbench.lora import Adapter

        A = {
            name: torch.randn(self.rank, inputs, generator=self.generator) / self.rank
            for name, (_, inputs) in self.shapes.items()
        }
        return Adapter(A, {name: torch.zeros(out, self.rank) for name, (out, _) in self.shapes.items()}, self.scale)


class NoConfig(BaseModel):
    """The hyper-parameters of a method that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method:
    """Base class of all plugins; every hook has a default, which together make "keep the newest adapter merged"."""

    name: ClassVar[str] = ""
    """What `--method` takes; a class without one is not registered."""
    version: ClassVar[str] = "1"
    Config: ClassVar[type[BaseModel]] = NoConfig
    """Hyper-parameters, as a pydantic model: `--set key=value` is checked against it and the result records it."""

    def __init__(self, /, **settings: Any) -> None:
        try:
            self.config: Any = self.Config(**settings)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            if not self.Config.model_fields:
                raise ClbenchError(f"method {self.name} has no settings, and so no {field!r}") from None
            known = did_you_mean(field, list(self.Config.model_fields)) if first["type"] == "extra_forbidden" else ""
            raise ClbenchError(f"method {self.name}: setting {field!r}: {first['msg']}{known}") from None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            _REGISTRY[cls.name] = cls

    def begin_task(self, ctx: Context, state: State) -> Adapter | None:
        """How the task's adapter starts: fresh. None trains nothing for this task; `end_task` is then given None."""
        return ctx.fresh_adapter()

    def frozen(self, state: State) -> Delta:
        """Which weight changes are frozen into the model while the adapter trains: what was merged."""
        return state.merged

    def data(self, ctx: Context, examples: list[Example]) -> list[Example]:
        """The training examples; a replay method adds its own."""
        return examples

    def prompts(self, state: State, prompts: list[str]) -> list[str]:
        """The prompts as this method's model wants them; a method that learns tokens replaces words."""
        return prompts

    def loss(self, ctx: Context, batch: Batch) -> Tensor | float:
        """Terms to add to the diffusion loss."""
        return 0.0

    def on_gradients(self, ctx: Context) -> None:
        """Called between backward and the optimizer's step, before clipping."""

    def end_task(self, ctx: Context, state: State, adapter: Adapter) -> State:
        """What is handed on; `adapter` is trained and detached (None where `begin_task` returned None)."""
        return state.with_merged(state.merged + adapter.delta())

    def weights(self, state: State) -> Delta:
        """The weight changes that are deployed, and so evaluated."""
        return state.merged if state.adapter is None else state.merged + state.adapter.delta()

    def shapes_training(self) -> bool:
        """Whether this class overrides a hook that acts inside training, so that its training is its own.

        Else its first task's training may be another method's. One that watches training through forward hooks of
        `ctx.modules` overrides this to say True.
        """
        hooks = ("data", "prompts", "loss", "on_gradients")
        return any(getattr(type(self), hook) is not getattr(Method, hook) for hook in hooks)


@dataclass(frozen=True)
class Source:
    """Where a method came from."""

    path: Path
    sha256: str
    distribution: str | None


_REGISTRY: dict[str, type[Method]] = {}
_EXECUTED: dict[Path, str] = {}
"""Plugin file -> sha256 of what this process ran of it; the file may have been edited since."""


def list_methods(plugins: Sequence[Path] = ()) -> dict[str, type[Method]]:
    """All methods by name: `methods/`, entry points, and the given files (later ones win)."""
    for path in sorted((content_root() / "methods").glob("*.py")):
        _load(path)
    for point in importlib.metadata.entry_points(group="clbench.methods"):
        try:
            point.load()
        except Exception as error:  # somebody else's package must not stop the methods that are whole
            warnings.warn(f"the installed plugin {point.name!r} ({point.value}) does not load: {error!r}", stacklevel=2)
    for path in plugins:
        _load(Path(path))
    return dict(sorted(_REGISTRY.items()))


def get_method(name: str, settings: Mapping[str, Any] | None = None, plugins: Sequence[Path] = ()) -> Method:
    """An instance of a registered method.

    Raises:
        ClbenchError: unknown name (with a suggestion) or a setting its Config refuses.
        WorkFailed: a plugin file that does not load.
    """
    methods = list_methods(plugins)
    if name not in methods:
        raise ClbenchError(f"there is no method {name!r}{did_you_mean(name, list(methods))}")
    return methods[name](**(settings or {}))


def source_of(method: Method) -> Source:
    """The file that defines a method, its checksum, and the distribution that installed it, if one did.

    The checksum is of that file alone; where the method inherits from classes in other files, or is a part of a
    package, of all those files and of all that package's.
    """
    own = [cls for cls in type(method).__mro__ if issubclass(cls, Method) and cls is not Method]
    try:
        files = [Path(inspect.getfile(cls)) for cls in own]
    except (TypeError, OSError):
        raise ClbenchError(
            f"method {method.name} is not defined in a file; write it into one and give it as a plugin"
        ) from None
    module = type(method).__module__.split(".")[0]
    installed = _distributions().get(module)
    distribution = f"{installed[0]} {importlib.metadata.version(installed[0])}" if installed else None
    return Source(files[0], _sha256({*files, *_package_files(module)}), distribution)


def _package_files(module: str) -> list[Path]:
    """All Python files of a package; none of a module that is a file."""
    return [path for folder in getattr(sys.modules[module], "__path__", ()) for path in Path(folder).rglob("*.py")]


def _sha256(files: Iterable[Path]) -> str:
    """Of one file's content; of several the checksum of their sorted checksums, wherever they lie."""
    each = sorted(_EXECUTED.get(path) or hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    return each[0] if len(each) == 1 else hashlib.sha256("\n".join(each).encode()).hexdigest()


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Importable name -> the distributions that install it; reading all of them takes a third of a second."""
    return importlib.metadata.packages_distributions()


def _load(path: Path) -> None:
    """Register the methods of a file: run once a process, registered every time, so that the file named last wins."""
    path = path.resolve()
    name = f"clbench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module = sys.modules.get(name) or _execute(path, name)
    defined = [cls for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, Method) and cls.name]
    if not defined:
        raise ClbenchError(f"{path} defines no Method with a name")
    _REGISTRY.update({cls.name: cls for cls in defined})


def _execute(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise ClbenchError(f"there is no plugin file {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ClbenchError(f"{path} is not a Python file; a plugin is a .py file that defines a Method")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        content = path.read_bytes()  # once, and past all caches: what runs is what the checksum is of
        exec(compile(content, path, "exec"), module.__dict__)
        _EXECUTED[path] = hashlib.sha256(content).hexdigest()
    except Exception as error:
        del sys.modules[name]
        raise WorkFailed(f"the plugin {path} does not load: {type(error).__name__}: {error}") from error
    return module
