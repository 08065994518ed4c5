"""Searches of methods' settings: the file that `clbench tune` writes, and what the result of a tuned method says of it.

search = find_search("ewc", load_suite("mini-v2"), "styles")     # tuning/mini-v2-dev/styles/ewc.json
search.chosen, search.record
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from clbench.errors import ClbenchError
from clbench.results.fields import Integer, Record, Sha256, SuiteRef, Text
from clbench.suite import Name, Suite, content_root, list_suites, load_suite
from clbench.utils.files import read_limited, write_text
from clbench.utils.formatting import printable

FOLDER = "tuning"
"""The folder of committed searches, <suite>/<track>/<method>.json."""
MAX_BYTES = 1_000_000
SettingValues = dict[Text, int | float]
"""Setting -> its value."""


class SettingRange(Record):
    """Where a search looks for the values of a setting."""

    low: float
    """The lowest value."""
    high: float
    """The highest value."""
    log: bool
    """Whether each factor is as likely as any other, instead of each difference."""
    relative: bool
    """Whether the lowest and the highest value are multiples of the suite's value."""
    integer: bool
    """Whether values are whole numbers."""
    default: int | float | None
    """The method's default; null: the suite's value."""

    @model_validator(mode="after")
    def _is_a_range(self) -> SettingRange:
        if not self.low < self.high:
            raise ValueError(f"its lowest value, {self.low:g}, is not below its highest, {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, not at {self.low:g}")
        return self


Space = dict[Text, SettingRange]
"""Setting -> its range."""


class Trial(Record):
    """SettingValues that were tried, and how they did: either `kept` or `failed` is there."""

    settings: SettingValues
    """The settings that differ from the method's defaults; those of the first trial are empty."""
    kept: float | None
    """Kept, the mean over the orders, of the metric that ranks; null if the trial failed."""
    failed: Text | None
    """Why the method failed with these settings; null if it did not."""

    @model_validator(mode="after")
    def _ended_in_one_way(self) -> Trial:
        if (self.kept is None) == (self.failed is None):
            raise ValueError("a trial has either a value of kept or a reason why it failed")
        return self


class Tuning(Record):
    """How a search chose the settings of a result's method."""

    suite: SuiteRef
    """The development suite on whose tasks the settings were tried."""
    track: Name
    """Its track."""
    orders: tuple[Text, ...] = Field(min_length=1)
    """The task orders that each trial ran."""
    trials: Integer = Field(ge=1)
    """How many settings were tried, the defaults included."""
    space: Space
    """Setting -> the range that was searched."""
    chosen: SettingValues
    """The settings of the best trial that differ from the method's defaults."""


class Search(Record):
    """A search of one method's settings on one track of a development suite; what a tuning file holds."""

    schema_version: Literal["1"] = "1"
    """Version of this schema."""
    suite: SuiteRef
    """The development suite."""
    track: Name
    """Its track."""
    metric: Name
    """The metric by which the track ranks methods."""
    orders: tuple[Text, ...] = Field(min_length=1)
    """The task orders that each trial ran, each with its first training seed."""
    method: Name
    """The method's name."""
    source_sha256: Sha256
    """Checksum of the method's source."""
    space: Space = Field(min_length=1)
    """Setting -> its range."""
    trials: tuple[Trial, ...] = Field(min_length=1)
    """What was tried, in order; the defaults first."""
    chosen: SettingValues
    """The settings of the best trial; of equal ones, of the earliest."""
    created_at: AwareDatetime
    """When the last trial ended."""
    software: dict[str, Text]
    """Package -> version."""
    command: Text
    """The command that makes this search again."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Search:
        for number, trial in enumerate(self.trials):
            if set(trial.settings) != (set(self.space) if number else set()):
                raise ValueError(f"trial {number} does not set {'each of the' if number else 'none of the'} settings")
            if wrong := outside(trial.settings, self.space):
                raise ValueError(f"trial {number}: {wrong}")
        if all(trial.kept is None for trial in self.trials):
            raise ValueError("every trial failed, so that nothing was chosen")
        if self.chosen != self.trials[best(self.trials)].settings:
            raise ValueError("what was chosen is not the best trial, or of equal ones not the earliest")
        return self

    @property
    def record(self) -> Tuning:
        """What the result of the tuned method says of the search."""
        return Tuning(
            suite=self.suite,
            track=self.track,
            orders=self.orders,
            trials=len(self.trials),
            space=self.space,
            chosen=self.chosen,
        )


def best(trials: Sequence[Trial]) -> int:
    """The index of the trial with the highest value of kept; of equal ones, of the earliest. Failed ones are worst."""
    values = [float("-inf") if trial.kept is None else trial.kept for trial in trials]
    return values.index(max(values))


def outside(settings: Mapping[str, float], space: Mapping[str, SettingRange]) -> str:
    """A sentence about a setting that was not searched, or is outside its range; "" if there is none."""
    for name, value in settings.items():
        if name not in space:
            return f"setting {name!r} has no search range"
        given = space[name]
        if not given.relative and not given.low <= value <= given.high:
            return f"setting {name!r} is {value:g}, outside its search range [{given.low:g}, {given.high:g}]"
    return ""


def search_path(folder: Path, suite: str, track: str, method: str) -> Path:
    """The tuning file of a method in a folder of them."""
    return folder / suite / track / f"{method}.json"


def tuning_folder() -> Path:
    """The folder of the project's own tuning files."""
    return content_root() / FOLDER


