"""What a run was asked to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from clbench.data.assets import TrackAssets
from clbench.runner.estimate import Memory
from clbench.suite import Suite


class Job(BaseModel):
    """One method on one track: all that a process needs to know to take part."""

    model_config = ConfigDict(frozen=True)

    suite: Suite
    track: str
    method: str
    settings: dict[str, Any]
    plugins: tuple[Path, ...]
    runs: tuple[tuple[str, int], ...]
    """(order, seed) of each."""
    store: str
    """A folder, or a URL."""
    device: str
    precision: str
    assets: TrackAssets
    low_memory: bool = False
    keep: frozenset[str] = frozenset()
    """Of `states` and `images`: what is kept beyond need."""
    deterministic: bool = False

    @property
    def name(self) -> str:
        return f"{self.method}/{self.track}"


EngineName = Literal["local", "ray"]


@dataclass(frozen=True)
class Options:
    """How the work is done; none of it is the benchmark's definition."""

    orders: Iterable[str] | None = None
    """A part of the protocol's; default all."""
    seeds: Iterable[int] | None = None
    """The same."""
    quick: bool = False
    """The first order and the first seed."""
    output: str | Path = "runs"
    """The folder that results are written to."""
    store: str | None = None
    """A folder or an fsspec URL for what is kept in between; default `<output>/store`."""
    plugins: tuple[Path, ...] = ()
    """Files with methods."""
    device: str | None = None
    """Default CUDA where there is one, else the CPU."""
    precision: str | None = None
    """"fp32" or "bf16" (of the U-Net; adapters stay fp32); default what the suite says."""
    memory: Memory = "auto"
    """"low" saves memory for time (gradient checkpointing, small batches); "auto" does so where it must."""
    keep: Iterable[str] = ()
    """"states" of all tasks, not only the last; "images", all that are scored, in the store."""
    data_root: Path | None = None
    """Where the user's own copies of models and data sets lie; default `clbench.data.locate.default_data_root()`."""
    deterministic: bool = False
    """On a GPU: only operations that repeat their bits. A CPU always does."""
    resume: bool = True
    """Whether work of earlier processes in the store counts."""
    workers: int | None = None
    """Processes that share the work: default one a GPU; on a CPU one a core (each has one thread), but at most two a
    run and as many as memory holds."""
    engine: EngineName = "local"
    """Where the workers are: on this machine, or on a Ray cluster."""
    address: str | None = None
    """Of the Ray cluster; default the one that this machine belongs to, else a new one here."""
