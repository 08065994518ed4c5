"""Read and write result files."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from clbench.errors import ClbenchError
from clbench.results.schema import Result
from clbench.utils.files import read_limited, write_text
from clbench.utils.formatting import printable

MAX_BYTES = 2_000_000
"""A full `sdxl-v1` result is about 100 kB."""
MAX_VALUES = 100_000
"""A full `sdxl-v1` result has about 5,000; each wrong one would take about a kilobyte to report."""


def save_result(result: Result, path: Path) -> None:
    """Write a result file: atomic, and the same bytes for the same result.

    Raises:
        WorkFailed: the file cannot be written.
    """
    write_text(path, result_text(result))


def result_text(result: Result) -> str:
    """A result as its file has it."""
    text = json.dumps(result.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    # One line a matrix row: a JSON string holds no raw newline, so this meets lists of numbers and nulls only.
    text = re.sub(r'\[\n([^\[\]{}"]*)\n\s*\]', lambda match: "[" + " ".join(match[1].split()) + "]", text)
    return text + "\n"


def load_result(path: str | Path) -> Result:
    """Read a result file. Its form is checked here, its meaning by `check_result`.

    Raises:
        ClbenchError: unreadable, no regular file, over 2 MB or 100,000 values, not JSON (duplicate keys, NaN, numbers
            out of range and extreme nesting included), or a field that does not fit the schema.
    """
    try:
        raw = read_limited(Path(path), MAX_BYTES)
        if raw.count(b",") > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES:,} values")
        text = raw.decode("utf-8")
        # Once for what pydantic's parser lets pass, and once for the schema; only the second needs the numbers' values.
        json.loads(text, object_pairs_hook=_unique, parse_float=str, parse_constant=_no_number)
        result = Result.model_validate_json(text, strict=True)
        return result if result.schema_version != "1" else _with_new_summary(result)
    except OSError as error:
        raise ClbenchError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValidationError as error:
        first, *more = error.errors(include_url=False, include_input=False)
        field = ".".join(str(part) for part in first["loc"]) or "(top)"
        reason = f"field {printable(field)}: {printable(first['msg'])}" + (f" (and {len(more)} more)" if more else "")
    except ValueError as error:
        reason = printable(str(error))
    raise ClbenchError(f"{path} is not a result file: {reason}; use the file as `clbench run` wrote it")


def _with_new_summary(result: Result) -> Result:
    """A result of version 1 with its summary recomputed as version 2 has it; empty where its suite is not at hand."""
    from clbench.results.case import Case  # it needs scipy, which a command that reads no old result need not load
    from clbench.suite import load_suite

    with suppress(ClbenchError):
        case = Case(result, load_suite(result.suite.name))
        if result.track in case.suite.tracks and case.analysis:
            return case.analysis.result
    return result.model_copy(update={"summary": {}})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"field {name} appears twice")
    return fields


def _no_number(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not a finite number")
