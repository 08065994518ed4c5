"""A metric is one record: what a new one brings is scored, ranked and shown as the record says."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import make_result, tiny_suite
from PIL import Image

from clbench.leaderboard import make_boards
from clbench.leaderboard.board_tables import ranked_table
from clbench.metrics import METRICS, Metric
from clbench.protocol.evaluator import Evaluator
from clbench.results.analysis import analyze, rank_methods
from clbench.results.eee import eee_record
from clbench.results.validation import check_result
from clbench.suite import Track

DISTANCE = Metric(
    "distance",
    "Distance",
    "Mean distance of gray values, generated against reference.",
    encoder="gray",
    compute=lambda images, references: (images[:, None] - references[None]).abs().mean(dim=-1),
    higher_is_better=False,
    range=(0.0, 1.0),
    unit="gray level",
)


class Gray:
    """Embeds an image as its gray values."""

    def embed(self, images: list[Image.Image]) -> torch.Tensor:
        return torch.stack([torch.tensor(np.asarray(image.convert("L")) / 255.0).flatten() for image in images])


def test_an_evaluator_scores_a_new_metric_with_its_encoder_and_formula(monkeypatch):
    monkeypatch.setitem(METRICS, "distance", DISTANCE)
    suite = tiny_suite()
    track = suite.track("styles").model_copy(update={"metrics": ("distance",)})
    task = track.tasks[0]
    evaluator = Evaluator(suite, track, {"gray": Gray()}.__getitem__, {})  # type: ignore[arg-type]
    [image] = [Image.new("RGB", (suite.resolution, suite.resolution), "white")]
    scored = evaluator.score(task, [image, image])
    assert scored.keys() == {"distance"}
    reference = evaluator._compared(task, DISTANCE)
    assert scored["distance"] == pytest.approx(float((1 - reference).mean()))


def test_prompts_are_compared_each_with_its_own_images():
    images, prompts = torch.eye(4), torch.eye(4)[::2]
    assert METRICS["clip_t"].score(images, prompts) == pytest.approx((1 + 0 + 1 + 0) / 4)


def test_a_suite_may_name_a_new_metric_and_must_have_prompts_if_it_compares_with_them(monkeypatch):
    values: dict[str, Any] = tiny_suite().track("styles").model_dump()
    with pytest.raises(ValueError, match="no metric 'distance'"):
        Track.model_validate(values | {"metrics": ("distance",)})
    monkeypatch.setitem(METRICS, "distance", DISTANCE)
    assert Track.model_validate(values | {"metrics": ("distance",)}).metrics == ("distance",)
    monkeypatch.setitem(METRICS, "distance", replace(DISTANCE, against="prompts"))
    with pytest.raises(ValueError, match="distance needs one content prompt for each evaluation prompt"):
        Track.model_validate(values | {"metrics": ("distance",), "content_prompt_templates": ()})


@pytest.fixture
def lower_is_better(monkeypatch) -> SimpleNamespace:
    """Two results on a track whose first metric is better the lower it is, the better one named first."""
    monkeypatch.setitem(METRICS, "csd", replace(METRICS["csd"], higher_is_better=False))
    suite = tiny_suite()
    track = suite.track("styles")
    made = [make_result(suite, method=name, seed=1, level=level) for name, level in (("near", 0.05), ("far", 0.4))]
    turned = [result.model_copy(update={"controls": _controls_near_zero(result)}) for result in made]
    return SimpleNamespace(suite=suite, track=track, methods=[analyze(result, track) for result in turned])


def _controls_near_zero(result):
    """Real images at 0: far better than the base model, where lower is better."""
    real = {**result.controls.real_against_real, "csd": (0.0,) * 3}
    floor = {**result.controls.last_task_floor, "csd": ((0.0,) * 3,) * 3}
    return result.controls.model_copy(update={"real_against_real": real, "last_task_floor": floor})


def test_where_lower_is_better_methods_are_ranked_and_marked_from_the_lowest(lower_is_better):
    boards = make_boards(lower_is_better.methods, load=lambda name: lower_is_better.suite)
    [board] = [one for one in boards if one.methods]
    assert [method.variant for method in board.methods] == ["near", "far"]
    assert [standing.method for standing in board.ranking.standings] == ["near", "far"]
    assert board.ranking.pairs[0].better == "near"
    assert board.ranking.pairs[0].difference > 0, "more is kept"
    by_score = rank_methods(board.methods, "csd", "average_score")
    assert by_score.pairs[0].better == "near"
    assert by_score.pairs[0].difference < 0, "a difference keeps the metric's sign"
    table = ranked_table(board)
    places = {column.heading: place for place, column in enumerate(table.columns)}
    assert places.keys() >= {"CSD forgetting ↓", "CSD learned ↑"}
    for heading, best in (("CSD score ↓", "near"), ("DINO score ↑", "far")):
        assert [row[1].text for row in table.rows if row[places[heading]].mark == "best"] == [best]


def test_where_lower_is_better_forgetting_is_a_rise_and_learning_a_fall(lower_is_better):
    near, far = lower_is_better.methods
    for method in (near, far):
        R = method.matrices["csd"]
        last, right_after = R[:, -1], np.diagonal(R[:, 1:], axis1=1, axis2=2)
        assert method.statistics["csd"]["average_score"] == pytest.approx(last.mean(axis=1))
        lowest = np.nanmin(R[:, 1:], axis=1)
        assert method.statistics["csd"]["average_forgetting"] == pytest.approx((last - lowest)[:, :-1].mean(axis=1))
        transfer = (right_after - last)[:, :-1].mean(axis=1)
        assert method.statistics["csd"]["backward_transfer"] == pytest.approx(transfer)
        share = (R[:, 0] - right_after).sum(axis=1) / R[:, 0].sum(axis=1)
        assert method.statistics["csd"]["learned"] == pytest.approx(share)
    assert near.summary["csd"]["learned"].mean > 0 > far.summary["csd"]["learned"].mean


def test_a_score_outside_the_metrics_range_is_reported_with_that_range(monkeypatch):
    monkeypatch.setitem(METRICS, "csd", replace(METRICS["csd"], range=(0.0, 0.3)))
    suite = tiny_suite()
    messages = [finding.message for finding in check_result(make_result(suite), suite) if finding.code == "CLB009"]
    assert messages
    assert all("outside [0, 0.3]" in message for message in messages)


def test_a_record_for_other_registries_has_the_metrics_range_unit_and_direction(monkeypatch):
    turned = replace(METRICS["csd"], higher_is_better=False, range=(-1.0, 3.0), unit="gray level")
    monkeypatch.setitem(METRICS, "csd", turned)
    suite = tiny_suite()
    found = {
        own["evaluation_result_id"]: own["metric_config"]
        for own in eee_record(make_result(suite), suite)["evaluation_results"]
    }
    bounds = {name: (config["min_score"], config["max_score"]) for name, config in found.items()}
    assert bounds["csd.average_score"] == (-1.0, 3.0)
    assert bounds["csd.average_forgetting"] == (0.0, 4.0)
    assert bounds["csd.backward_transfer"] == (-4.0, 4.0)
    assert found["csd.average_score"]["metric_unit"] == "gray level"
    assert found["csd.average_score"]["lower_is_better"] is True
    assert found["csd.backward_transfer"]["lower_is_better"] is False
    assert found["dino.average_score"]["lower_is_better"] is False
