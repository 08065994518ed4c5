"""A result as an Every Eval Ever record, so that other registries can take it in (evalevalai.com, schema 0.3.0).

The field names and the values they admit are those of `eval.schema.json` in the package every-eval-ever 0.3.0.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from math import inf
from typing import Any

from clbench.errors import ClbenchError
from clbench.metrics import Metric
from clbench.results.analysis import Analysis, Estimate
from clbench.results.case import Case
from clbench.results.schema import Result
from clbench.results.significance import ALPHA
from clbench.results.validation import validate
from clbench.scores import Statistic
from clbench.suite import Suite
from clbench.utils.formatting import sentence

SCHEMA_VERSION = "0.3.0"
INFINITE = {-inf: "-Infinity", inf: "Infinity"}
"""Bounds for which JSON has no number."""


def eee_record(result: Result, suite: Suite, retrieved: datetime | None = None) -> dict[str, Any]:
    """The record of a complete, valid result, ready for JSON; every score is recomputed from the score matrices.

    Args:
        suite: the definition that the result names.
        retrieved: when the record is made; default now.

    Raises:
        ClbenchError: the result is invalid or partial.
    """
    method = validate(Case(result, suite))
    if not isinstance(method, Analysis):
        raise ClbenchError(f"the result cannot be exported: {method[0].code} {method[0].message}")
    track = method.track
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
            "source_organization_name": result.submitted_by or "unknown",
            "evaluator_relationship": "other",  # a result does not say whether its submitter made the method
            "additional_details": {"checksum": result.checksum},
        },
        "eval_library": library | ({"additional_details": {"git_commit": commit}} if commit else {}),
        "model_info": model,
        "evaluation_results": [_evaluation(method, suite, *estimate) for estimate in method.estimates()],
    }


def _model(result: Result) -> dict[str, Any]:
    """The base model as the method personalizes it: nothing that a model hub has, hence an id of our own."""
    method, backbone = result.method, result.backbone
    return {
        "name": f"{result.variant} on {backbone.id}",
        "id": f"clbench/{result.suite.name}-{result.variant}",
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "unknown",
            "base_model": backbone.id,
            "base_model_revision": backbone.revision,
            "variant": result.variant,
            "method": method.name,
            "method_version": method.version,
            "method_source_sha256": method.source_sha256,
            "method_config": json.dumps(method.config, sort_keys=True),
            "regime": ", ".join(sorted({run.regime for run in result.runs})),
        },
    }


def _evaluation(
    method: Analysis, suite: Suite, metric: Metric, statistic: Statistic, estimate: Estimate
) -> dict[str, Any]:
    """One statistic of one metric, over the runs."""
    result, track = method.result, method.track
    key, name = f"{metric.name}.{statistic.name}", f"{metric.label} {statistic.title}"
    lowest, highest = (INFINITE.get(bound, bound) for bound in statistic.bounds(*metric.range))
    spread = estimate.spread
    uncertainty: dict[str, Any] = {"num_samples": spread.n}
    if spread.std is not None:
        uncertainty["standard_deviation"] = spread.std
    if estimate.interval:
        low, high = estimate.interval
        uncertainty |= {
            "confidence_interval": {
                "lower": low,
                "upper": high,
                "confidence_level": 1 - ALPHA,
                "method": "t interval of the mean over orders",
            }
        }
    return {
        "evaluation_result_id": key,
        "evaluation_name": f"{suite.name} {track.name}: {name}",
        "source_data": {
            "dataset_name": f"{suite.name} {track.name}",
            "source_type": "other",
            "additional_details": {"suite_version": suite.version, "suite_sha256": suite.sha256},
        },
        "evaluation_timestamp": result.created_at.isoformat(),
        "metric_config": {
            "evaluation_description": f"{metric.description} {sentence(statistic.description)}",
            "metric_id": f"clbench.{key}",
            "metric_name": name,
            "metric_unit": "proportion" if statistic.unit == "share" else metric.unit,
            "lower_is_better": not statistic.prefers_high(metric.higher_is_better),
            "score_type": "continuous",
            "min_score": lowest,
            "max_score": highest,
        },
        "score_details": {
            "score": spread.mean,
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
