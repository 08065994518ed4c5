"""Validate results and result files; all findings are reported at once.

    findings = check_result(load_result(path), load_suite("mini-v2"))      # [] = a valid, complete result

The checks themselves are in `clbench.results.checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from clbench.errors import ClbenchError
from clbench.results.analysis import Analysis
from clbench.results.case import Case
from clbench.results.checks import CHECKS
from clbench.results.copies import Compared, conflicts, to_compare
from clbench.results.find import FOLDER
from clbench.results.io import load_result
from clbench.results.schema import Result
from clbench.suite import Suite, load_suite
from clbench.utils.parallel import parallel_map

known_suite = cache(load_suite)
"""A suite's definition, read once a process."""


@dataclass(frozen=True)
class Finding:
    """Something that makes a result invalid."""

    code: str
    """Stable id of the check, e.g. "CLB006"."""
    message: str
    """What is wrong and where, in one sentence."""


def check_result(
    result: Result, suite: Suite, *, allow_partial: bool = False, path: Path | None = None
) -> list[Finding]:
    """Everything that is wrong with a result, measured against its suite's definition; empty = valid.

    Args:
        result: as loaded; a field that `load_result` would refuse may raise here.
        suite: the definition that the result names.
        allow_partial: accept a result that misses runs of the protocol (it must say so).
        path: the file's place under `submissions/`, where it lies there: it must be <suite>/<track>/<variant>.json.
    """
    return _findings(validate(Case(result, suite, allow_partial, path)))


def validate(case: Case) -> Analysis | list[Finding]:
    """Everything that is wrong with a result; for a valid one its analysis, which the checks have computed."""
    track, suite = case.result.track, case.suite
    if track not in suite.tracks:
        return [Finding("CLB002", f"suite {suite.name} has no track {track!r} (known: {', '.join(suite.tracks)})")]
    findings = [Finding(code, message[:500]) for code, check in CHECKS.items() for message in check(case)]
    if findings:
        return findings
    assert case.analysis is not None, "the checks report whatever keeps a result from being analyzed"
    return case.analysis


def check_file(path: Path, suite: str | None = None, *, allow_partial: bool = False) -> list[Finding]:
    """Everything that is wrong with a result file; empty = valid. A file that cannot be read is CLB000.

    Args:
        suite: what `--suite` takes; default the suite that the file names.
    """
    return _findings(_validate_file(path, suite, allow_partial))


def check_files(paths: Sequence[Path], suite: str | None = None, *, allow_partial: bool = False) -> list[list[Finding]]:
    """`check_file` of each path, many of them on all cores; submissions among them are compared with each other."""
    found = parallel_map(partial(_check_and_compare, suite=suite, allow_partial=allow_partial), paths)
    findings = [wrong for wrong, _ in found]
    submissions = {
        path.parts[-3:]: (number, one) for number, (path, (_, one)) in enumerate(zip(paths, found, strict=True)) if one
    }
    numbers = [number for number, _ in submissions.values()]
    for index, code, sentence in conflicts([one for _, one in submissions.values()]):
        findings[numbers[index]].append(Finding(code, sentence))
    return findings


def _check_and_compare(path: Path, suite: str | None, allow_partial: bool) -> tuple[list[Finding], Compared | None]:
    """What `check_file` says; of a valid submission also what is compared with others."""
    found = _validate_file(path, suite, allow_partial)
    if not isinstance(found, Analysis):
        return found, None
    return [], to_compare(found) if FOLDER in path.parts and not found.result.partial else None


def load_valid(path: Path, suite: str | None = None, *, allow_partial: bool = False) -> Analysis:
    """Load and analyze a valid result file; `suite` is what `--suite` takes.

    Raises:
        ClbenchError: the file is not a valid result.
    """
    found = _validate_file(path, suite, allow_partial)
    if isinstance(found, Analysis):
        return found
    raise ClbenchError(f"{path} is not valid: {found[0].code} {found[0].message}")


def _validate_file(path: Path, suite: str | None, allow_partial: bool = False) -> Analysis | list[Finding]:
    try:
        result = load_result(path)
        definition = known_suite(suite or result.suite.name)
    except ClbenchError as error:
        return [Finding("CLB000", str(error))]
    place = path if FOLDER in path.parts else None
    return validate(Case(result, definition, allow_partial, place))


def _findings(found: Analysis | list[Finding]) -> list[Finding]:
    return [] if isinstance(found, Analysis) else found
