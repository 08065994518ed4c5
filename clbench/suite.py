"""The benchmark's definition: suites, tracks and tasks, read from YAML files and hashed.

    suite = load_suite("mini-v2")                       # or the folder of your own suite
    track = suite.track("styles")
    for task in track.ordered("0"):
        print(task.name, track.train_prompt(task), track.eval_prompts(task))

A suite is `benchmark/<name>/suite.yaml` and the task lists that it names, in `tasks/` or beside it. A suite that has
results is never edited: a change is a new version with a `version_reason`. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from clbench.errors import ClbenchError, did_you_mean
from clbench.metrics import METRICS
from clbench.recipe import FrozenModel, Sampling, Training
from clbench.utils.yaml_files import read_yaml

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
"""A name that is safe in file names and in web pages."""


class DrawnImages(FrozenModel):
    """Images drawn by `clbench.miniworld`, one for each entry of `shapes`."""

    look: dict[str, str]
    """Factor -> value, e.g. {"fill_a": "red", "pattern": "dots"}."""
    shapes: tuple[str, ...]
    """The object in each image."""
    scenes: tuple[str, ...] = ()
    """The background of each image: one for each shape, or empty for images in a style, whose look has one."""
    seed: int
    """Seed of the objects' poses and the noise."""

    @model_validator(mode="after")
    def _scenes_match(self) -> DrawnImages:
        if self.scenes and len(self.scenes) != len(self.shapes):
            raise ValueError(f"{len(self.scenes)} scenes for {len(self.shapes)} shapes")
        return self


class PhotoImages(FrozenModel):
    """Images of a data set, by file name."""

    dataset: str
    """A key of the suite's `datasets`."""
    files: tuple[str, ...] = Field(min_length=1)
    """Paths relative to the data set's folder, e.g. "backpack/00.jpg"."""

    @model_validator(mode="after")
    def _files_stay_inside(self) -> PhotoImages:
        for file in self.files:
            if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                raise ValueError(f"{file!r} does not lie below the data set's folder")
        if len(set(self.files)) != len(self.files):
            raise ValueError("a file is named twice")
        return self


def _kind_of_images(value: Any) -> str:
    return "photos" if isinstance(value, PhotoImages) or (isinstance(value, dict) and "dataset" in value) else "drawn"


Images = Annotated[
    Annotated[DrawnImages, Tag("drawn")] | Annotated[PhotoImages, Tag("photos")], Discriminator(_kind_of_images)
]


class Task(FrozenModel):
    """One object or style to learn."""

    name: str
    """Unique within its track."""
    fields: dict[str, str]
    """Values for the track's prompt templates, e.g. {"token": "sks", "class": "boot"}."""
    train: Images
    """The training images."""
    reference: Images
    """The images with which generated ones are compared."""
    real: DrawnImages | None = None
    """Real images of the evaluation prompts, in the same order and number as generated ones, for the controls.

    None if there are no such images: the controls then compare the reference images with each other.
    """

    @property
    def photos(self) -> list[PhotoImages]:
        """The images that come from data sets."""
        return [images for images in (self.train, self.reference) if isinstance(images, PhotoImages)]


class Drift(FrozenModel):
    """What measures how far training moves images that have nothing to do with the tasks."""

    prompts: tuple[str, ...] = Field(min_length=1)
    """Prompts unrelated to every task of the track."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """Names in `clbench.metrics.METRICS`: their encoders compare each image with the base model's own."""


