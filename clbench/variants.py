"""Variants: named configurations of methods, given on the command line, in a file, or as a grid of settings.

variants = grid(["ewc"], ["strength=1,10"])
variants[0]   # Variant(method="ewc", settings={"strength": 1}, name="ewc-strength-1")
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from clbench.errors import ClbenchError
from clbench.suite import FrozenModel, Name
from clbench.utils.yaml_files import read_yaml


def _no_partial(name: str) -> str:
    if name.endswith(".partial"):
        raise ValueError("a variant's name does not end in .partial, which files of partial results do")
    return name


VariantName = Annotated[Name, AfterValidator(_no_partial)]
"""A name of at most 64 letters, digits, `-`, `_` and `.`; it begins with a letter or digit."""


def _default_name(fields: dict[str, Any]) -> str:
    """The method's name, which says that it was tuned. "" where the method is none, which has an error of its own."""
    return fields.get("method", "") + ("_tuned" if fields.get("tuned") else "")


class Variant(FrozenModel):
    """One configuration of a method."""

    method: str
    """Its registered name."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The hyper-parameters that differ from the method's defaults."""
    tuned: bool = False
    """Whether its settings are those that `clbench tune` chose for the track (`clbench.results.tuning`)."""
    name: VariantName = Field(default_factory=_default_name, validate_default=True)
    """Its result's name; default the method's, or `<method>_tuned`."""

    @model_validator(mode="after")
    def _has_settings_from_one_place(self) -> Variant:
        if self.tuned and self.settings:
            raise ValueError("a tuned variant has the settings of its tuning file, and is given no others")
        return self

    @classmethod
    def of(
        cls, method: str, settings: Mapping[str, Any] | None = None, name: str | None = None, tuned: bool = False
    ) -> Variant:
        """A variant.

        Raises:
            ClbenchError: the name is not fit for one.
        """
        try:
            named = {} if name is None else {"name": name}
            return cls(method=method, settings=dict(settings or {}), tuned=tuned, **named)
        except ValidationError as error:
            what = f"variant {name!r}" if name is not None else f"method {method!r}: its name cannot be recorded"
            if tuned and settings:
                what = f"method {method!r}"
            raise ClbenchError(f"{what}: {_first(error)}") from None


def configuration_text(method: str, settings: Mapping[str, Any]) -> str:
    """A method and its settings on one line, e.g. "ewc, strength=10"."""
    return ", ".join([method, *(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in settings.items())])


def read_variants(path: Path) -> list[Variant]:
    """The variants in a YAML file, which is a list such as

        - {method: naive}
        - {name: ewc-weak, method: ewc, settings: {strength: 0.1}}
        - {method: ewc, tuned: true}

    Raises:
        ClbenchError: the file cannot be read, or an entry does not fit (names it).
    """
    content = read_yaml(path)
    if not isinstance(content, list) or not content:
        raise ClbenchError(f"{path} is not a list of variants, each with a method, and if wanted a name and settings")
    try:
        return TypeAdapter(list[Variant]).validate_python(content)
    except ValidationError as error:
        number, *field = error.errors()[0]["loc"]
        place = f"variant {int(number) + 1}" + "".join(f", field {name}" for name in field[:1])
        raise ClbenchError(f"{path}: {place}: {_first(error)}") from None


def grid(methods: Sequence[str], pairs: Sequence[str]) -> list[Variant]:
    """The variants of some methods under `[method.]key=value[,value...]` pairs: every combination of the values.

    A key without a method is of all methods. Names are made of the values where there are several, as in
    `ewc-strength-10`.

    Raises:
        ClbenchError: a pair is malformed, is of another method, or gives one value twice.
    """
    values: dict[str, dict[str, list[str]]] = {method: {} for method in methods}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        owner, dot, name = key.rpartition(".")
        if not equals or not name or (dot and not owner):
            raise ClbenchError(f"--set of a sweep takes key=value or method.key=value, not {pair!r}")
        if owner and owner not in values:
            raise ClbenchError(f"--set {pair}: method {owner!r} is not among those of the sweep")
        for method in [owner] if owner else methods:
            values[method][name] = _alternatives(text)
    return [variant for method in methods for variant in _combinations(method, values[method])]


def _alternatives(text: str) -> list[str]:
    """The values of one setting; commas within a JSON value do not count."""
    try:
        json.loads(text)
    except ValueError:
        return text.split(",")
    return [text]


def _combinations(method: str, values: Mapping[str, list[str]]) -> list[Variant]:
    variants = []
    for chosen in itertools.product(*values.values()):
        settings = dict(zip(values, chosen, strict=True))
        varied = [f"{key}-{_as_name(text)}" for key, text in settings.items() if len(values[key]) > 1]
        variants.append(
            Variant.of(method, {key: read_value(text) for key, text in settings.items()}, "-".join([method, *varied]))
        )
    return variants


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text.strip()) or "_"


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs; a value is read as JSON where it is JSON, else as text.

    Raises:
        ClbenchError: one is not of that form.
    """
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ClbenchError(f"--set takes key=value, not {pair!r}")
        settings[key] = read_value(value)
    return settings


def read_value(text: str) -> Any:
    """A value as the command line has it: JSON where it is JSON, else text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_distinct(variants: Sequence[Variant]) -> list[Variant]:
    """The variants, each once.

    Raises:
        ClbenchError: there are none, or two configurations have one name (shows both).
    """
    if not variants:
        raise ClbenchError("no method was given")
    found: dict[str, Variant] = {}
    for variant in variants:
        known = found.setdefault(variant.name, variant)
        if known != variant:
            both = [configuration_text(one.method, one.settings) for one in (known, variant)]
            raise ClbenchError(
                f"two configurations have the name {variant.name!r}: {both[0]}; and {both[1]}; give each a name of its "
                f"own"
            )
    return list(found.values())


def _first(error: ValidationError) -> str:
    return error.errors()[0]["msg"].removeprefix("Value error, ")
