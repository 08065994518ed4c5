"""The Every Eval Ever record, against the required fields and admitted values of schema 0.3.0."""

import json
from datetime import UTC, datetime

import pytest
from builders import make_result, tiny_suite

from clbench.errors import ClbenchError
from clbench.results.analysis import analyze
from clbench.results.eee import eee_record
from clbench.scores import STATISTICS

SUITE = tiny_suite()
NOW = datetime(2026, 1, 2, tzinfo=UTC)
REQUIRED = {
    "": {
        "schema_version",
        "evaluation_id",
        "retrieved_timestamp",
        "source_metadata",
        "model_info",
        "eval_library",
        "evaluation_results",
    },
    "source_metadata": {"source_type", "source_organization_name", "evaluator_relationship"},
    "eval_library": {"name", "version"},
    "model_info": {"name", "id", "additional_details"},
    "model_info.additional_details": {"deployment_type", "model_availability"},
    "evaluation_results": {"evaluation_name", "source_data", "metric_config", "score_details"},
    "evaluation_results.source_data": {"dataset_name", "source_type"},
    "evaluation_results.metric_config": {"lower_is_better", "min_score", "max_score"},  # bounds, as it is continuous
    "evaluation_results.score_details": {"score"},
    "evaluation_results.score_details.uncertainty.confidence_interval": {"lower", "upper"},
}
"""Path -> the fields that must be there: facts of `eval.schema.json` of every-eval-ever 0.3.0."""
ADMITTED = {
    "source_metadata.source_type": {"documentation", "evaluation_run"},
    "source_metadata.evaluator_relationship": {"first_party", "third_party", "collaborative", "other"},
    "model_info.additional_details.deployment_type": {"self_deployed", "externally_managed", "unknown"},
    "model_info.additional_details.model_availability": {"open_weights", "closed_weights", "unknown"},
    "evaluation_results.source_data.source_type": {"other"},
    "evaluation_results.metric_config.score_type": {"binary", "continuous", "levels"},
}
TOP_LEVEL = REQUIRED[""] | {"evaluation_timestamp", "detailed_evaluation_results"}
"""All that the schema has there; it refuses more."""
OF_GENERATION = {"execution_command", "prompt_template"}
"""Of the few arguments that `generation_args` admits, those that this benchmark could have."""


def at(record: dict, path: str) -> list:
    """What lies at a dotted path; lists are gone through."""
    found: list = [record]
    for part in filter(None, path.split(".")):
        found = [own[part] for own in found]
        found = [one for own in found for one in (own if isinstance(own, list) else [own])]
    return found


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads(json.dumps(eee_record(make_result(SUITE), SUITE, NOW), allow_nan=False))


@pytest.mark.parametrize("path", REQUIRED)
def test_every_required_field_is_there(record, path):
    found = at(record, path)
    assert found
    assert all(own.keys() >= REQUIRED[path] for own in found)


@pytest.mark.parametrize("path", ADMITTED)
def test_every_enumerated_value_is_admitted(record, path):
    assert set(at(record, path)) <= ADMITTED[path]


def test_no_field_is_one_that_the_schema_refuses(record):
    assert record.keys() <= TOP_LEVEL
    for arguments in at(record, "evaluation_results.generation_config.generation_args"):
        assert arguments.keys() <= OF_GENERATION
    details = at(record, "model_info.additional_details") + at(
        record, "evaluation_results.generation_config.additional_details"
    )
    assert all(isinstance(value, str) for own in details for value in own.values())


def test_scores_and_their_spread_are_the_summarys_and_within_the_bounds_given(record):
    summary = analyze(make_result(SUITE), SUITE.track("styles")).summary
    by_id = {own["evaluation_result_id"]: own for own in record["evaluation_results"]}
    expected = {f"{m}.{s}": value for m, own in summary.items() for s, value in own.items() if value and s != "base"}
    assert by_id.keys() == expected.keys()
    for name, spread in expected.items():
        details, config = by_id[name]["score_details"], by_id[name]["metric_config"]
        assert details["score"] == spread.mean
        assert (details["uncertainty"]["standard_deviation"], details["uncertainty"]["num_samples"]) == (
            spread.std,
            spread.n,
        )
        interval = details["uncertainty"]["confidence_interval"]
        assert interval["lower"] <= spread.mean <= interval["upper"]
        assert float(config["min_score"]) <= spread.mean <= float(config["max_score"])
        assert config["lower_is_better"] == ("forgetting" in name)


def test_every_statistic_of_a_method_has_a_record_which_says_what_it_is_and_its_unit(record):
    found = {own["evaluation_result_id"]: own["metric_config"] for own in record["evaluation_results"]}
    names = {name.removeprefix("csd.") for name in found if name.startswith("csd.")}
    assert names == STATISTICS.keys() - {"base", "forward_transfer", "leak", "drift"}, "the last three are not measured"
    for name in names:
        words = STATISTICS[name].description
        assert f"{words[0].upper()}{words[1:]}." in found[f"csd.{name}"]["evaluation_description"]
    proportions = {name for name in names if found[f"csd.{name}"]["metric_unit"] == "proportion"}
    assert proportions == {"learned", "kept"}
    assert {own["metric_unit"] for own in found.values()} == {"proportion", "cosine"}


def test_the_record_says_how_to_make_the_result_again_and_when_it_was_made(record):
    commands = at(record, "evaluation_results.generation_config.generation_args.execution_command")
    assert set(commands) == {make_result(SUITE).command}
    assert record["retrieved_timestamp"] == "1767312000"
    assert record["evaluation_id"] == "clbench-tiny-styles/clbench/tiny-naive/1767312000"


def test_an_edited_summary_does_not_reach_a_record():
    result = make_result(SUITE)
    score = result.summary["csd"]["average_score"]
    assert score is not None
    result.summary["csd"]["average_score"] = score.model_copy(update={"mean": 0.99})
    with pytest.raises(ClbenchError, match="CLB016"):
        eee_record(result, SUITE)


def test_a_partial_result_is_refused():
    with pytest.raises(ClbenchError, match="CLB004"):
        eee_record(make_result(SUITE, quick=True), SUITE)
