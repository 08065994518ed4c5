"""Learned tokens: what a vector does to a prompt, how it is trained, handed on and drawn with, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.backbones.text_tokens import encode_with_tokens, token_vectors, token_widths
from clbench.errors import WorkFailed
from clbench.method import Context, Method
from clbench.plugins import get_method
from clbench.protocol.describe import describe
from clbench.protocol.hook_checks import MAX_TOKENS
from clbench.protocol.keys import TrackKeys
from clbench.protocol.method_host import MethodHere, MethodProcess
from clbench.protocol.task_sequence import Deployed, TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.state import State, digest
from clbench.storage.store import Store, recipe_key
from clbench.suite import Task

WORD = "<look>"


class Learns(Method):
    """One word for the style of each task, beside an adapter."""

    def new_tokens(self, ctx, state):
        return {f"<{ctx.position}>": tuple(vectors.mean(dim=0) for vectors in ctx.token_vectors("image"))}

    def data(self, ctx, examples):
        return [replace(example, prompt=f"<{ctx.position}> image of tree") for example in examples]

    def prompts(self, state, prompts):
        return ["<0>" if prompt == "byzantine" and "<0>" in state.tokens else prompt for prompt in prompts]

    def end_task(self, ctx, state, adapter):
        return super().end_task(ctx, state, adapter).with_tokens(ctx.tokens)


def sequence(runtime: TrackRuntime, method: Method, folder: Any = None) -> TaskSequence:
    own = TrackRuntime(runtime.suite, "styles", Store(folder), models=runtime.models) if folder else runtime
    return TaskSequence(own, method, "forward", 0)


def vectors_of(backbone: Any, text: str) -> tuple[Tensor, ...]:
    """The vectors of a text's first token."""
    return tuple(rows[0] for rows in token_vectors(backbone.pipeline, text, {}))


# --- a word in a prompt ---


@pytest.mark.parametrize("prompt", ["{} image of a boot", "a photo of ({})", "boot {}, {}", " ".join(["{}"] * 90)])
def test_a_token_with_the_vector_of_a_word_is_encoded_as_that_word(backbone, prompt):
    tokens = {WORD: vectors_of(backbone, "byzantine")}
    learned, plain = (prompt.replace("{}", word) for word in (WORD, "byzantine"))
    expected = backbone.encode_prompts([plain])
    assert all(map(torch.equal, backbone.encode_prompts([learned], tokens), expected))
    others = {WORD: tuple(torch.zeros_like(vector) for vector in tokens[WORD])}
    assert not torch.equal(backbone.encode_prompts([learned], others)[0], expected[0]), "nothing was kept"


@pytest.mark.parametrize("number", [0, 1])
def test_each_text_encoder_gets_its_own_vector(backbone, number):
    own, width = vectors_of(backbone, "byzantine"), token_widths(backbone.pipeline)[0]
    changed = {WORD: tuple(torch.zeros_like(one) if place == number else one for place, one in enumerate(own))}
    (hidden, pooled), (other, other_pooled) = (
        backbone.encode_prompts([f"{WORD} image"], tokens) for tokens in ({WORD: own}, changed)
    )
    halves = [torch.equal(*pair) for pair in ((hidden[..., :width], other[..., :width]), (hidden, other))]
    assert halves == ([False, False] if number == 0 else [True, False])
    assert torch.equal(pooled, other_pooled) == (number == 0)  # the second encoder's


def test_other_prompts_are_the_pipelines_own_and_the_models_stay_as_they_are(backbone):
    encoders = backbone.pipeline.text_encoder, backbone.pipeline.text_encoder_2
    before = [digest(encoder.state_dict()) for encoder in encoders]
    size = len(backbone.pipeline.tokenizer)
    tokens = {WORD: vectors_of(backbone, "byzantine")}
    hidden, pooled = backbone.encode_prompts(["a boot", f"a {WORD} boot"], tokens)
    own = backbone.pipeline.encode_prompt("a boot", do_classifier_free_guidance=False)
    assert torch.equal(hidden[0], own[0][0])
    assert torch.equal(pooled[0], own[2][0])
    assert [digest(encoder.state_dict()) for encoder in encoders] == before
    assert len(backbone.pipeline.tokenizer) == size
    assert not any(encoder.get_input_embeddings()._forward_hooks for encoder in encoders)


