"""What a command was asked to do (`RunConfig`), and all that a worker needs to know of it (`SweepSpec`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypedDict

from pydantic import Field, ValidationError

from clbench.data.assets import TrackAssets
from clbench.errors import ClbenchError, did_you_mean
from clbench.protocol.describe import MethodDescription
from clbench.protocol.device import DeviceConfig
from clbench.results.schema import MethodRef
from clbench.results.tuning import Tuning
from clbench.suite import FrozenModel, Suite
from clbench.variants import Variant


class RunConfig(FrozenModel):
    """How the work is done; none of it is the benchmark's definition."""

    orders: tuple[str, ...] | None = None
    """A part of the protocol's orders; default all."""
    seeds: tuple[int, ...] | None = None
    """A part of the protocol's seeds; default all."""
    quick: bool = False
    """Only the first order and the first seed."""
    output: Path = Path("runs")
    """The folder that results are written to."""
    store: str | None = None
    """A folder or an fsspec URL for what is kept in between; default `<output>/store`."""
    plugins: tuple[Path, ...] = ()
    """Files with methods."""
    tuning: Path | None = None
    """A tuning file, or a folder of them, for variants that are tuned; default the project's folder."""
    device: str | None = None
    """Default CUDA where there is one, else the CPU."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Precision of the U-Net; adapters are always fp32. Default what the suite says."""
    memory: Literal["auto", "low", "high"] = "auto"
    """"low" saves memory for time (gradient checkpointing, small batches); "auto" does so where it must."""
    keep: frozenset[Literal["states", "images"]] = frozenset()
    """Optional artifacts to retain in the store: the states of all tasks, not only the last; all images."""
    data_root: Path | None = None
    """Where the user's own copies of models and data sets are; default `clbench.data.locate.default_data_root()`."""
    deterministic: bool = False
    """On a GPU: only operations that repeat their bits. A CPU always does."""
    resume: bool = True
    """Whether to use what earlier processes left in the store."""
    workers: int | None = Field(default=None, ge=1)
    """Processes that share the work: default one a GPU; on a CPU one a core (each has one thread), but at most two a
    run and as many as memory holds."""
    engine: Literal["local", "ray"] = "local"
    """Where the workers are: on this machine, or on a Ray cluster."""
    address: str | None = None
    """Address of the Ray cluster; default the one that this machine belongs to, else a new one here."""
    check: bool = True
    """Whether methods of plugin files are tried on a toy model before anything is planned."""
    debug: bool = False
    """Do all work in this process and leave what plugins print where they print it, so that a debugger can be used."""

    @classmethod
    def of(cls, **options: Any) -> RunConfig:
        """A configuration of the given options.

        Raises:
            ClbenchError: an option is unknown, has a value that it does not take, or does not go with another.
        """
        try:
            config = cls(**options)
        except ValidationError as error:
            raise ClbenchError(_sentence(error, list(cls.model_fields))) from None
        if config.address and config.engine != "ray":
            raise ClbenchError("--address is of a Ray cluster, and needs --engine ray")
        if not config.resume and ((config.workers or 1) > 1 or config.engine == "ray"):
            raise ClbenchError("several workers need a store that may be reused (no --no-resume)")
        if config.debug and ((config.workers or 1) > 1 or config.engine == "ray" or config.deterministic):
            raise ClbenchError(
                "--debug does all work in this process, so it cannot be given with more --workers than one, --engine "
                "ray or --deterministic"
            )
        return config.model_copy(update={"workers": 1}) if config.debug else config


def _sentence(error: ValidationError, known: list[str]) -> str:
    """The first error of a `RunConfig`, as one sentence."""
    first = error.errors()[0]
    field = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"there is no option {field!r}{did_you_mean(field, known)}"
    return f"--{field.replace('_', '-')} {first['input']!r}: {first['msg']}"


class RunOptions(TypedDict, total=False):
    """The fields of `RunConfig`, as keywords of `run` and `sweep`; each has the field's default."""

    orders: Iterable[str] | None
    seeds: Iterable[int] | None
    quick: bool
    output: str | Path
    store: str | None
    plugins: Iterable[str | Path]
    tuning: str | Path | None
    device: str | None
    precision: Literal["fp32", "bf16", "fp16"] | None
    memory: Literal["auto", "low", "high"]
    keep: Iterable[Literal["states", "images"]]
    data_root: str | Path | None
    deterministic: bool
    resume: bool
    workers: int | None
    engine: Literal["local", "ray"]
    address: str | None
    check: bool
    debug: bool


class RunSpec(FrozenModel):
    """One variant of a method on one track."""

    track: str
    variant: Variant
    runs: tuple[tuple[str, int], ...]
    """(order, seed) of each."""
    method: MethodDescription
    """The configured method."""
    command: str
    """The command line that makes the same result."""
    partial: bool
    """Whether these are fewer runs than the protocol has."""
    tuning: Tuning | None = None
    """The search that chose the settings, if one did."""

    @property
    def name(self) -> str:
        return f"{self.variant.name}/{self.track}"

    @property
    def reference(self) -> MethodRef:
        """The method as the result records it."""
        return self.method.reference


class SweepSpec(FrozenModel):
    """Several variants on several tracks of a suite, and how they are run."""

    suite: Suite
    specs: tuple[RunSpec, ...]
    assets: dict[str, TrackAssets]
    """Track -> its models and data sets."""
    plugins: tuple[Path, ...]
    store: str
    """A folder, or a URL."""
    config: DeviceConfig
    keep: frozenset[str] = frozenset()
    """Optional artifacts to retain: `states`, `images`."""
    in_process: bool = False
    """Whether methods run in the process that scores them, for a debugger; such results cannot be submitted."""
    last_row_only: bool = False
    """Whether runs are scored after their last task alone: enough for a search, and no result can be made of it."""
