"""Known facts about a suite: the base model's scores, the controls, how much a repeated run differs from the first, and
what methods add to a training.

They are in the suite's `record.json`, beside its definition.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import AwareDatetime, ConfigDict, Field, NonNegativeFloat, ValidationError

from clbench.errors import ClbenchError
from clbench.results.fields import Sha256
from clbench.results.schema import Controls
from clbench.suite import FrozenModel, content_root

PLAIN_TRAINING = "merge_init"
"""The method that adds nothing to a task's training: others' training times are compared with its."""


class Noise(FrozenModel):
    """Largest differences of one run from its repetitions, e.g. with other threads or another instruction set."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    base: float
    """In a score of the untouched model."""
    cell: dict[str, float] = Field(min_length=1)
    """Method -> in a score of a trained model: training makes differences in the last bits grow."""
    average_score: dict[str, float]
    """Method -> in a run's average score."""
    early_rows: dict[str, float] = Field(default_factory=dict)
    """Method -> root mean square in the scores after the first three tasks; where missing, bounded by `cell`."""
    run_mean: dict[str, float] = Field(default_factory=dict)
    """Method -> in the mean over all rows of a row's mean; where missing, bounded by `average_score`."""
    measured: str
    """The machines and settings, and how the differences were measured."""


class TrainingTime(FrozenModel):
    """What a method at its defaults takes to train a task, beside what `PLAIN_TRAINING` takes on the same machine.

    Results tell seconds too, but of machines that did other work beside; so these are measured on purpose, both methods
    in turn (`perf/methods.py`).
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    source_sha256: Sha256
    """Of the method that was measured, as results record it."""
    multiple: NonNegativeFloat
    """Its mean seconds a task over those of `PLAIN_TRAINING`."""
    at: AwareDatetime
    processor: str | None
    """The name of the CPU, if that could be read."""


class OnRecord(FrozenModel):
    """The measured facts of one version of a suite."""

    suite_sha256: str
    """SHA-256 of the definition that they were measured with."""
    base: dict[str, dict[str, dict[str, float]]]
    """Track -> metric -> task -> score of the untouched model."""
    base_tolerance: float
    """Allowed difference of another machine's base row and controls: many times the noise on one machine."""
    noise: Noise
    controls: dict[str, Controls] | None = None
    """Track -> its controls, which are the same for all methods."""
    training_times: dict[str, TrainingTime] = Field(default_factory=dict)
    """Method -> what it adds to a training."""

    def training_multiple(self, source_sha256: str) -> float | None:
        """The `TrainingTime.multiple` of the method with such a source; None: it was not measured."""
        return next((one.multiple for one in self.training_times.values() if one.source_sha256 == source_sha256), None)


def record_path(suite: str) -> Path:
    """Where the record of a suite is, if there is one."""
    return content_root() / "benchmark" / suite / "record.json"


@cache
def on_record(suite: str) -> OnRecord | None:
    """The record of a suite by name; None where there is none.

    Raises:
        ClbenchError: the file does not fit the schema.
    """
    path = record_path(suite)
    if not path.is_file():
        return None
    try:
        return OnRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        raise ClbenchError(f"{path}: field {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