@pytest.mark.parametrize("prompt", ["a boot", "", "Byzantine,  image of A boot!", "fish " * 100])
def test_a_prompt_without_a_token_has_the_ids_that_the_tokenizer_gives(backbone, prompt):
    hidden, pooled = backbone.encode_prompts([prompt])
    own_hidden, own_pooled = encode_with_tokens(backbone.pipeline, prompt, {WORD: vectors_of(backbone, "boot")})
    assert torch.equal(own_hidden, hidden[0])
    assert torch.equal(own_pooled, pooled[0])


def test_gradients_reach_the_vectors_of_the_words_that_are_used_and_nothing_else(backbone):
    used, unused = (
        tuple(vector.clone().requires_grad_(True) for vector in vectors_of(backbone, "boot")) for _ in range(2)
    )
    hidden, pooled = backbone.encode_prompts([f"{WORD} image"], {WORD: used, "<other>": unused})
    (hidden.sum() + pooled.square().sum()).backward()
    assert all(vector.grad is not None and bool(vector.grad.any()) for vector in used)
    assert all(vector.grad is None for vector in unused)
    for encoder in (backbone.pipeline.text_encoder, backbone.pipeline.text_encoder_2):
        assert all(parameter.grad is None for parameter in encoder.parameters())


# --- a training ---


def test_vectors_are_trained_beside_the_adapter_handed_on_and_counted(runtime):
    seen: dict[str, Any] = {}

    class Watches(Learns):
        def optimizer(self, ctx, parameters):
            seen["parameters"], seen["start"] = len(parameters), [one.detach().clone() for one in ctx.tokens["<0>"]]
            return super().optimizer(ctx, parameters)

        def on_gradients(self, ctx):
            assert all(vector.grad is not None and bool(vector.grad.any()) for vector in ctx.tokens["<0>"])
            [batch] = ctx.batches(1)
            seen.setdefault("predicted", []).append(ctx.predict(batch))

        def end_task(self, ctx, state, adapter):
            assert not any(vector.requires_grad for vector in ctx.tokens["<0>"])
            assert torch.equal(ctx.token_vectors("<0>")[0][0], ctx.tokens["<0>"][0])
            return super().end_task(ctx, state, adapter)

    made = sequence(runtime, Watches())
    state = made.state(0)
    assert seen["parameters"] == 2 * len(runtime.models.shapes) + 2
    assert all(not torch.equal(*pair) for pair in zip(seen["start"], state.tokens["<0>"], strict=True))
    widths = runtime.models.token_widths
    assert state.nbytes == State(state.merged).nbytes + 4 * sum(widths)
    assert widths == token_widths(runtime.backbone.pipeline)
    assert State.load(runtime.store.path(made.keys.state(0), ".safetensors")).tokens.keys() == {"<0>"}


def test_known_words_are_frozen_and_are_used_by_predictions_and_samples(runtime):
    class Asks(Learns):
        def end_task(self, ctx, state, adapter):
            if ctx.position == 1:
                [batch] = ctx.batches(1)
                size = len(batch.latents)
                self.predicted = [
                    ctx.predict(batch, prompts=[f"{word} image"] * size) for word in ("<0>", "<1>", "<2>")
                ]
                self.drawn = [ctx.sample(["<0> image"], 1, weights) for weights in ({}, {})]
            return super().end_task(ctx, state, adapter)

        def loss(self, ctx, batch):
            assert set(ctx.tokens) == {f"<{ctx.position}>"}
            return 0.0

    method = Asks()
    made = sequence(runtime, method)
    first, second = made.state(0).tokens, made.state(1).tokens
    assert list(second) == ["<0>", "<1>"]
    assert all(map(torch.equal, first["<0>"], second["<0>"]))
    assert not torch.equal(method.predicted[0], method.predicted[1])
    assert not torch.equal(method.predicted[0], method.predicted[2])


def test_a_known_word_can_be_trained_again(runtime):
    class Again(Learns):
        def new_tokens(self, ctx, state):
            return {WORD: state.tokens.get(WORD) or tuple(rows[0] for rows in ctx.token_vectors("image"))}

        def data(self, ctx, examples):
            return [replace(example, prompt=f"{WORD} image of tree") for example in examples]

        def loss(self, ctx, batch):
            if ctx.step == 0 and ctx.position == 1:
                self.start = [vector.detach().clone() for vector in ctx.tokens[WORD]]
            return 0.0

    method = Again()
    made = sequence(runtime, method)
    before, after = made.state(0).tokens[WORD], made.state(1).tokens[WORD]
    assert all(map(torch.equal, method.start, before))
    assert not torch.equal(before[0], after[0])


