"""The settings of a method that `clbench tune` searches, read off the annotations of its `Config`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from clbench.errors import ClbenchError
from clbench.method import Method, SearchRange
from clbench.results.tuning import SettingRange, Space
from clbench.suite import Training


def search_space(method: Method) -> Space:
    """The ranges of the settings that have a `SearchRange`.

    Raises:
        ClbenchError: one is empty, begins at or below 0 though it is logarithmic, holds values that its setting does
            not take, or is relative to what no suite has.
    """
    return {
        name: _setting_range(f"method {method.name}: the search range of setting {name!r}", name, field, given)
        for name, field in type(method.config).model_fields.items()
        for given in field.metadata
        if isinstance(given, SearchRange)
    }


def _setting_range(where: str, name: str, field: FieldInfo, given: SearchRange) -> SettingRange:
    default = field.get_default(call_default_factory=True) if not field.is_required() else None
    fields: dict[str, Any] = {**vars(given), "integer": False, "default": default}
    try:
        found = SettingRange.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        named = "".join(f"{part}: " for part in first["loc"][:1])
        raise ClbenchError(f"{where}: {named}{_message(error)}") from None
    if found.relative:
        suites = Training.model_fields.get(name)
        if suites is None or suites.annotation not in (int, float):
            raise ClbenchError(f"{where} is relative, but the training of a suite has no number of that name")
        return found
    takes: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, *field.metadata])  # type: ignore
    for end in (found.low, found.high):
        try:
            value = takes.validate_python(end)
        except ValidationError as error:
            raise ClbenchError(f"{where} holds {end:g}, which it does not take: {_message(error)}") from None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ClbenchError(f"{where}: its values are no numbers")
    return found.model_copy(update={"integer": isinstance(value, int)})


def _message(error: ValidationError) -> str:
    return error.errors()[0]["msg"].removeprefix("Value error, ")