class Track(FrozenModel):
    """Tasks to learn one after another, with their prompts, orders and metrics."""

    name: str
    tasks: tuple[Task, ...] = Field(min_length=1)
    orders: dict[str, tuple[int, ...]] = Field(min_length=1)
    """Order name -> permutation of the task indices."""
    seeds: dict[str, int] | None = None
    """Order name -> its training seed; None if every order is run with each of the suite's `seeds`."""
    train_prompt_template: str
    eval_prompt_templates: tuple[str, ...] = Field(min_length=1)
    content_prompt_templates: tuple[str, ...] = ()
    """The texts for CLIP-T: each evaluation prompt without the words to which the task gives a new meaning."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """Names in `clbench.metrics.METRICS`, headline metrics first. Methods are ranked by the first one."""
    score_next_task: bool | None = None
    """True: after each task the next one is scored too, before it is trained, for the forward transfer."""
    leak_prompt_templates: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Prompts near a task's that do not ask for its look, such as its bare class: does the look appear in them?"""
    drift: Drift | None = None
    """None: drift is not measured."""

    @model_validator(mode="after")
    def _orders_are_permutations(self) -> Track:
        for name, order in self.orders.items():
            if sorted(order) != list(range(len(self.tasks))):
                raise ValueError(f"order {name} of track {self.name} is not a permutation of its tasks")
        if self.seeds is not None and set(self.seeds) != set(self.orders):
            raise ValueError(f"the seeds of track {self.name} do not name exactly its orders")
        if len({task.name for task in self.tasks}) != len(self.tasks):
            raise ValueError(f"two tasks of track {self.name} share a name")
        return self

    @model_validator(mode="after")
    def _prompts_and_metrics_can_be_made(self) -> Track:
        for task in self.tasks:
            try:
                prompts = [self.train_prompt(task), *self.eval_prompts(task), *self.content_prompts(task)]
                prompts += self.leak_prompts(task)
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"a prompt of track {self.name} cannot be made of {task.name!r}'s fields: {error}"
                ) from None
            if not all(prompts):
                raise ValueError(f"a prompt of task {task.name!r} is empty")
        moved = self.drift.metrics if self.drift else ()
        for metric in (*self.metrics, *moved):
            if metric not in METRICS:
                raise ValueError(f"track {self.name} has no metric {metric!r}{did_you_mean(metric, list(METRICS))}")
            if metric in moved and METRICS[metric].against == "prompts":
                raise ValueError(f"{metric} compares images with prompts, so that it cannot measure drift")
            needs_prompts = METRICS[metric].against == "prompts"
            if needs_prompts and len(self.content_prompt_templates) != len(self.eval_prompt_templates):
                raise ValueError(f"{metric} needs one content prompt for each evaluation prompt")
        return self

    @property
    def task_names(self) -> list[str]:
        return [task.name for task in self.tasks]

    def ordered(self, order: str) -> list[Task]:
        """The tasks in an order, by its name."""
        if order not in self.orders:
            raise ClbenchError(f"track {self.name} has no order {order!r}{did_you_mean(order, list(self.orders))}")
        return [self.tasks[index] for index in self.orders[order]]

    def train_prompt(self, task: Task) -> str:
        return self.train_prompt_template.format(**task.fields)

    def eval_prompts(self, task: Task) -> list[str]:
        return [template.format(**task.fields) for template in self.eval_prompt_templates]

    def content_prompts(self, task: Task) -> list[str]:
        return [template.format(**task.fields) for template in self.content_prompt_templates]

    def leak_prompts(self, task: Task) -> list[str]:
        return [template.format(**task.fields) for template in self.leak_prompt_templates or ()]

    @property
    def encoders(self) -> list[str]:
        """The encoders that its metrics and its drift need."""
        moved = self.drift.metrics if self.drift else ()
        return sorted({METRICS[metric].encoder for metric in (*self.metrics, *moved)})

    @property
    def headline_metrics(self) -> list[str]:
        """The metrics that are not secondary."""
        return [metric for metric in self.metrics if not METRICS[metric].secondary]

    def measured(self, learned: int) -> int:
        """How many tasks of an order are scored after so many are learned: those, and perhaps the next one."""
        return min(learned + bool(self.score_next_task), len(self.tasks)) if learned else len(self.tasks)


class Weights(FrozenModel):
    """Where a model is, and the checksums that identify it."""

    source: str
    """`bundled:<folder>` in clbench/miniworld/weights, `hub:<owner>/<name>`, or a folder beside the definition."""
    sha256: str | None = None
    """Checksum of the folder's files and their names (`clbench.utils.files.folder_sha256`)."""
    revision: str | None = None
    """The commit, of a hub repository."""
    files: tuple[str, ...] | None = None
    """The files that are needed; `a | b` means that either is enough. None means all files."""
    checksums: dict[str, str] | None = None
    """File -> sha256, of those where it is on record."""
    resize: int | None = None
    """For DINO: size in pixels to which the shorter side is resized before the centre crop; None = as in the folder."""
    quick_gelu: bool | None = None
    """For CLIP: true if its activation must be OpenAI's QuickGELU."""


class Dataset(FrozenModel):
    """Where a data set of images is."""

    source: str
    """`hub:<owner>/<name>`, or a folder beside the definition."""
    revision: str | None = None
    """The commit, of a hub repository."""
    caption: str | None = None
    """If the hub has tables instead of image files: the caption of the image `<0>/<1>/n.jpg`, with {0} and {1}."""
    checksums: dict[str, str] | None = None
    """File -> sha256, of those where it is on record."""