@pytest.mark.long
def test_two_runs_have_equal_bits_also_if_one_was_killed(runtime, tmp_path):
    def run(folder: str, kill: bool = False) -> list[str]:
        digests: list[str] = []
        for position in range(2):
            made = sequence(runtime, Learns(), tmp_path / folder)
            if kill and position == 1:
                stop_after_first_step(made, position)
                made = sequence(runtime, Learns(), tmp_path / folder)
            digests.append(digest(made.state(position).tensors()))
            digests += made.row(position).cells
        return digests

    assert run("one") == run("other") == run("killed", kill=True)


def stop_after_first_step(made: TaskSequence, position: int) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "loss":
            raise KeyboardInterrupt

    made.runtime.emit = stop
    with pytest.raises(KeyboardInterrupt):
        made.state(position)
    made.runtime.emit = lambda event: None


# --- the evaluation ---


def test_images_are_drawn_with_the_tokens(runtime):
    task, prompts = runtime.track.tasks[0], [f"{WORD} image of a boot", f"{WORD} image of a fish"]
    weights = Method().weights(State())
    drawn = {}
    for word in ("byzantine", "winter"):
        tokens = {WORD: vectors_of(runtime.backbone, word)}
        drawn[word] = runtime.cell(task, prompts, weights, digest(weights), tokens)
        plain = [prompt.replace(WORD, word) for prompt in prompts]
        assert runtime.cell(task, plain, weights, digest(weights))[1] == drawn[word][1]
    assert drawn["byzantine"] != drawn["winter"]


def test_a_cells_key_has_the_tokens_that_its_prompts_contain_and_no_others(runtime):
    task, weights = runtime.track.tasks[0], Method().weights(State())
    prompts, word = runtime.track.eval_prompts(task), vectors_of(runtime.backbone, "boot")
    keys = [runtime.cell(task, prompts, weights, "w", tokens)[0] for tokens in (None, {}, {WORD: word})]
    assert set(keys) == {runtime.keys.cell(task.name, prompts, "w")}
    recipe = {"suite": "s", "task": "boot", "prompts": ["a boot"], "weights": "w"}
    assert TrackKeys({"suite": "s"}).cell("boot", ["a boot"], "w") == recipe_key("cell", recipe)
    assert TrackKeys({"suite": "s"}).cell("boot", ["a boot"], "w", "t") == recipe_key("cell", {**recipe, "tokens": "t"})


def test_a_word_stands_for_its_token_only_where_the_method_put_it(runtime):
    vector = (torch.zeros(1), torch.zeros(1))
    first, second = runtime.track.tasks[:2]
    words = {first.name: {"style": "<a> <b>"}, second.name: {"style": second.fields["style"]}}
    deployed = Deployed(Method().weights(State()), words, {"<a>": vector, "<b>": vector, "<c>": vector})
    later = Task.model_validate({**runtime.track.tasks[2].model_dump(), "fields": {"style": "<c>", "object": "tree"}})
    assert [set(deployed.tokens_of(task)) for task in (first, second, later)] == [{"<a>", "<b>"}, set(), set()]


def test_what_the_model_leaks_is_drawn_with_the_tokens_of_the_task(runtime, monkeypatch):
    templates = ("{style} image of a heart",)
    runtime.track = runtime.track.model_copy(update={"leak_prompt_templates": templates})
    drawn, draw = {}, runtime.draw

    def noting(prompts, weights, weights_digest, what, tokens=None):
        drawn[tuple(prompts)] = set(tokens or {})
        return draw(prompts, weights, weights_digest, what, tokens)

    monkeypatch.setattr(runtime, "draw", noting)
    made = sequence(runtime, Learns())
    made.row(2)
    assert drawn["<0> image of a heart",] == {"<0>"}
    assert all(not tokens for prompts, tokens in drawn.items() if "<0>" not in prompts[0])


# --- what is refused ---


