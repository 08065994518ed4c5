"""A result as an Every Eval Ever record, so that other registries can take it in (evalevalai.com, schema 0.3.0).

The field names and the values they admit are those of `eval.schema.json` in the package every-eval-ever 0.3.0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clbench.errors import ClbenchError
from clbench.metrics import METRICS
from clbench.results.checks import check_result
from clbench.results.estimates import Figure, Measured, measure
from clbench.results.schema import Result
from clbench.results.significance import ALPHA, RESAMPLES
from clbench.results.summary import summarize
from clbench.suite import Suite, Track

SCHEMA_VERSION = "0.3.0"


@dataclass(frozen=True)
class Reading:
    """How a statistic is to be read."""

    says: str
    lower_is_better: bool
    low: float | str
    """Its bounds; a string where JSON has no number for it."""
    high: float | str
    unit: str = "cosine"


READINGS = {
    "average_score": Reading("mean over all tasks after the last one", False, -1.0, 1.0),
    "average_forgetting": Reading("mean drop of a past task from its best score since it was learned", True, 0.0, 2.0),
    "average_forgetting_ref": Reading("the same sum of drops, divided by the number of all tasks", True, 0.0, 2.0),
    "learned": Reading(
        "share of the way from the untouched model to real images that is reached right after learning a task",
        False,
        "-Infinity",
        "Infinity",
        "proportion",
    ),
    "kept": Reading(
        "share of the way from the untouched model to real images that past tasks keep after the last task",
        False,
        "-Infinity",
        "Infinity",
        "proportion",
    ),
    "average_incremental_score": Reading("mean score of the tasks seen so far, after every task", False, -1.0, 1.0),
    "plasticity": Reading("mean score of a task right after it was learned", False, -1.0, 1.0),
    "backward_transfer": Reading("mean change of a past task's score since it was learned", False, -2.0, 2.0),
    "forward_transfer": Reading("mean gain over the base model before a task is learned", False, -2.0, 2.0),
    "memory": Reading(
        "what past tasks keep above the last-task floor, as a share of what was learned above it",
        False,
        "-Infinity",
        "Infinity",
        "proportion",
    ),
}
"""Statistic -> its reading. `base` is the untouched model's, so that no method's record has it."""


def eee_record(result: Result, suite: Suite, retrieved: datetime | None = None) -> dict[str, Any]:
    """The record of a complete, valid result, ready for JSON; every score is recomputed from the score matrices.

    Args:
        suite: the definition that the result names.
        retrieved: when the record is made; default now.

    Raises:
        ClbenchError: the result is invalid or partial.
    """
    findings = check_result(result, suite)
    if findings:
        raise ClbenchError(f"the result cannot be exported: {findings[0].code} {findings[0].message}")
    track = suite.track(result.track)
    method = measure(
        result.model_copy(update={"summary": summarize(result.runs, result.controls, track)}),
        track,
    )
    seconds = str(int((retrieved or datetime.now(UTC)).timestamp()))
    model = _model(result)
    library = {"name": "clbench", "version": result.environment.packages.get("clbench") or "unknown"}
    commit = result.environment.git_commit
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"clbench-{suite.name}-{track.name}/{model['id']}/{seconds}",
        "evaluation_timestamp": result.created_at.isoformat(),
        "retrieved_timestamp": seconds,
        "source_metadata": {
            "source_name": "clbench",
            "source_type": "evaluation_run",
            "source_organization_name": result.submitter or "unknown",
            "evaluator_relationship": "other",  # a result does not say whether its submitter made the method
            "additional_details": {"checksum": result.checksum},
        },
        "eval_library": library | ({"additional_details": {"git_commit": commit}} if commit else {}),
        "model_info": model,
        "evaluation_results": [
            _evaluation(method, suite, track, metric, statistic, figure)
            for metric in track.metrics
            for statistic in READINGS
            if (figure := method.figure(metric, statistic))
        ],
    }


def _model(result: Result) -> dict[str, Any]:
    """The base model as the method personalizes it: nothing that a model hub has, hence an id of our own."""
    method, backbone = result.method, result.backbone
    return {
        "name": f"{method.name} on {backbone.id}",
        "id": f"clbench/{result.suite.name}-{method.name}",
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "unknown",
            "base_model": backbone.id,
            "base_model_revision": backbone.revision,
            "method": method.name,
            "method_version": method.version,
            "method_source_sha256": method.source_sha256,
            "method_config": json.dumps(method.config, sort_keys=True),
            "regime": ", ".join(sorted({run.regime for run in result.runs})),
        },
    }


def _evaluation(
    method: Measured, suite: Suite, track: Track, metric: str, statistic: str, figure: Figure
) -> dict[str, Any]:
    """One statistic of one metric, over the runs."""
    reading, info, result = READINGS[statistic], METRICS[metric], method.result
    words = statistic.replace("_", " ")
    uncertainty: dict[str, Any] = {"standard_deviation": figure.spread.std, "num_samples": figure.spread.n}
    if figure.interval:
        low, high = figure.interval
        uncertainty |= {
            "confidence_interval": {
                "lower": low,
                "upper": high,
                "confidence_level": 1 - ALPHA,
                "method": "percentile bootstrap of the mean over runs",
            },
            "num_bootstrap_samples": RESAMPLES,
        }
    return {
        "evaluation_result_id": f"{metric}.{statistic}",
        "evaluation_name": f"{suite.name} {track.name}: {info.label} {words}",
        "source_data": {
            "dataset_name": f"{suite.name} {track.name}",
            "source_type": "other",
            "additional_details": {"suite_version": suite.version, "suite_sha256": suite.sha256},
        },
        "evaluation_timestamp": result.created_at.isoformat(),
        "metric_config": {
            "evaluation_description": f"{info.description} {reading.says[0].upper()}{reading.says[1:]}.",
            "metric_id": f"clbench.{metric}.{statistic}",
            "metric_name": f"{info.label} {words}",
            "metric_unit": reading.unit,
            "lower_is_better": reading.lower_is_better,
            "score_type": "continuous",
            "min_score": reading.low,
            "max_score": reading.high,
        },
        "score_details": {
            "score": figure.spread.mean,
            "details": {"over": "runs, each an order of the tasks and a seed", "tasks": str(len(track.tasks))},
            "uncertainty": uncertainty,
        },
        "generation_config": {
            "generation_args": {"execution_command": result.command},
            "additional_details": {
                "sampling": json.dumps(suite.sampling.model_dump(mode="json"), sort_keys=True),
                "prompts": json.dumps(track.eval_prompt_templates),
                "settings": json.dumps(result.settings, sort_keys=True),
            },
        },
    }
