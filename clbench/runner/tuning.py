"""Equal tuning: every method gets equally many trials in its own search space, spread evenly by a fixed sequence.

    variants = trial_variants(description, suite.training, trials=8)
    search = conclude(plan, description, variants, kept, failures, command)     # after their sweep

Trial 0 is the defaults. The others are a scrambled Sobol sequence with a fixed seed (Sobol 1967; Owen 1998), so that a
longer search begins like a shorter one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from clbench.errors import ClbenchError, WorkFailed
from clbench.protocol.describe import MethodDescription
from clbench.protocol.hook_runner import KEPT
from clbench.protocol.rows import read_kept
from clbench.results.schema import SuiteRef
from clbench.results.tuning import Search, SettingRange, SettingValues, Space, Trial, best
from clbench.runner.config import RunSpec
from clbench.runner.engine import Failed
from clbench.runner.prepare import ExecutionPlan
from clbench.scores import RANKED_BY
from clbench.suite import Training
from clbench.utils.software import software_versions
from clbench.variants import Variant

SEED = 0
"""Of the sequence's scrambling."""
DIGITS = 3
"""Significant digits of a setting, few enough to be typed."""


def trial_settings(space: Space, training: Training, trials: int) -> list[SettingValues]:
    """The settings of each trial: {} for the first, then a value for each setting of the space.

    Args:
        training: of the development suite, whose values relative ranges are multiples of.
    """
    from scipy.stats.qmc import Sobol

    sequence = Sobol(len(space), scramble=True, rng=SEED)
    points = sequence.random_base2(math.ceil(math.log2(trials)))[: trials - 1].tolist()
    units = {name: getattr(training, name) if given.relative else 1.0 for name, given in space.items()}

    def settings(point: list[float]) -> SettingValues:
        shares = dict(zip(space, point, strict=True))
        return {name: _value(given, units[name], shares[name]) for name, given in space.items()}

    return [{}, *map(settings, points)]


def _value(given: SettingRange, unit: float, share: float) -> int | float:
    """The value at a share of the way through a range, rounded."""
    low, high = given.low * unit, given.high * unit
    value = low * (high / low) ** share if given.log else low + share * (high - low)
    value = min(max(float(f"{value:.{DIGITS}g}"), low), high)
    return round(value) if given.integer else value


def trial_variants(description: MethodDescription, training: Training, trials: int) -> list[Variant]:
    """A variant for each trial. Its name depends on source and settings, so that it is no other search's.

    Raises:
        ClbenchError: the method has no setting to search.
    """
    method = description.reference
    if not description.space:
        raise ClbenchError(
            f"method {method.name} has no setting to tune: none has a SearchRange ({description.path.name})"
        )
    variants = []
    for number, settings in enumerate(trial_settings(description.space, training, trials)):
        told = json.dumps([method.source_sha256, settings], sort_keys=True)
        name = f"{method.name}-trial-{number}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"
        variants.append(Variant.of(method.name, settings, name))
    return variants


def conclude(
    plan: ExecutionPlan,
    description: MethodDescription,
    variants: list[Variant],
    kept: Mapping[str, float],
    failures: Mapping[str, Failed],
    command: str,
) -> Search:
    """The search of a method, from the outcomes of its trials.

    Args:
        kept: `RunSpec.name` -> `mean_kept`, of the trials that did not fail.
        failures: `RunSpec.name` -> why the method failed.

    Raises:
        WorkFailed: every trial failed. ClbenchError: kept is not defined on this suite.
    """
    suite, spec = plan.sweep.suite, plan.sweep.specs[0]
    track = suite.track(spec.track)
    metric = track.metrics[0]

    def trial(variant: Variant) -> Trial:
        name = f"{variant.name}/{track.name}"
        if failure := failures.get(name):
            return Trial(settings=variant.settings, kept=None, failed=_reason(failure, description.path))
        if not math.isfinite(kept[name]):
            raise ClbenchError(
                f"{RANKED_BY} is not defined on track {track.name} of suite {suite.name}: tune on another"
            )
        return Trial(settings=variant.settings, kept=kept[name], failed=None)

    trials = tuple(map(trial, variants))
    if all(one.kept is None for one in trials):
        raise WorkFailed(
            f"method {description.reference.name} failed in all trials, in the first so: {trials[0].failed}"
        )
    return Search(
        suite=SuiteRef(name=suite.name, version=suite.version, sha256=suite.sha256),
        track=track.name,
        metric=metric,
        orders=tuple(order for order, _ in spec.runs),
        method=description.reference.name,
        source_sha256=description.reference.source_sha256,
        space=description.space,
        trials=trials,
        chosen=trials[best(trials)].settings,
        created_at=datetime.now(UTC).replace(microsecond=0),
        software=dict(software_versions(plan.sweep.config.device)),
        command=command,
    )


def mean_kept(plan: ExecutionPlan, spec: RunSpec) -> float:
    """Kept of a trial, the mean over its runs; nan where it is undefined in any of them.

    Raises:
        WorkFailed: the store does not hold all of it any more.
    """
    return float(np.mean([read_kept(sequence) for sequence in plan.executor.sequences(spec)]))


def _reason(failure: Failed, plugin: Path) -> str:
    """Why a trial failed, without what is true of this machine alone."""
    return failure.message.replace(str(plugin), plugin.name).replace(KEPT, "")
