"""Score cells: a task's images against its references and its prompts; and the controls that frame every score."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clbench.encoders import Encoder, load_encoder, mean_pairwise_cosine
from clbench.miniworld.render import draw_set
from clbench.result import Controls
from clbench.suite import Suite, Task, Track

ENCODER_OF = {"clip_i": "clip", "clip_t": "clip", "dino": "dino", "csd": "csd"}
"""Metric -> the encoder it is measured with."""


class Evaluator:
    """One track's encoders and reference embeddings, loaded and computed once.

    Args:
        folders: encoder name -> local folder.
    """

    def __init__(self, suite: Suite, track: Track, folders: Mapping[str, Path], device: str = "cpu") -> None:
        self.suite, self.track, self._folders, self._device = suite, track, folders, device
        self._references: dict[tuple[str, str], Tensor] = {}
        self._texts: dict[str, Tensor] = {}

    @cached_property
    def encoders(self) -> dict[str, Encoder]:
        names = sorted({ENCODER_OF[metric] for metric in self.track.metrics})
        with torch.random.fork_rng(devices=[]):  # building modules draws weights that are replaced at once
            return {name: load_encoder(name, self._folders[name], self._device) for name in names}

    def score(self, task: Task, images: list[Image.Image]) -> dict[str, float]:
        """Every metric of the track for `images` [P * N], prompt by prompt as `draw_cell` draws them."""
        embedded = {name: encoder.embed(images) for name, encoder in self.encoders.items()}
        scores = {}
        for metric in self.track.metrics:
            rows = embedded[ENCODER_OF[metric]]
            if metric == "clip_t":
                texts = self._text(task).repeat_interleave(len(images) // len(self._text(task)), dim=0)
                scores[metric] = (rows * texts).sum(dim=1).mean().item()
            else:
                scores[metric] = mean_pairwise_cosine(rows, self._reference(task, ENCODER_OF[metric]))
        return scores

    def controls(self) -> Controls:
        """Real images of every evaluation prompt, in the task's own look and in every other task's look.

        An object in another's look keeps the shape that the prompt names, so that the floor is what a model gets that
        knows the prompts' words but, of the tasks, only the last one's look.
        """
        metrics = [metric for metric in self.track.metrics if metric != "clip_t"]
        scores = [[self._score_real(task, last) for task in self.track.tasks] for last in self.track.tasks]
        tasks = range(len(self.track.tasks))
        return Controls(
            real_against_real={metric: tuple(scores[j][j][metric] for j in tasks) for metric in self.track.metrics},
            last_task_floor={
                metric: tuple(tuple(row[j][metric] for j in tasks) for row in scores) for metric in metrics
            },
        )

    def _score_real(self, task: Task, last: Task) -> dict[str, float]:
        drawn = task.real.model_copy(update={"look": last.real.look})
        return self.score(task, draw_set(drawn, self.suite.resolution))

    def _reference(self, task: Task, encoder: str) -> Tensor:
        key = (task.name, encoder)
        if key not in self._references:
            images = draw_set(task.reference, self.suite.resolution)
            self._references[key] = self.encoders[encoder].embed(images)
        return self._references[key]

    def _text(self, task: Task) -> Tensor:
        if task.name not in self._texts:
            self._texts[task.name] = self.encoders["clip"].embed_text(self.track.content_prompts(task))  # type: ignore[attr-defined]
        return self._texts[task.name]