def save_search(search: Search, path: Path) -> None:
    """Write a tuning file, atomically.

    Raises:
        WorkFailed: it cannot be written.
    """
    write_text(path, search_text(search))


def search_text(search: Search) -> str:
    """A search as its file has it."""
    return json.dumps(search.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load_search(path: Path) -> Search:
    """Read a tuning file.

    Raises:
        ClbenchError: it cannot be read, or is none (names the file and the field).
    """
    try:
        return Search.model_validate_json(read_limited(path, MAX_BYTES))
    except OSError as error:
        raise ClbenchError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        reason = (f"field {printable(field)}: " if field else "") + printable(
            first["msg"].removeprefix("Value error, ")
        )
    except ValueError as error:
        reason = str(error)
    raise ClbenchError(f"{path} is not a tuning file: {reason}; use the file as `clbench tune` wrote it")


def find_search(method: str, suite: Suite, track: str, place: Path | None = None) -> Search:
    """The search whose chosen settings a method takes on a track of a suite.

    Args:
        suite: the suite that is run. A suite for development was tuned on itself, another one on `<name>-dev`.
        place: a tuning file, or a folder of them; default the project's.

    Raises:
        ClbenchError: there is none, or it is of another method, track or version of the suite, or of the tasks of the
            suite that is run.
    """
    tuned_on = suite.name if suite.for_development else f"{suite.name}-dev"
    place = place or tuning_folder()
    path = place if place.is_file() else search_path(place, tuned_on, track, method)
    again = f"`clbench tune --method {method} --track {track} --suite {tuned_on}`"
    if not path.is_file():
        raise ClbenchError(f"there is no {path}; {again} writes it")
    search = load_search(path)
    for what, found, wanted in (("method", search.method, method), ("track", search.track, track)):
        if found != wanted:
            raise ClbenchError(f"{path} is of {what} {found!r}, not of {wanted!r}")
    name = search.suite.name
    if search.suite.sha256 == suite.sha256 and not suite.for_development:
        raise ClbenchError(f"{path} was tuned on the tasks of suite {name} itself; tune on others")
    if name in list_suites() and search.suite.sha256 != load_suite(name).sha256:
        raise ClbenchError(f"{path} was tuned on another version of suite {name}; tune again: {again}")
    return search


def check_source(search: Search, source_sha256: str) -> None:
    """Refuse a search of another source than the method has now.

    Raises:
        ClbenchError: it is of another one.
    """
    if search.source_sha256 != source_sha256:
        raise ClbenchError(
            f"method {search.method} has changed since it was tuned; tune again: `clbench tune --method "
            f"{search.method} --track {search.track} --suite {search.suite.name}`"
        )


def settings_from(tuning: Tuning | None, changed: Mapping[str, object]) -> Literal["default", "tuned", "set by hand"]:
    """Where settings come from.

    Args:
        changed: the settings that differ from the method's defaults.
    """
    return "tuned" if tuning else "set by hand" if changed else "default"
