"""Records of how strictly submissions were verified. The verification itself is in `clbench.runner.verify`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, ValidationError

from clbench.errors import ClbenchError
from clbench.results.baselines import on_record
from clbench.results.fields import Sha256
from clbench.results.find import replicate_place
from clbench.results.reproduction import ENCODER_NOISE, Rerun
from clbench.results.schema import Environment, Result
from clbench.suite import FrozenModel
from clbench.utils.files import read_limited, write_text

Level = Literal["recomputed", "artifacts", "rerun"]
LEVELS: tuple[Level, ...] = ("recomputed", "artifacts", "rerun")
"""From the weakest to the strongest."""
UNVERIFIED = "unverified"
"""The level of a result that nobody has verified."""
MAX_BYTES = 20_000_000
"""Bytes of a file of verifications; a note has about 200, of a rerun about 2,000."""


@dataclass(frozen=True)
class Checked:
    """A submitted score and what was found instead."""

    run: int
    """The run's number in the result, counted from 1."""
    row: int
    column: int
    task: str
    metric: str
    submitted: float
    found: float

    @property
    def difference(self) -> float:
        return abs(self.submitted - self.found)


class Verification(FrozenModel):
    """A maintainer's note on one result."""

    level: Level
    sha256: Sha256
    """The verified result's `record_sha256`; an edited result has another one and counts as unverified."""
    at: AwareDatetime
    cells: int = 0
    """How many cells were scored again."""
    largest_difference: float = 0.0
    rerun: Rerun | None = None
    """What was run again; None for other levels, and in notes from before it was recorded."""
    environment: Environment | None = None
    """The verifier's machine and versions; None in notes from before it was recorded."""


def tolerance(result: Result) -> float:
    """The largest accepted difference between a submitted score and that of the same images or weights here."""
    known = on_record(result.suite.name)
    return known.base_tolerance if known and known.suite_sha256 == result.suite.sha256 else ENCODER_NOISE


def read_verified(path: Path) -> dict[str, Verification]:
    """`<suite>/<track>/<variant>` -> the note on that result.

    Raises:
        ClbenchError: the file does not fit the schema.
    """
    if not path.is_file():
        return {}
    try:
        raw = json.loads(read_limited(path, MAX_BYTES))
        return {key: Verification.model_validate(value) for key, value in raw.items()}
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise ClbenchError(f"{path} is not a file of verifications: {' '.join(str(error).split())[:200]}") from None


def record(
    path: Path,
    result: Result,
    level: Level,
    checked: Sequence[Checked],
    *,
    number: int = 1,
    rerun: Rerun | None = None,
    environment: Environment | None = None,
) -> Verification:
    """Write down that a result reached a level; a higher level that it reached before is kept.

    Args:
        number: which replicate of its variant the result is (`clbench.results.find.replicate_number`).

    Raises:
        WorkFailed: the file cannot be written.
    """
    known, key = read_verified(path), replicate_place(result.place, number).removesuffix(".json")
    found = Verification(
        level=level,
        sha256=record_sha256(result),
        at=datetime.now(UTC).replace(microsecond=0),
        cells=len({(one.run, one.row, one.task) for one in checked}),
        largest_difference=max((one.difference for one in checked), default=0.0),
        rerun=rerun,
        environment=environment,
    )
    before = known.get(key)
    if before and before.sha256 == found.sha256 and LEVELS.index(before.level) > LEVELS.index(level):
        return before
    known[key] = found
    rows = {name: known[name].model_dump(mode="json", exclude_none=True) for name in sorted(known)}
    write_text(path, json.dumps(rows, indent=1) + "\n")
    return found


def status(verified: Mapping[str, Verification], result: Result) -> str:
    """The level that a result is known to have reached, or "unverified"."""
    sha256 = record_sha256(result)
    return next((note.level for note in verified.values() if note.sha256 == sha256), UNVERIFIED)


def record_sha256(result: Result) -> str:
    """SHA-256 of all that a result's file says, but for its summary, which is recomputed wherever it is shown.

    The checksum, which every valid result has right, stands for runs and controls; the others are those that it leaves
    out: the command, the submitter, the settings, the backbone and the machine. Fields that the file does not have do
    not count, so that a new optional field changes nothing.
    """
    content = result.model_dump(
        mode="json", warnings=False, exclude_unset=True, exclude={"summary", "runs", "controls"}
    )
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
