"""What was verified of a submission, and how strictly: records without any work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, ValidationError

from clbench.errors import ClbenchError
from clbench.results.baselines import on_record
from clbench.results.schema import Result, Sha256
from clbench.suite import FrozenModel
from clbench.utils.files import write_text

Level = Literal["recomputed", "artifacts", "rerun"]


LEVELS: tuple[Level, ...] = ("recomputed", "artifacts", "rerun")
"""From the weakest to the strongest."""


UNVERIFIED = "unverified"
"""What is said of a result that reached no rung."""


ENCODER_NOISE = 1e-4
"""How far two machines' encoders may differ on one image set, where no record says more."""


@dataclass(frozen=True)
class Checked:
    """One cell that was looked at."""

    run: int
    """Number in the result, from 1."""
    row: int
    task: str
    metric: str
    submitted: float
    found: float

    @property
    def difference(self) -> float:
        return abs(self.submitted - self.found)


class Verification(FrozenModel):
    """What a maintainer found."""

    level: Level
    checksum: Sha256
    """Of the result that it was found of: of an edited one nothing is known."""
    at: AwareDatetime
    cells: int = 0
    """How many cells were scored again."""
    largest_difference: float = 0.0


def tolerance(result: Result, level: Level) -> float:
    """How far a repeated cell may lie from the submitted one: the noise on record, else the encoders'.

    Of a trained cell three times what was measured for the method (for the least steady one, if it was not measured),
    because the largest of few repetitions is no bound; but never less than for the base model.
    """
    known = on_record(result.suite.name)
    if known is None or known.suite_sha256 != result.suite.sha256:
        return ENCODER_NOISE
    if level != "rerun":
        return known.base_tolerance
    measured = known.noise.cell
    return max(known.base_tolerance, 3 * measured.get(result.method.name, max(measured.values())))


def read_verified(path: Path) -> dict[str, Verification]:
    """`<suite>/<track>/<method>` -> what was found.

    Raises:
        ClbenchError: the file does not fit the schema.
    """
    if not path.is_file():
        return {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {key: Verification.model_validate(value) for key, value in raw.items()}
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise ClbenchError(f"{path} is not a file of verifications: {' '.join(str(error).split())[:200]}") from None


def record(path: Path, result: Result, level: Level, checked: list[Checked]) -> Verification:
    """Note that a result reached a rung; a higher one that it reached before is kept.

    Raises:
        WorkFailed: the file cannot be written.
    """
    known, key = read_verified(path), key_of(result)
    found = Verification(
        level=level,
        checksum=result.checksum,
        at=datetime.now(UTC).replace(microsecond=0),
        cells=len({(one.run, one.row, one.task) for one in checked}),
        largest_difference=max((one.difference for one in checked), default=0.0),
    )
    before = known.get(key)
    if before and before.checksum == found.checksum and LEVELS.index(before.level) > LEVELS.index(level):
        return before
    known[key] = found
    rows = {name: known[name].model_dump(mode="json") for name in sorted(known)}
    write_text(path, json.dumps(rows, indent=1) + "\n")
    return found


def key_of(result: Result) -> str:
    return f"{result.suite.name}/{result.track}/{result.method.name}"


def status(verified: Mapping[str, Verification], result: Result) -> str:
    """The rung a result is known to have reached, or "unverified"."""
    found = verified.get(key_of(result))
    return found.level if found and found.checksum == result.checksum else UNVERIFIED
