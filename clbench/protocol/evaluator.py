"""Score cells: a task's images against its references and its prompts; and the controls that frame every score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clbench.data.images import load_images
from clbench.encoders import Encoder
from clbench.metrics import METRICS, Metric
from clbench.results.schema import Controls
from clbench.suite import PhotoImages, Suite, Task, Track


class Evaluator:
    """Scores one track's images; embeddings of references and prompts are computed once.

    Args:
        encoder: gives an encoder by its name.
        folders: data set -> local folder.
    """

    def __init__(
        self, suite: Suite, track: Track, encoder: Callable[[str], Encoder], folders: Mapping[str, Path]
    ) -> None:
        self.suite, self.track, self._encoder, self._folders = suite, track, encoder, folders
        self._embedded: dict[tuple[str, str, str], Tensor] = {}
        self._controls: Controls | None = None

    def embed(self, images: list[Image.Image], metrics: Iterable[str]) -> dict[str, Tensor]:
        """Encoder -> unit rows [P * N, D], by each encoder that one of the metrics needs."""
        names = sorted({METRICS[metric].encoder for metric in metrics})
        return {name: self._encoder(name).embed(images) for name in names}

    def compare(self, task: Task, embedded: Mapping[str, Tensor], metrics: Iterable[str]) -> dict[str, float]:
        """Metric -> score of images, as `embed` gives them, for a task."""
        chosen = [METRICS[metric] for metric in metrics]
        return {one.name: one.score(embedded[one.encoder], self._compared(task, one)) for one in chosen}

    def score(self, task: Task, images: list[Image.Image]) -> dict[str, float]:
        """Every metric of the track for `images` [P * N], prompt by prompt as `draw_cell` draws them."""
        return self.compare(task, self.embed(images, self.track.metrics), self.track.metrics)

    def controls(self) -> Controls:
        """Real images treated like generated ones: each task's own, and the last task's as if they were the task's.

        Where the suite has real images of the evaluation prompts, those are taken, in the task's own look and in every
        other task's look. (An object in another's look keeps the shape that the prompt names, so that the floor is what
        a model gets that knows the prompts' words but, of the tasks, only the last one's look.) Where it has none, the
        reference images are taken, each compared with all references but itself.
        """
        if self._controls is None:
            self._controls = self._measure_controls()
        return self._controls

    def _measure_controls(self) -> Controls:
        tasks = range(len(self.track.tasks))
        scores = [[self._score_real(task, last) for task in self.track.tasks] for last in self.track.tasks]
        floors = self.track.headline_metrics
        measured = [metric for metric in self.track.metrics if metric in scores[0][0]]
        return Controls(
            real_against_real={metric: tuple(scores[j][j][metric] for j in tasks) for metric in measured},
            last_task_floor={
                metric: tuple(tuple(row[j][metric] for j in tasks) for row in scores) for metric in floors
            },
        )

    def _score_real(self, task: Task, last: Task) -> dict[str, float]:
        if task.real is None or last.real is None:
            same = _identical(last, task)
            return {
                one.name: one.score(self._compared(last, one), self._compared(task, one), same)
                for one in (METRICS[name] for name in self.track.metrics)
                if one.against == "references"
            }
        drawn = task.real.model_copy(update={"look": last.real.look})
        return self.score(task, load_images(drawn, self.suite.resolution, self._folders))

    def _compared(self, task: Task, metric: Metric) -> Tensor:
        """What `metric` compares the task's images with, embedded once: unit rows [M, D]."""
        key = (task.name, metric.encoder, metric.against)
        if key not in self._embedded:
            encoder = self._encoder(metric.encoder)
            if metric.against == "prompts":
                self._embedded[key] = encoder.embed_text(self.track.content_prompts(task))  # type: ignore[attr-defined]
            else:
                images = load_images(task.reference, self.suite.resolution, self._folders)
                self._embedded[key] = encoder.embed(images)
        return self._embedded[key]


def _identical(last: Task, task: Task) -> Tensor:
    """Which pairs of two tasks' reference images are one image, bool [N, M]."""
    names = [_names(one) for one in (last, task)]
    return torch.tensor([[one == other for other in names[1]] for one in names[0]])


def _names(task: Task) -> list[tuple[str, str]]:
    if isinstance(task.reference, PhotoImages):
        return [(task.reference.dataset, file) for file in task.reference.files]
    return [(task.name, str(number)) for number in range(len(task.reference.shapes))]