class Suite(FrozenModel):
    """A frozen, versioned benchmark definition."""

    name: Name
    version: str
    version_reason: str
    for_development: bool | None = None
    """True if settings are tuned on this suite, so that its results have no leaderboard."""
    resolution: int = Field(gt=0)
    backbone: Weights
    vae: Weights | None = None
    """Replaces the backbone's own VAE."""
    encoders: dict[str, Weights]
    datasets: dict[str, Dataset] | None = None
    precision: Literal["fp32", "bf16"] | None = None
    """The default precision of a run; None = fp32."""
    training: Training
    sampling: Sampling
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Training seeds, each used with every order of a track that has no seeds of its own."""
    tracks: dict[Name, Track]

    @model_validator(mode="after")
    def _what_tracks_name_is_there(self) -> Suite:
        for track in self.tracks.values():
            if self.seeds is None and track.seeds is None:
                raise ValueError(f"neither the suite nor track {track.name} names training seeds")
            for encoder in track.encoders:
                if encoder not in self.encoders:
                    raise ValueError(f"track {track.name} needs an encoder {encoder!r} that is not in encoders")
            for photos in (photos for task in track.tasks for photos in task.photos):
                if photos.dataset not in (self.datasets or {}):
                    raise ValueError(f"track {track.name} names a data set {photos.dataset!r} that is not in datasets")
        return self

    def track(self, name: str) -> Track:
        if name not in self.tracks:
            raise ClbenchError(f"suite {self.name} has no track {name!r}{did_you_mean(name, list(self.tracks))}")
        return self.tracks[name]

    def runs(self, track: str) -> list[tuple[str, int]]:
        """(order, seed) of every run of a track.

        Raises:
            ClbenchError: there is no such track.
        """
        chosen = self.track(track)
        own = chosen.seeds
        return [(order, seed) for order in chosen.orders for seed in ((own[order],) if own else self.seeds or ())]

    @property
    def largest_cell(self) -> int:
        """The most images that are drawn together: of a task's prompts, or of the unrelated ones."""
        prompts = [track.eval_prompt_templates for track in self.tracks.values()]
        prompts += [track.drift.prompts for track in self.tracks.values() if track.drift]
        return self.sampling.images_per_prompt * max(map(len, prompts))

    @cached_property
    def sha256(self) -> str:
        """Checksum of the definition's content; comments and layout of its files do not matter.

        Fields that are None do not count, so that a new optional field does not change the checksums of older suites.
        """
        text = json.dumps(self.model_dump(mode="json", exclude_none=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def content_root() -> Path:
    """The folder with `benchmark/`, `tasks/` and `methods/`: inside an installed wheel, else the checkout."""
    package = Path(__file__).parent
    packaged = package / "content"
    return packaged if packaged.is_dir() else package.parent


def list_suites() -> list[str]:
    return sorted(path.parent.name for path in (content_root() / "benchmark").glob("*/suite.yaml"))


def suite_folder(name: str) -> Path:
    """The folder of a suite: one of `list_suites()`, or a folder that holds a `suite.yaml`.

    Raises:
        ClbenchError: there is no such suite.
    """
    if name in list_suites():
        return content_root() / "benchmark" / name
    folder = Path(name)
    if (folder / "suite.yaml").is_file():
        return folder
    if folder.is_dir() or len(folder.parts) > 1:
        raise ClbenchError(f"there is no {folder / 'suite.yaml'}; `clbench new-suite {folder}` writes one")
    raise ClbenchError(f"there is no suite {name!r}{did_you_mean(name, list_suites())}")


def load_suite(name: str) -> Suite:
    """Read and check a suite: a name of `list_suites()`, or a folder that holds a `suite.yaml`.

    Raises:
        ClbenchError: the name is unknown, or the definition is not valid (names the file and the field).
    """
    folder = suite_folder(name)
    path = folder / "suite.yaml"
    raw = read_yaml(path)
    try:
        for track_name, track in raw["tracks"].items():
            track["name"] = track_name
            beside = folder / track["tasks"]
            track["tasks"] = read_yaml(beside if beside.is_file() else content_root() / "tasks" / track["tasks"])[
                "tasks"
            ]
        return Suite.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ClbenchError(f"{path}: field {field or '(top)'}: {first['msg']}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ClbenchError(f"{path}: a part of the definition is missing or malformed: {error}") from None
