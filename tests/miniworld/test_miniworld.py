"""The bundled world: its pictures, its words, and its resumable training."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import clbench
from clbench.backbones.sdxl import Backbone
from clbench.data.images import load_images
from clbench.encoders import load_encoder
from clbench.errors import ClbenchError
from clbench.miniworld import models
from clbench.miniworld.captions import CaptionMix, captioned_pictures, name_captions, vocabulary
from clbench.miniworld.fit import StepRng, fit
from clbench.miniworld.losses import tokenize
from clbench.miniworld.pretrain import pretrain
from clbench.miniworld.render import PictureBatch, draw
from clbench.miniworld.world import (
    OBJECT_FACTORS,
    SCENES,
    SHAPES,
    STYLE_FACTORS,
    STYLE_NAMES,
    TOKENS,
    alter_look,
    count_differences,
    is_visible,
    named_styles,
    random_look,
    token_looks,
)
from clbench.suite import load_suite


def test_the_same_seed_draws_the_same_pictures():
    pictures, captions = captioned_pictures(64, random.Random(1))
    again, same = captioned_pictures(64, random.Random(1))
    assert captions == same
    first, second = (draw(p, torch.Generator().manual_seed(2)) for p in (pictures, again))
    assert torch.equal(first, second)


def test_pictures_are_finite_and_within_range():
    rng = random.Random(3)
    looks = [random_look(rng, STYLE_FACTORS) for _ in range(200)]
    shapes = [SHAPES[i % len(SHAPES)] for i in range(200)]
    scenes = [None if i % 2 else SCENES[i % len(SCENES)] for i in range(200)]
    images = draw(PictureBatch.from_names(shapes, scenes, looks), torch.Generator().manual_seed(0))
    assert images.shape == (200, 3, 32, 32)
    assert torch.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_drawn_inside_the_picture_and_can_be_seen(shape: str):
    look = {"fill_a": "red", "fill_b": "yellow", "pattern": "plain", "trim": "black", "line": "none"}
    image = draw(PictureBatch.from_names([shape], ["studio"], [look]), torch.Generator().manual_seed(0))[0]
    red = (image[0] > 0.7) & (image[1] < 0.4)
    assert 25 < red.sum() < 700
    border = torch.cat([red[0], red[-1], red[:, 0], red[:, -1]])
    assert border.float().mean() < 0.05


def test_there_are_forty_style_names_and_forty_identifiers():
    assert list(named_styles()) == list(STYLE_NAMES)
    assert list(token_looks()) == list(TOKENS)
    assert len({*STYLE_NAMES, *TOKENS}) == 80


def test_names_are_far_apart_and_visible():
    for looks in (named_styles(), token_looks()):
        assert all(is_visible(look) for look in looks.values())
        values = list(looks.values())
        assert min(count_differences(a, b) for i, a in enumerate(values) for b in values[:i]) >= 3


def test_an_altered_look_differs_in_the_share_asked_for():
    look = named_styles()["byzantine"]
    for share, count in ((0.0, 0), (0.3, 3), (0.6, 5), (1.0, 9)):
        changed = alter_look(look, share, STYLE_FACTORS, seed=1)
        assert count_differences(look, changed) == count
        assert is_visible(changed)
        assert alter_look(look, share, STYLE_FACTORS, seed=1) == changed


def test_every_word_of_the_world_is_one_token_and_captions_fit(tmp_path):
    tokenizer = models.tokenizer(tmp_path)
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 3, word
    _, captions = captioned_pictures(2000, random.Random(0), CaptionMix(detail=1.0))
    ids = tokenize(tokenizer, captions)
    assert ids.shape[1] == models.CONTEXT
    assert (ids.amax(dim=1) == len(tokenizer) - 1).all(), "every caption has its end token"
    truncated = [c for c in captions if len(tokenizer(c).input_ids) > models.CONTEXT]
    assert not truncated, truncated[:3]


def test_captions_of_names_differ_in_the_name_alone_and_say_where_it_ends(tmp_path):
    tokenizer = models.tokenizer(tmp_path)
    for seed in range(10):
        captions, last = name_captions(random.Random(seed))
        words = [tokenizer.convert_ids_to_tokens(row) for row in tokenize(tokenizer, captions).tolist()]
        names = [*STYLE_NAMES, *TOKENS]
        for name, row, position in zip(names, words, last, strict=True):
            assert row[position].startswith(name.split()[-1])
        for kind in (slice(len(STYLE_NAMES)), slice(len(STYLE_NAMES), None)):
            rest = {c.replace(name, "", 1) for c, name in zip(captions[kind], names[kind], strict=True)}
            assert len(rest) == 1


@pytest.mark.parametrize("suite", ["mini-v2", "mini-v2-dev"])
def test_the_suites_prompts_use_only_words_the_base_model_knows(suite: str):
    known = set(vocabulary())
    for track in load_suite(suite).tracks.values():
        for task in track.tasks:
            prompts = [track.train_prompt(task), *track.eval_prompts(task), *track.content_prompts(task)]
            assert set(" ".join(prompts).split()) <= known


def test_a_task_entry_always_draws_the_same_images():
    task = load_suite("mini-v2").track("objects").tasks[0]
    first, second = (load_images(task.train, 32, {}) for _ in range(2))
    assert [image.tobytes() for image in first] == [image.tobytes() for image in second]
    assert len({image.tobytes() for image in first}) == 5


def test_killed_pretraining_goes_on_with_the_same_weights(tmp_path):
    def train(folder, kill_at: int | None):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        seen = 0

        def loss(step: StepRng) -> torch.Tensor:
            nonlocal seen
            seen += 1
            if seen == kill_at:
                raise KeyboardInterrupt
            return model(step.normal(8, 4)).pow(2).mean()

        try:
            fit("toy", model, loss, folder=folder, steps=12, checkpoint_seconds=0.0)
        except KeyboardInterrupt:
            return None
        return model.state_dict()

    whole = train(tmp_path / "whole", None)
    assert train(tmp_path / "killed", 7) is None
    resumed = train(tmp_path / "killed", None)
    assert whole is not None
    assert resumed is not None
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_looks_of_objects_have_no_ground():
    assert set(OBJECT_FACTORS) < set(STYLE_FACTORS)
    assert not any(factor.startswith("ground") for factor in OBJECT_FACTORS)


@pytest.mark.long
def test_pretraining_writes_models_that_the_engine_loads(tmp_path):
    pretrain(tmp_path, scale=1e-9)
    weights = tmp_path / "weights"
    backbone = Backbone.load(weights / "pipeline", load_suite("mini-v2").training)
    assert len(backbone.layers) == 28, "the four projections of seven cross-attentions"
    images = load_images(load_suite("mini-v2").track("styles").tasks[0].train, 32, {})
    for name in ("clip", "csd", "dino"):
        rows = load_encoder(name, weights / name).embed(images)
        assert torch.allclose(rows.norm(dim=1), torch.ones(len(images)), atol=1e-5)


def test_pretraining_can_start_from_earlier_weights_but_not_the_text_stage(tmp_path):
    earlier = Path(clbench.__file__).parent / "miniworld" / "weights"
    pretrain(tmp_path, ("csd",), scale=1e-9, start=earlier)
    before, after = (load_file(folder / "csd/model.safetensors") for folder in (earlier, tmp_path / "weights"))
    change = max(float((after[name].float() - before[name].float()).abs().max()) for name in before)
    assert change < 1e-3, "one warm-up step from the bundled weights, not from random ones"
    assert (tmp_path / "weights/pipeline/unet").is_dir(), "the other models come along"
    with pytest.raises(ClbenchError, match="'text' cannot start from weights"):
        pretrain(tmp_path, ("text",), start=earlier)
