"""The benchmark's definition: suites, tracks and tasks, read from data and hashed.

    suite = load_suite("mini-v2")                       # or a folder with a suite of your own
    track = suite.track("styles")
    for task in track.ordered("0"):
        print(task.name, track.train_prompt(task), track.eval_prompts(task))

A suite is `benchmark/<name>/suite.yaml` plus the task lists it names in `tasks/` (or beside it). It is never edited
once it has results: a change is a new version with a `version_reason`. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from clbench.errors import ClbenchError, did_you_mean
from clbench.metrics import METRICS


class Frozen(BaseModel):
    """A record that cannot change and refuses unknown fields, NaN and infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
"""Safe as a file name and in a page."""


class Drawn(Frozen):
    """Images that the bundled world draws: one for each entry of `shapes`."""

    look: dict[str, str]
    """Factor -> value, e.g. {"fill_a": "red", "pattern": "dots"}."""
    shapes: tuple[str, ...]
    """What each image shows."""
    scenes: tuple[str, ...] = ()
    """Where each image's object stands (photos only): empty, or one for each shape."""
    seed: int
    """Seed of the poses."""

    @model_validator(mode="after")
    def _scenes_match(self) -> Drawn:
        if self.scenes and len(self.scenes) != len(self.shapes):
            raise ValueError(f"{len(self.scenes)} scenes for {len(self.shapes)} shapes")
        return self


class Photos(Frozen):
    """Pictures of a data set, by name."""

    dataset: str
    """A key of the suite's `datasets`."""
    files: tuple[str, ...] = Field(min_length=1)
    """Below the data set's folder, e.g. "backpack/00.jpg"."""

    @model_validator(mode="after")
    def _files_stay_inside(self) -> Photos:
        for file in self.files:
            if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                raise ValueError(f"{file!r} does not lie below the data set's folder")
        if len(set(self.files)) != len(self.files):
            raise ValueError("a file is named twice")
        return self


def _kind_of_images(value: Any) -> str:
    return "photos" if isinstance(value, Photos) or (isinstance(value, dict) and "dataset" in value) else "drawn"


Images = Annotated[Annotated[Drawn, Tag("drawn")] | Annotated[Photos, Tag("photos")], Discriminator(_kind_of_images)]


class Task(Frozen):
    """One object or style to learn."""

    name: str
    """Unique within its track."""
    fields: dict[str, str]
    """What fills the track's prompt templates, e.g. {"token": "sks", "class": "boot"}."""
    train: Images
    """The images the task is learned from."""
    reference: Images
    """The images that generated ones are compared with."""
    real: Drawn | None = None
    """Real images of the evaluation prompts, in their order and in equal numbers, for the controls.

    None where nobody has such images: the controls then compare the reference images with each other.
    """

    @property
    def photos(self) -> list[Photos]:
        """What this task needs of data sets."""
        return [images for images in (self.train, self.reference) if isinstance(images, Photos)]


class Track(Frozen):
    """Ten tasks, their prompts, orders and metrics."""

    name: str
    tasks: tuple[Task, ...] = Field(min_length=1)
    orders: dict[str, tuple[int, ...]] = Field(min_length=1)
    """Order name -> explicit permutation of the task indices."""
    seeds: dict[str, int] | None = None
    """Order name -> its training seed; None where each of the suite's `seeds` is used with every order."""
    train_prompt_template: str
    eval_prompt_templates: tuple[str, ...] = Field(min_length=1)
    content_prompt_templates: tuple[str, ...] = ()
    """What CLIP-T compares with: each evaluation prompt without the words that the task gives a new meaning."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """Names in `clbench.metrics.METRICS`, headline metrics first. Methods are ranked by the first one."""

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
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"a prompt of track {self.name} cannot be made of {task.name!r}'s fields: {error}"
                ) from None
            if not all(prompts):
                raise ValueError(f"a prompt of task {task.name!r} is empty")
        for metric in self.metrics:
            if metric not in METRICS:
                raise ValueError(f"track {self.name} has no metric {metric!r}{did_you_mean(metric, list(METRICS))}")
            needs_prompts = METRICS[metric].against == "prompts"
            if needs_prompts and len(self.content_prompt_templates) != len(self.eval_prompt_templates):
                raise ValueError(f"{metric} needs one content prompt for each evaluation prompt")
        return self

    @property
    def task_names(self) -> list[str]:
        return [task.name for task in self.tasks]

    def ordered(self, order: str) -> list[Task]:
        """The tasks in the order of that name."""
        if order not in self.orders:
            raise ClbenchError(f"track {self.name} has no order {order!r}{did_you_mean(order, list(self.orders))}")
        return [self.tasks[index] for index in self.orders[order]]

    def train_prompt(self, task: Task) -> str:
        return self.train_prompt_template.format(**task.fields)

    def eval_prompts(self, task: Task) -> list[str]:
        return [template.format(**task.fields) for template in self.eval_prompt_templates]

    def content_prompts(self, task: Task) -> list[str]:
        return [template.format(**task.fields) for template in self.content_prompt_templates]


class Weights(Frozen):
    """A model by place and content."""

    source: str
    """`bundled:<folder>` under clbench/miniworld/weights, `hub:<owner>/<name>`, or a folder beside the definition."""
    sha256: str | None = None
    """Of the folder's files, names included (`clbench.utils.files.folder_sha256`)."""
    revision: str | None = None
    """The commit, of a hub repository."""
    files: tuple[str, ...] | None = None
    """What is needed of it; `a | b` where either will do. None: all there is."""
    checksums: dict[str, str] | None = None
    """File -> sha256, of those where it is on record."""
    resize: int | None = None
    """Of DINO: to what the shorter side is resized before the centre crop; None = as the folder says."""
    quick_gelu: bool | None = None
    """Of CLIP: true where its activation must be OpenAI's QuickGELU."""


