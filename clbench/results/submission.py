"""Prepare a valid result for the submissions, and list the steps that are left to do by hand."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from clbench.errors import ClbenchError
from clbench.results.analysis import Analysis
from clbench.results.case import Case
from clbench.results.find import FOLDER, replicate_number, replicate_place, replicates_of
from clbench.results.io import load_result
from clbench.results.replicates import is_replicate
from clbench.results.schema import MethodRef, Result, Submission
from clbench.results.validation import known_suite, validate
from clbench.suite import content_root, list_suites
from clbench.utils.files import file_sha256
from clbench.utils.formatting import printable

SAMPLES = "docs/samples"
"""The folder of sample grids, <suite>/<track>/<variant>.png."""
ORIGIN = ("paper", "code", "licence", "contact")
"""The fields of a submission that say where a method comes from that is not in `methods/`."""
CHECKLIST = """\
Before you open the pull request:
- the result and its sample grid are all that it changes: the tables and the site are rebuilt after the merge;
- the method's source is public, or in methods/: the result names its sha256 ({source}...);
- `{command}` makes this result again from what you link to;
- the submitter field says who stands behind it: {submitter}."""


def submission_of(**fields: str | None) -> Submission:
    """The record of a submission.

    Raises:
        ClbenchError: a field does not fit (names it as an option of `clbench submit`).
    """
    try:
        return Submission.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = first["loc"][0]
        form = ": an address such as https://example.org/page is wanted" if field in ("paper", "code") else ""
        raise ClbenchError(f"--{field} is not accepted{form or ': ' + first['msg']}") from None


def suites_with_board() -> list[str]:
    """The suites that results are submitted to."""
    return [name for name in list_suites() if not known_suite(name).for_development]


def is_bundled(method: MethodRef) -> bool:
    """Whether a result was made with the file that `methods/` holds now."""
    path = content_root() / "methods" / f"{method.name}.py"
    return path.is_file() and file_sha256(path) == method.source_sha256


def missing_origin(result: Result) -> list[str]:
    """The fields that the result's submission lacks, because its method is not in `methods/`."""
    if is_bundled(result.method):
        return []
    return [field for field in ORIGIN if getattr(result.submission, field, None) is None]


def prepare(path: Path, submission: Submission, folder: Path) -> tuple[Path, Analysis]:
    """A result as it is submitted, and the file that it goes to; nothing is written.

    That is `<folder>/<suite>/<track>/<variant>.json`, or `<variant>+2.json` and so on where others were submitted
    before. The same result again, e.g. to add the paper, takes its own place.

    Raises:
        ClbenchError: it is invalid, partial or of a suite without a board, or its variant was submitted with another
            source or other settings.
    """
    result = load_result(path).model_copy(update={"submission": submission, "submitter": None})
    if result.suite.name not in (boards := suites_with_board()):
        known = ", ".join(boards)
        raise ClbenchError(f"{path} is of suite {result.suite.name!r}; only those of {known} have a board to submit to")
    if result.settings.get("debug"):
        raise ClbenchError(
            f"{path} cannot be submitted: --debug ran the method in the process that scored it; run it again without"
        )
    found = validate(Case(result, known_suite(result.suite.name), path=Path(FOLDER, result.place)))
    if not isinstance(found, Analysis):
        more = f" (and {len(found) - 1} more: `clbench validate {path}`)" if len(found) > 1 else ""
        raise ClbenchError(f"{path} cannot be submitted: {found[0].code} {found[0].message}{more}")
    number = 1
    for earlier in replicates_of(folder / result.place):
        there = load_result(earlier)
        if not is_replicate(result.method, there.method):
            raise ClbenchError(
                f"{earlier} is of {printable(there.method.configuration)}, source {there.method.source_sha256[:12]}, "
                f"and this result of {result.method.configuration}, source {result.method.source_sha256[:12]}: run it "
                f"under a name of its own with --variant, or delete that file if you never sent it"
            )
        number = replicate_number(earlier)
        if there.checksum == result.checksum:
            return earlier, found
        number += 1
    return folder / replicate_place(result.place, number), found


def next_steps(result: Result, place: Path, folder: Path, samples: Path) -> list[str]:
    """The steps that are left to do by hand: commands up to an empty line, then a reviewer's questions.

    Args:
        result: as it was filed at `place`, below `folder`.
        samples: folder of sample grids.
    """
    branch = f"submit-{result.suite.name}-{result.track}-{place.stem.replace('+', '-')}"
    grid = result.place.removesuffix(".json") + ".png"
    first = replicate_number(place) == 1
    files = {f"{FOLDER}/{place.relative_to(folder).as_posix()}": place}
    if first and (samples / grid).is_file():
        files[f"{SAMPLES}/{grid}"] = samples / grid
    commands = [
        *_into_checkout(folder, files),
        ["git", "switch", "-c", branch, "main"],
        ["git", "add", *files],
        ["git", "commit", "-m", f"Submit {place.stem} on {result.track} of {result.suite.name}"],
        "# origin must be your fork; in a clone of the project itself, put your fork's URL in its place",
        ["git", "push", "-u", "origin", branch],
    ]
    steps = [command if isinstance(command, str) else shlex.join(command) for command in commands]
    checklist = CHECKLIST.format(
        source=result.method.source_sha256[:12],
        command=" ".join(result.command.split()),
        submitter=result.submitted_by,
    )
    steps += ["", *checklist.splitlines()]
    if missing := missing_origin(result):
        options = ", ".join(f"--{field}" for field in missing)
        steps.append(f"The check will ask for {options}: this method is not in methods/. Submit again with them.")
    if first and len(files) == 1:
        steps.append(f"It has no sample grid yet; `clbench samples` draws {SAMPLES}/{grid} from the run's folder.")
    return steps


def _into_checkout(folder: Path, files: dict[str, Path]) -> list[list[str] | str]:
    """Commands that lead to a checkout of the project with the files in their places.

    Args:
        folder: of the submissions.
        files: place in the checkout -> where the file is now.
    """
    root = folder.absolute().parent
    commands: list[list[str] | str] = []
    if folder.name == FOLDER and (root / ".git").exists():
        if root != Path.cwd():
            commands.append(["cd", str(root)])
    else:
        commands += [
            f"# {root} is no checkout of the project: the files belong at the same places in a clone of your fork",
            "git clone URL-OF-YOUR-FORK clbench && cd clbench",
        ]
        root = None
    for place, now in files.items():
        if root is None or now.absolute() != root / place:
            commands += [["mkdir", "-p", str(PurePosixPath(place).parent)], ["cp", str(now.absolute()), place]]
    return commands
