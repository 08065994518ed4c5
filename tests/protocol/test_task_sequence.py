"""One run through a sequence of tasks: what is shared with other runs, and what is waited for."""

import threading

import pytest
from paths import FILES
from watching import Events, watch

from clbench.plugins import get_method
from clbench.protocol.task_sequence import TaskSequence
from clbench.storage.store import Store


def test_a_state_that_another_makes_again_is_waited_for(runtime, monkeypatch):
    sequence, store = TaskSequence(runtime, get_method("merge_init"), "forward", 0), runtime.store
    sequence.state(0)
    path = store.path(sequence.keys.state(0), ".safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    held, asked = threading.Event(), threading.Event()

    def make_it_again() -> None:
        with Store(store.root).lock(sequence.keys.state(0)):
            held.set()
            asked.wait()
            path.write_bytes(whole)

    other, seen = threading.Thread(target=make_it_again), Events()
    runtime.emit = seen.append
    other.start()
    held.wait()
    watch(monkeypatch, store, "try_lock", lambda count: asked.set())
    sequence.forget()
    with pytest.warns(UserWarning, match="does not fit its checksum"):
        sequence.state(0)
    other.join()
    assert not seen.trainings


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [],
        {"scores": {}},
        {"cells": []},
        {"size": {"total": 1}},
        {"train_seconds": -1.0},
        {"train_seconds": "long"},
        {"scores": {"csd": [0.1], "dino": ["high"], "clip_t": [0.1]}},
    ],
)
def test_a_row_that_fits_its_checksum_but_is_none_is_made_again(runtime, wrong):
    sequence = TaskSequence(runtime, get_method("frozen_base"), "forward", 0)
    row, key = sequence.row(0), sequence.keys.row(0)
    stored = runtime.store.get_json(key)
    runtime.store.put_json(key, {**stored, **wrong} if wrong else wrong)
    with pytest.warns(UserWarning, match="fits its checksum, but is not what belongs there"):
        again = sequence.row(0)
    assert again.scores == row.scores


@pytest.mark.parametrize("wrong", [[], {"csd": 0.5}, {"csd": "high", "dino": 0.5, "clip_t": 0.5}])
def test_scores_that_fit_their_checksum_but_are_none_are_made_again(runtime, wrong):
    base, store = runtime.base_row(), runtime.store
    for key in (runtime.keys.base, *(one["cell"] for one in base.values())):
        store.put_json(key, wrong)
    with pytest.warns(UserWarning, match="fits its checksum, but is not what belongs there"):
        again = runtime.base_row()
    assert again == base


@pytest.fixture
def seen(runtime):
    """What happens on the track."""
    seen = Events()
    runtime.emit = seen.append
    return seen


def test_methods_share_the_first_training_the_base_row_and_equal_cells(runtime, seen):
    names = ("naive", "merge_init", "merge_ortho", "magmax")
    naive, *others = (TaskSequence(runtime, get_method(name), "forward", 0) for name in names)
    naive.run()
    assert (seen.trainings, len(seen.drawn)) == (3, 3 + 1 + 2 + 3)
    for sequence in others:
        runtime.base_row()
        assert sequence.row(0).scores == naive.row(0).scores
    assert (seen.trainings, len(seen.drawn)) == (3, 9)
    others[0].row(1)
    assert (seen.trainings, len(seen.drawn)) == (4, 11)


def test_orders_share_what_they_have_in_common(runtime, seen):
    runtime.track = runtime.track.model_copy(update={"orders": {"a": (0, 1, 2), "b": (0, 2, 1)}})
    for order in ("a", "b"):
        TaskSequence(runtime, get_method("merge_init"), order, 0).state(2)
    assert seen.trainings == 5


def test_training_that_a_method_shapes_is_its_own(runtime, seen):
    for name, settings in (("naive", {}), ("ewc", {}), ("ewc", {"strength": 1.0}), ("merge_init", {})):
        TaskSequence(runtime, get_method(name, settings, FILES), "forward", 0).state(0)
    assert seen.trainings == 3