class Dataset(Frozen):
    """Where photos come from."""

    source: str
    """`hub:<owner>/<name>`, or a folder beside the definition."""
    revision: str | None = None
    """The commit, of a hub repository."""
    caption: str | None = None
    """Where the hub has table rows instead of files: the caption of `<0>/<1>/n.jpg`, a pattern with {0} and {1}."""
    checksums: dict[str, str] | None = None
    """File -> sha256, of those where it is on record."""


class Training(Frozen):
    """How every task is fitted (DreamBooth with LoRA)."""

    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    init: Literal["gaussian"] = "gaussian"
    """How the default adapter's A is drawn: PEFT's `gaussian`, N(0, (1/r)^2); B is zero."""
    targets: tuple[str, ...]
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float | None = Field(default=None, gt=0)
    """AdamW's; None = 1e-8. A large one turns entries with small gradients less, which makes training gentle."""
    balanced_batches: bool | None = None
    """Whether a batch takes the images in turn, each as often as the others, instead of drawing them at random."""
    stratified_timesteps: bool | None = None
    """Whether a batch of n takes one time step from each n-th of the range, instead of n independent ones."""
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    adapted_layers: int | None = None
    """How many layers `targets` must match, so that another architecture is not taken for this one."""
    adapter_parameters: int | None = None
    """How many values one adapter must have."""


class Sampling(Frozen):
    """How every cell's images are drawn."""

    steps: int = Field(gt=0)
    guidance_scale: float = Field(ge=1)
    images_per_prompt: int = Field(gt=0)
    noise_seed: int
    """The same CPU-drawn noise serves every prompt, task, model and method."""
    scheduler: Literal["EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"] | None = None
    """The sampler, whichever the model's folder names; None = the one it names."""


class Suite(Frozen):
    """A frozen, versioned benchmark definition."""

    name: Name
    version: str
    version_reason: str
    for_development: bool | None = None
    """True where settings are tuned on this suite, so that its results have no board."""
    resolution: int = Field(gt=0)
    backbone: Weights
    vae: Weights | None = None
    """Takes the place of the backbone's own VAE."""
    encoders: dict[str, Weights]
    datasets: dict[str, Dataset] | None = None
    precision: Literal["fp32", "bf16"] | None = None
    """What a run uses unless told otherwise; None = fp32."""
    training: Training
    sampling: Sampling
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Training seeds, each used with every order of a track that names no seeds of its own."""
    tracks: dict[Name, Track]

    @model_validator(mode="after")
    def _what_tracks_name_is_there(self) -> Suite:
        for track in self.tracks.values():
            if self.seeds is None and track.seeds is None:
                raise ValueError(f"neither the suite nor track {track.name} names training seeds")
            for encoder in (METRICS[metric].encoder for metric in track.metrics):
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

    @cached_property
    def sha256(self) -> str:
        """Of the definition's content, so that comments and layout do not matter.

        Nor do fields that are None: one that a later clbench adds leaves the hash of an older suite alone.
        """
        text = json.dumps(self.model_dump(mode="json", exclude_none=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def content_root() -> Path:
    """Where `benchmark/`, `tasks/` and `methods/` are: inside an installed wheel, else the checkout."""
    package = Path(__file__).parent
    packaged = package / "content"
    return packaged if packaged.is_dir() else package.parent


def list_suites() -> list[str]:
    return sorted(path.parent.name for path in (content_root() / "benchmark").glob("*/suite.yaml"))


def suite_folder(name: str) -> Path:
    """Where a suite's definition lies: `name` is one of `list_suites()`, or a folder that holds a `suite.yaml`.

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
        ClbenchError: unknown name, or a definition that does not fit the schema (names the file and the field).
    """
    folder = suite_folder(name)
    path = folder / "suite.yaml"
    raw = _read_yaml(path)
    try:
        for track_name, track in raw["tracks"].items():
            track["name"] = track_name
            beside = folder / track["tasks"]
            track["tasks"] = _read_yaml(beside if beside.is_file() else content_root() / "tasks" / track["tasks"])[
                "tasks"
            ]
        return Suite.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ClbenchError(f"{path}: field {field or '(top)'}: {first['msg']}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ClbenchError(f"{path}: the definition lacks or misshapes {error}") from None


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The same in C where PyYAML was built with it, ten times as fast."""


def _read_yaml(path: Path) -> dict:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except (OSError, yaml.YAMLError) as error:
        raise ClbenchError(f"cannot read {path}: {error}") from None
