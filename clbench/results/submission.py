"""File a valid result among the submissions, and list the steps that are left to do by hand."""

from __future__ import annotations

from pathlib import Path

from clbench.errors import ClbenchError
from clbench.results.io import load_result, save_result
from clbench.results.schema import Result
from clbench.results.validation import check_result, known_suite
from clbench.suite import list_suites

CHECKLIST = """\
Before you open the pull request:
- the new file and the rebuilt tables are all that it changes;
- the method's source is public, or in methods/: the result names its sha256 ({source}...);
- `{command}` makes this result again from what you link to;
- the submitter field says who stands behind it: {submitter}."""


def submit(path: Path, submitter: str, folder: Path, replace: bool) -> tuple[Path, Result]:
    """File a result as `<folder>/<suite>/<track>/<variant>.json`.

    Raises:
        ClbenchError: it is invalid, partial or of a suite without a board, or its place is taken and `replace` is not
            given.
    """
    result = load_result(path).model_copy(update={"submitter": submitter})
    boards = [name for name in list_suites() if not known_suite(name).for_development]
    if result.suite.name not in boards:
        known = ", ".join(boards)
        raise ClbenchError(f"{path} is of suite {result.suite.name!r}; only those of {known} have a board to submit to")
    findings = check_result(result, known_suite(result.suite.name))
    if findings:
        more = f" (and {len(findings) - 1} more: `clbench validate {path}`)" if len(findings) > 1 else ""
        raise ClbenchError(f"{path} cannot be submitted: {findings[0].code} {findings[0].message}{more}")
    place = folder / result.place
    if place.exists() and not replace:
        there, here = load_result(place).method, result.method
        of = "" if there.configured_as(here) else f" with another configuration ({there.configuration})"
        raise ClbenchError(
            f"{place} exists{of}; give --replace to put this result ({here.configuration}) in its place"
            + (", or run it under a name of its own with --variant" if of else "")
        )
    save_result(result, place)
    return place, result


def next_steps(place: Path, result: Result, written: list[Path]) -> list[str]:
    """The steps that are left to do by hand: git commands, and a reviewer's questions."""
    branch = f"submit-{result.suite.name}-{result.track}-{result.variant}"
    folders = sorted({str(path.parent) for path in written})
    checklist = CHECKLIST.format(
        source=result.method.source_sha256[:12], command=" ".join(result.command.split()), submitter=result.submitter
    )
    return [
        f"git switch -c {branch}",
        f"git add {place} {' '.join(folders)}",
        f'git commit -m "Submit {result.variant} on {result.track} of {result.suite.name}"',
        f"git push -u origin {branch}",
        "",
        *checklist.splitlines(),
    ]
