"""The benchmark's definition: suites, tracks and tasks, read from data and hashed.

    suite = load_suite("mini-v1")
    track = suite.track("styles")
    for task in track.ordered("0"):
        print(task.name, track.train_prompt(task), track.eval_prompts(task))

A suite is `benchmark/<name>/suite.yaml` plus the task lists it names in `tasks/`. It is never edited once it has
results: a change is a new version with a `version_reason`. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clbench.errors import ClbenchError, did_you_mean


class Frozen(BaseModel):
    """A record that cannot change and refuses unknown fields, NaN and infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class Task(Frozen):
    """One object or style to learn."""

    name: str
    """Unique within its track."""
    fields: dict[str, str]
    """What fills the track's prompt templates, e.g. {"token": "sks", "class": "boot"}."""
    train: Drawn
    """The images the task is learned from."""
    reference: Drawn
    """The images that generated ones are compared with."""
    real: Drawn
    """Real images of the evaluation prompts, in their order and in equal numbers, for the controls."""


class Track(Frozen):
    """Ten tasks, their prompts, orders and metrics."""

    name: str
    tasks: tuple[Task, ...]
    orders: dict[str, tuple[int, ...]]
    """Order name -> explicit permutation of the task indices."""
    train_prompt_template: str
    eval_prompt_templates: tuple[str, ...]
    content_prompt_templates: tuple[str, ...]
    """What CLIP-T compares with: each evaluation prompt without the words that the task gives a new meaning."""
    metrics: tuple[str, ...]
    """Headline metrics first; `clip_t`, where present, is the secondary check that the prompt is followed."""

    @model_validator(mode="after")
    def _orders_are_permutations(self) -> Track:
        for name, order in self.orders.items():
            if sorted(order) != list(range(len(self.tasks))):
                raise ValueError(f"order {name} of track {self.name} is not a permutation of its tasks")
        if len({task.name for task in self.tasks}) != len(self.tasks):
            raise ValueError(f"two tasks of track {self.name} share a name")
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
    """A model by place and checksum."""

    source: str
    """`bundled:<folder>` under clbench/miniworld/weights, or a local folder."""
    sha256: str
    """Of the folder's files, names included (`clbench.store.folder_sha256`)."""


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
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)


class Sampling(Frozen):
    """How every cell's images are drawn."""

    steps: int = Field(gt=0)
    guidance_scale: float = Field(ge=1)
    images_per_prompt: int = Field(gt=0)
    noise_seed: int
    """The same CPU-drawn noise serves every prompt, task, model and method."""


class Suite(Frozen):
    """A frozen, versioned benchmark definition."""

    name: str
    version: str
    version_reason: str
    resolution: int = Field(gt=0)
    backbone: Weights
    encoders: dict[str, Weights]
    training: Training
    sampling: Sampling
    seeds: tuple[int, ...]
    tracks: dict[str, Track]

    def track(self, name: str) -> Track:
        if name not in self.tracks:
            raise ClbenchError(f"suite {self.name} has no track {name!r}{did_you_mean(name, list(self.tracks))}")
        return self.tracks[name]

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


def load_suite(name: str) -> Suite:
    """Read and check a suite by name.

    Raises:
        ClbenchError: unknown name, or a definition that does not fit the schema (names the file and the field).
    """
    if name not in list_suites():
        raise ClbenchError(f"there is no suite {name!r}{did_you_mean(name, list_suites())}")
    path = content_root() / "benchmark" / name / "suite.yaml"
    raw = _read_yaml(path)
    try:
        for track_name, track in raw["tracks"].items():
            track["name"] = track_name
            track["tasks"] = _read_yaml(content_root() / "tasks" / track["tasks"])["tasks"]
        return Suite.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ClbenchError(f"{path}: field {field or '(top)'}: {first['msg']}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ClbenchError(f"{path}: the definition lacks or misshapes {error}") from None


def _read_yaml(path: Path) -> dict:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ClbenchError(f"cannot read {path}: {error}") from None
