"""Leak, drift and the next task's score: measured with every run, 0 for a model that nothing changed."""

import numpy as np
import pytest
from watching import Events

from clbench.lora import Delta
from clbench.plugins import get_method
from clbench.protocol import probes
from clbench.protocol.task_sequence import Deployed, TaskSequence
from clbench.suite import Drift

LEAK = ("image of a boot", "image of a fish")


@pytest.fixture
def probing(runtime):
    """The track of three tasks, with all of it measured."""
    more = {
        "score_next_task": True,
        "leak_prompt_templates": LEAK,
        "drift": Drift(prompts=("a photo of a key", "a photo of a star", "a heart"), metrics=("clip_i", "dino")),
    }
    runtime.track = runtime.track.model_copy(update=more)
    return runtime


@pytest.fixture
def drawn(probing, monkeypatch) -> list[list[str]]:
    """The prompts of every drawing."""
    prompts_of_all, draw = [], probing.draw

    def noting(prompts: list[str], *rest):
        prompts_of_all.append(prompts)
        return draw(prompts, *rest)

    monkeypatch.setattr(probing, "draw", noting)
    return prompts_of_all


def test_a_run_has_what_its_track_measures(probing):
    run = TaskSequence(probing, get_method("naive"), "forward", 0).run()
    for metric in ("csd", "dino"):
        measured = np.isfinite(run.matrix(metric))
        assert measured.tolist() == [[True] * 3, [True, True, False], [True] * 3, [True] * 3]
    assert run.leak is not None
    assert run.leak.keys() == {"csd", "dino"}
    assert all(len(rows) == 2 and len(rows[0]) == len(rows[1]) == 3 for rows in run.leak.values())
    assert run.leak["csd"][0] != run.leak["csd"][1]
    assert run.drift is not None
    assert {metric: len(cosines) for metric, cosines in run.drift.items()} == {"clip_i": 3, "dino": 3}
    assert all(cosine < 1 - 1e-6 for cosine in run.drift["clip_i"])


def test_a_model_that_nothing_changes_neither_leaks_nor_drifts(probing):
    run = TaskSequence(probing, get_method("frozen_base"), "forward", 0).run()
    assert run.leak is not None
    assert all(before == after for before, after in run.leak.values())
    assert run.drift is not None
    assert [cosine for own in run.drift.values() for cosine in own] == pytest.approx([1.0] * 6, abs=1e-6)
    matrix = run.matrix("csd")
    assert (matrix[1, 1], matrix[2, 2]) == (matrix[0, 1], matrix[0, 2]), "the next task, before it is trained"


def test_tasks_with_the_same_prompts_share_the_images_of_the_leak(probing, drawn):
    found = probes.leak(probing, list(probing.track.tasks), Delta(), "none")
    assert drawn == [list(LEAK)]
    assert found is not None
    assert len(found["csd"]) == 3


def test_a_methods_words_are_in_the_prompts_of_the_leak(probing, drawn):
    probing.track = probing.track.model_copy(update={"leak_prompt_templates": ("a {object}",)})
    tasks = list(probing.track.tasks)
    words = {tasks[0].name: {"object": "blue thing"}}
    probes.leak(probing, tasks, Delta(), "none", Deployed(Delta(), words).leak_prompts)
    assert drawn[0] == ["a blue thing"]
    assert drawn[1] == [f"a {tasks[1].fields['object']}"]


def test_work_is_told_in_full(probing):
    seen = Events()
    probing.emit = seen.append
    probing.base_row()
    sequence = TaskSequence(probing, get_method("frozen_base"), "forward", 0)
    for position in range(3):
        sequence.row(position)
    made = sum(event["made"] for event in seen if event["event"] == "work")
    cells = 3 + (2 + 3 + 3)
    expected = cells * probing.cell_work + 2 * (probes.leak_passes(probing) + probes.drift_passes(probing))
    assert made == pytest.approx(expected + 3 * probing.train_work), "frozen_base trains nothing, and that is told"


def test_a_row_without_what_its_track_measures_is_made_again(probing):
    sequence = TaskSequence(probing, get_method("frozen_base"), "forward", 0)
    row, key = sequence.row(2), sequence.keys.row(2)
    probing.store.put_json(key, {**probing.store.get_json(key), "drift": None})
    with pytest.warns(UserWarning, match="is not what belongs there"):
        assert sequence.row(2).drift == row.drift
