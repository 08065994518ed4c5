"""Read, check and analyze results: those of a folder of submissions, or those that a run wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clbench.errors import ClbenchError
from clbench.results.analysis import Analysis
from clbench.results.case import Case
from clbench.results.copies import conflicts, to_compare
from clbench.results.find import replicate_number, result_files
from clbench.results.io import load_result
from clbench.results.validation import validate
from clbench.suite import Suite, load_suite
from clbench.utils.parallel import parallel_map

MOST_ERRORS = 5
"""How many invalid results one message names."""


def read_submissions(
    submissions: Path, load: Callable[[str], Suite] = load_suite, new: tuple[Path, Analysis] | None = None
) -> list[Analysis]:
    """Read, check and analyze the results in <submissions>/<suite>/<track>/<variant>.json, and replicates beside them.

    Args:
        submissions: their folder.
        load: how a suite is found by its name.
        new: a result and its place, which it takes before it is filed, whatever that place has now.

    Raises:
        ClbenchError: a submission is invalid or partial, lies elsewhere, is a copy of another one, or is none of the
            variant that it is filed beside.
    """
    place = new[0] if new else None
    paths = sorted((replicate_number(path), path) for path in submissions.glob("*/**/*.json") if path != place)
    found = _read([path for _, path in paths], _Reader(load))
    found += [new[1]] if new else []
    compared = [to_compare(one) for one in found]
    _refuse([f"{found[index].result.place}: {code} {sentence}" for index, code, sentence in conflicts(compared)])
    return found


def read_own(runs: Path, load: Callable[[str], Suite] = load_suite) -> list[Analysis]:
    """Read, check and analyze the results that `clbench run` wrote to a folder, partial ones too.

    Args:
        runs: what `--output` was given; what else is kept there, such as the store, is left out.
        load: how a suite is found by its name.

    Raises:
        ClbenchError: a result is invalid, or there is none.
    """
    paths = list(result_files(runs))
    if not paths:
        raise ClbenchError(f"{runs} holds no results, <suite>/<track>/<variant>.json; `clbench run` writes them")
    return _read(paths, _Reader(load, own=True))


def _read(paths: Sequence[Path], reader: _Reader) -> list[Analysis]:
    found, wrong = [], []
    for read in parallel_map(reader, paths):
        if isinstance(read, Analysis):
            found.append(read)
        else:
            wrong.extend(read)
    _refuse(wrong)
    return found


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        more = f"; and {len(wrong) - MOST_ERRORS} more" if len(wrong) > MOST_ERRORS else ""
        listed = "; ".join(wrong[:MOST_ERRORS])
        raise ClbenchError(f"not every result is valid, so that no table was written: {listed}{more}")


@dataclass(frozen=True)
class _Reader:
    """Reads a submission: its analysis, or a sentence for each thing that is wrong with it."""

    load: Callable[[str], Suite]
    own: bool = False
    """Whether it is no submission: it may be partial and lie anywhere."""
    suites: dict[str, Suite] = field(default_factory=dict)
    """Suites that were loaded before."""

    def __call__(self, path: Path) -> Analysis | list[str]:
        try:
            result = load_result(path)
            name = result.suite.name
            suite = self.suites.get(name) or self.suites.setdefault(name, self.load(name))
            found = validate(Case(result, suite, allow_partial=self.own, path=None if self.own else path))
        except ClbenchError as error:
            return [str(error) if str(path) in str(error) else f"{path}: {error}"]
        if isinstance(found, Analysis):
            return found
        return [f"{path}: {finding.code} {finding.message}" for finding in found]
