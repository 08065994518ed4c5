"""Where a backbone is loaded from, in a form that other processes can be given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clbench.backbones.sdxl import Backbone
from clbench.suite import Training


class BackboneSource(Protocol):
    """What loads the same backbone in any process; it is hashable, and can be pickled."""

    def load(self, device: str) -> Backbone:
        """The backbone on a device.

        Raises:
            ClbenchError: it cannot be loaded.
        """
        ...


@dataclass(frozen=True)
class PipelineSource:
    """Where a backbone is loaded from, and how; the arguments are those of `Backbone.load`."""

    folder: Path
    training: Training
    precision: str = "fp32"
    vae: Path | None = None
    scheduler: str | None = None
    gradient_checkpointing: bool = False
    sample_batch_size: int | None = None
    base_on_device: bool = False

    def load(self, device: str) -> Backbone:
        return Backbone.load(
            self.folder,
            self.training,
            device,
            self.precision,
            vae=self.vae,
            scheduler=self.scheduler,
            gradient_checkpointing=self.gradient_checkpointing,
            sample_batch_size=self.sample_batch_size,
            base_on_device=self.base_on_device,
        )
