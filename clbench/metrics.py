"""The metrics: how each compares images with what they should show, and how tables and pages show it.

A new metric is one entry in `METRICS`, and an encoder (`clbench.encoders`) if it needs a new one. Importing this module
loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """One metric: what it measures, how it is computed and how its scores are read."""

    name: str
    """Its id in suites, results and data."""
    label: str
    """Short name, as in column headings."""
    description: str
    """What it measures, in one sentence."""
    encoder: str
    """The encoder (`clbench.encoders.load_encoder`) that embeds the images."""
    compute: Callable[[Tensor, Tensor], Tensor]
    """(images [N, D], compared with [M, D]) -> [N, K]: each image's values, whose mean is its score. All unit rows."""
    against: Literal["references", "prompts"] = "references"
    """What images are compared with: the task's reference images, or the prompts without the task's new words."""
    higher_is_better: bool = True
    """Whether a higher score is a better one."""
    range: tuple[float, float] = (-1.0, 1.0)
    """The lowest and the highest possible score."""
    unit: str = "cosine"
    """What its scores are, in a word."""
    secondary: bool = False
    """Shown beside the headline metrics; methods are never ranked by it, and it needs no controls."""

    @property
    def sign(self) -> float:
        """What makes higher scores better: 1, or -1 where lower is better."""
        return 1.0 if self.higher_is_better else -1.0

    def score(self, images: Tensor, compared: Tensor, same: Tensor | None = None) -> float:
        """The mean over an image's values, then over images.

        Args:
            images: embedded images, [N, D].
            compared: embedded references, [M, D], or prompts, [P, D] for N = P * images a prompt, prompt by prompt.
            same: bool [N, K], pairs that show one picture and do not count; an image whose every pair is marked
                counts as like itself. Default none.
        """
        values = self.compute(images, compared)
        if same is None:
            return values.mean(dim=1).mean().item()
        counted = ~same
        counted = counted | ~counted.any(dim=1, keepdim=True)
        return ((values * counted).sum(dim=1) / counted.sum(dim=1)).mean().item()


def pairwise_cosines(images: Tensor, references: Tensor) -> Tensor:
    """The cosine of every image [N, D] with every reference [M, D]: [N, M]."""
    return images @ references.T


def prompt_cosines(images: Tensor, prompts: Tensor) -> Tensor:
    """The cosine of every image with its own prompt: [P * n, D] prompt by prompt, and [P, D] -> [P * n, 1]."""
    return (images * prompts.repeat_interleave(len(images) // len(prompts), dim=0)).sum(dim=1, keepdim=True)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "clip_i",
            "CLIP-I",
            "Cosine of CLIP image embeddings, generated against reference: is it that object?",
            encoder="clip",
            compute=pairwise_cosines,
        ),
        Metric(
            "dino",
            "DINO",
            "Cosine of DINO class-token embeddings, generated against reference: finer detail.",
            encoder="dino",
            compute=pairwise_cosines,
        ),
        Metric(
            "csd",
            "CSD",
            "Cosine of CSD style embeddings, generated against reference: is it that style?",
            encoder="csd",
            compute=pairwise_cosines,
        ),
        Metric(
            "clip_t",
            "CLIP-T",
            "Cosine of CLIP image and prompt embeddings: is the prompt still followed?",
            encoder="clip",
            compute=prompt_cosines,
            against="prompts",
            secondary=True,
        ),
    )
}
"""Name -> metric."""


def metric_label(name: str) -> str:
    """A metric's short name; for a metric that is not in `METRICS`, its id."""
    return METRICS[name].label if name in METRICS else name