def bad_tokens(ctx: Context) -> Iterator[tuple[Any, str]]:
    good = tuple(rows[0] for rows in ctx.token_vectors("boot"))
    yield [WORD], "returned list, expected a mapping of words to vectors"
    yield {f"<{number}>": good for number in range(MAX_TOKENS + 1)}, "returned 65 tokens, and there may be 64"
    for word in ("boot", "", "<>", "<a b>", "<|endoftext|>", f"<{'a' * 63}>", "<a>\n", 3):
        yield {word: good}, "is no word of a token, expected one such as '<style-3>'"
    yield {WORD: good[0]}, "token '<look>' is not a tuple of 2 vectors"
    yield {WORD: good[:1]}, "token '<look>' is not a tuple of 2 vectors"
    yield {WORD: (good[0], [0.0])}, "vector 2 of token '<look>' is list, expected a tensor"
    yield {WORD: (good[0], good[1][:-1])}, r"vector 2 of token '<look>' has shape \(63,\), expected \(64,\)"
    yield {WORD: (good[0].double(), good[1])}, "vector 1 of token '<look>' is float64, expected float32"
    yield {WORD: (good[0] / 0, good[1])}, "vector 1 of token '<look>' holds NaN or infinity"
    yield {WORD: good}, "'<look>' is in no training prompt; let data.. or prompts.. put it there"


def test_malformed_tokens_are_refused_in_one_sentence_that_names_the_hook(runtime):
    class Bad(Method):
        number = 0

        def new_tokens(self, ctx, state):
            return list(bad_tokens(ctx))[self.number][0]

    ctx: Any = type("Ctx", (), {"token_vectors": lambda text: token_vectors(runtime.backbone.pipeline, text, {})})
    for number, (_, says) in enumerate(bad_tokens(ctx)):
        method = Bad()
        method.number = number
        with pytest.raises(WorkFailed, match=rf"new_tokens\(\) at task 'byzantine'.*{says}") as caught:
            sequence(runtime, method).state(0)
        assert "\n" not in str(caught.value).strip()


class Hands(Learns):
    """Hands back tokens for evaluation that it has not learned."""

    handed: Any = None

    def tokens(self, state):
        return self.handed


@pytest.mark.parametrize(
    ("handed", "says"),
    [
        ({WORD: (torch.zeros(63), torch.zeros(64))}, r"vector 1 of token '<look>' has shape \(63,\), expected \(64,\)"),
        ({"image": (torch.zeros(64), torch.zeros(64))}, "'image' is no word of a token"),
        (None, "returned NoneType, expected a mapping"),
    ],
)
def test_tokens_that_are_handed_back_for_the_evaluation_are_checked(runtime, handed, says):
    method = Hands()
    method.handed = handed
    with pytest.raises(WorkFailed, match=rf"tokens\(\) (at|after) task 'byzantine'.*{says}"):
        sequence(runtime, method).deployed(0, State())


# --- a process of its own ---

PLUGIN = """
from clbench import Method


class Mine(Method):
    name = "mine"

    def begin_task(self, ctx, state):
        return None

    def new_tokens(self, ctx, state):
        return {f"<{ctx.position}>": tuple(vectors[0] for vectors in ctx.token_vectors("image"))}

    def prompts(self, state, prompts):
        assert not any("fish" in prompt for prompt in prompts)
        found = ["<0>" if prompt == "byzantine" else prompt for prompt in prompts]
        return [prompt.replace("image", f"<{len(state.tokens)}> image") for prompt in found]

    def end_task(self, ctx, state, adapter):
        assert adapter is None
        return state.with_tokens(ctx.tokens)
"""


def test_a_plugin_in_a_process_of_its_own_gives_what_it_gives_in_this_one(runtime, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    hosts = MethodProcess(describe("mine", {}, [path]), {}), MethodHere(get_method("mine", {}, [path]))
    found, states = [], []
    for number, host in enumerate(hosts):
        own = TrackRuntime(runtime.suite, "styles", Store(tmp_path / str(number)), models=runtime.models)
        made = TaskSequence(own, host, "forward", 0)
        states = [made.state(position) for position in range(2)]
        deployed = made.deployed(1, states[1])
        assert deployed.prompts(own.track, made.tasks[0]) == ["<0> image of a boot", "<0> image of a fish"]
        assert set(deployed.tokens_of(made.tasks[0])) == {"<0>"}
        assert not deployed.weights
        found.append(([digest(state.tensors()) for state in states], made.row(1).cells, made.row(1).scores))
    assert found[0] == found[1]
    assert states[1].tensors().keys() == {f"extra/token/<{word}>/{number}" for word in (0, 1) for number in (0, 1)}
