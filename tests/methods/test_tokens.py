"""Methods that learn words: what textual inversion replaces, where it starts, and that it forgets nothing."""

from dataclasses import replace

import pytest
import torch
from following import context

from clbench.backbones.text_tokens import token_vectors
from clbench.plugins import get_method
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.state import State
from clbench.storage.store import Store
from clbench.suite import load_suite


@pytest.mark.parametrize("track", ["objects", "styles"])
@pytest.mark.parametrize("suite", ["mini-v2", "mini-v2-dev", "sdxl-v1"])
def test_the_word_replaces_the_identifier_and_starts_as_the_class(suite, track):
    method, own = get_method("textual_inversion"), load_suite(suite).track(track)
    for task in own.tasks:
        started: list[str] = []

        def vectors(text: str, started: list[str] = started) -> list[torch.Tensor]:
            started.append(text)
            return [torch.zeros(2, 3)] * 2

        ctx = replace(context(), prompt=own.train_prompt(task), task=task.name, token_vectors=vectors)
        [word] = method.new_tokens(ctx, State())
        identifier = task.fields["token" if track == "objects" else "style"]
        assert word == f"<{identifier.replace(' ', '-')}>"
        assert started == [task.fields["class"] if track == "objects" else "image"]


def test_a_task_learns_one_word_from_its_class_and_earlier_ones_keep_their_images(runtime):
    made = TaskSequence(runtime, get_method("textual_inversion"), "forward", 0)
    state, next_state = made.state(0), made.state(1)
    first, second = (f"<{task.fields['style'].replace(' ', '-')}>" for task in made.tasks[:2])
    assert list(state.tokens) == [first]
    assert sorted(next_state.tokens) == sorted([first, second])
    assert next_state.nbytes == 2 * state.nbytes == 2 * 4 * (64 + 64)
    start = token_vectors(runtime.backbone.pipeline, "image", {})
    rate, steps = 0.005, runtime.suite.training.steps
    for learned, [began] in zip(state.tokens[first], start, strict=True):
        assert 0 < (learned - began).abs().max() <= 2 * rate * steps  # AdamW's steps are about the rate
    rows = made.row(0), made.row(1)
    assert rows[0].cells[0] == rows[1].cells[0], "nothing is drawn again"
    assert made.deployed(1, next_state).prompts(runtime.track, made.tasks[1])[0] == f"{second} image of a boot"


def test_objects_keep_their_class_beside_the_word(runtime, tmp_path):
    own = TrackRuntime(runtime.suite, "objects", Store(tmp_path / "objects"), models=runtime.models)
    made = TaskSequence(own, get_method("textual_inversion"), "forward", 0)
    task = made.tasks[0]
    prompts = made.deployed(0, made.state(0)).prompts(own.track, task)
    assert prompts[0] == f"a <{task.fields['token']}> {task.fields['class']} in the snow"


def test_its_rate_is_its_own():
    rates = [get_method("textual_inversion", own).config.learning_rate for own in ({}, {"learning_rate": 0.1})]
    assert rates == [0.005, 0.1]
