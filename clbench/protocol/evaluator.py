"""Score cells: a task's images against its references and its prompts; and the controls that frame every score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clbench.data.images import load_images
from clbench.encoders import Encoder, mean_pairwise_cosine
from clbench.metrics import ENCODER_OF, METRICS
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
        self._references: dict[tuple[str, str], Tensor] = {}
        self._texts: dict[str, Tensor] = {}
        self._controls: Controls | None = None

    def score(self, task: Task, images: list[Image.Image]) -> dict[str, float]:
        """Every metric of the track for `images` [P * N], prompt by prompt as `draw_cell` draws them."""
        names = sorted({ENCODER_OF[metric] for metric in self.track.metrics})
        embedded = {name: self._encoder(name).embed(images) for name in names}
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
        floors = [metric for metric in self.track.metrics if not METRICS[metric].secondary]
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
            encoders = {m: ENCODER_OF[m] for m in self.track.metrics if not METRICS[m].secondary}
            pairs = {m: (self._reference(last, name), self._reference(task, name)) for m, name in encoders.items()}
            return {metric: mean_of_different(*rows, same) for metric, rows in pairs.items()}
        drawn = task.real.model_copy(update={"look": last.real.look})
        return self.score(task, load_images(drawn, self.suite.resolution, self._folders))

    def _reference(self, task: Task, encoder: str) -> Tensor:
        key = (task.name, encoder)
        if key not in self._references:
            images = load_images(task.reference, self.suite.resolution, self._folders)
            self._references[key] = self._encoder(encoder).embed(images)
        return self._references[key]

    def _text(self, task: Task) -> Tensor:
        if task.name not in self._texts:
            self._texts[task.name] = self._encoder("clip").embed_text(self.track.content_prompts(task))  # type: ignore[attr-defined]
        return self._texts[task.name]


def mean_of_different(generated: Tensor, reference: Tensor, same: Tensor) -> float:
    """`mean_pairwise_cosine` without the pairs that `same` [N, M] marks; rows are unit vectors [N, D] and [M, D].

    An image whose every pair is marked (a task of one picture) counts as like itself.
    """
    cosines, kept = generated @ reference.T, ~same
    kept = kept | ~kept.any(dim=1, keepdim=True)
    return ((cosines * kept).sum(dim=1) / kept.sum(dim=1)).mean().item()


def _identical(last: Task, task: Task) -> Tensor:
    """Which pairs of two tasks' reference images are one image, bool [N, M]."""
    names = [_names(one) for one in (last, task)]
    return torch.tensor([[one == other for other in names[1]] for one in names[0]])


def _names(task: Task) -> list[tuple[str, str]]:
    if isinstance(task.reference, PhotoImages):
        return [(task.reference.dataset, file) for file in task.reference.files]
    return [(task.name, str(number)) for number in range(len(task.reference.shapes))]
