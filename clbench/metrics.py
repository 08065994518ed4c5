"""The metrics by id: what tables and pages say about each. What computes them is in `clbench.encoders`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is shown."""

    label: str
    """Short name, as in column headings."""
    description: str
    """What it measures, in one sentence."""
    secondary: bool = False
    """Shown beside the headline metrics, never ranked by."""


METRICS: dict[str, MetricInfo] = {
    "clip_i": MetricInfo("CLIP-I", "Cosine of CLIP image embeddings, generated against reference: is it that object?"),
    "dino": MetricInfo("DINO", "Cosine of DINO class-token embeddings, generated against reference: finer detail."),
    "csd": MetricInfo("CSD", "Cosine of CSD style embeddings, generated against reference: is it that style?"),
    "clip_t": MetricInfo(
        "CLIP-T", "Cosine of CLIP image and prompt embeddings: is the prompt still followed?", secondary=True
    ),
}

ENCODER_OF = {"clip_i": "clip", "clip_t": "clip", "dino": "dino", "csd": "csd"}
"""Metric -> the encoder it is measured with."""
