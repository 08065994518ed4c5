"""The kinds of text and numbers that the records of results hold, and what these records share."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, StringConstraints

from clbench.suite import FrozenModel, Name

Text = Annotated[str, StringConstraints(max_length=4000)]


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("is not one line of printable text without spaces around it")
    return text


Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
"""Text that cannot change how the text around it is shown: no control or direction characters."""
HttpsUrl = Annotated[
    str,
    StringConstraints(
        max_length=400,
        pattern=r"^https://[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[0-9]{1,5})?([/?#][A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]*)?$",
    ),
]
"""A web address without a user's name in it; other than ASCII letters are percent-encoded."""
Licence = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+() -]*$", max_length=100)]
"""An SPDX identifier or expression, e.g. "Apache-2.0"."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""Small enough for arithmetic with floats."""


def _finite(value: JsonValue) -> JsonValue:
    json.dumps(value, allow_nan=False)
    return value


Setting = Annotated[JsonValue, AfterValidator(_finite)]
"""Any JSON value without infinities, which pydantic takes for `JsonValue`."""


class Record(FrozenModel):
    """A part of a result or of another committed file; its schema says what each field holds."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class SuiteRef(Record):
    """Which definition was run."""

    name: Name
    """The suite's name."""
    version: Text
    """The suite's version."""
    sha256: Sha256
    """SHA-256 of the definition's content (`Suite.sha256`)."""
