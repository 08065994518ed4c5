"""Measure the mini world's models on pictures that were not used in training, and write their model card."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionXLPipeline
from tabulate import tabulate
from torch import Tensor

from clbench.backbones.sdxl import Backbone
from clbench.encoders import Encoder, load_encoder, mean_pairwise_cosine
from clbench.miniworld import models
from clbench.miniworld.captions import CaptionMix, captioned_pictures
from clbench.miniworld.fit import StepRng, fit
from clbench.miniworld.losses import name_features, pairwise_cosines
from clbench.miniworld.pretrain import BATCH, STAGES
from clbench.miniworld.render import PictureBatch, draw
from clbench.miniworld.world import (
    OBJECT_FACTORS,
    SCENES,
    SHAPES,
    STYLE_FACTORS,
    named_styles,
    random_look,
    token_looks,
)
from clbench.results.environment import describe
from clbench.suite import load_suite
from clbench.utils.files import folder_sha256, write_text
from clbench.utils.images import to_pil

CLASSIFIER_STEPS, CLASSIFIER_BATCH = 900, 64


def write_model_card(output: Path) -> Path:
    """Measure `output/weights` and write its model card beside it."""
    weights, checkpoints = output / "weights", output / "checkpoints"
    figures = measure(weights, train_classifier(checkpoints))
    described = describe("cpu")
    earlier = checkpoints / "earlier.json"  # the stages of the weights from which these started
    rows = json.loads(earlier.read_text()) if earlier.exists() else []
    for stage in STAGES:
        log = checkpoints / f"{stage}.log.jsonl"
        if log.exists():
            last = json.loads(log.read_text().splitlines()[-1])
            minutes, loss = round(last["seconds"] / 60, 1), float(f"{last['loss']:.4g}")
            rows.append(
                {"stage": stage, "steps": last["step"], "batch": BATCH[stage], "minutes": minutes, "last loss": loss}
                | {"on": f"{described.processor}, {described.threads} threads, torch {described.packages['torch']}"}
            )
    write_text(weights / "training.json", "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    sums = [(path.name, folder_sha256(path)) for path in sorted(weights.iterdir()) if path.is_dir()]
    text = _CARD.format(
        stages=tabulate(rows, "keys", tablefmt="github", floatfmt=".4g"),
        figures=tabulate(figures.items(), ["measured", "value"], tablefmt="github", floatfmt=".3f"),
        sums=tabulate(sums, ["folder", "sha256 of its files"], tablefmt="github"),
    )
    path = weights / "README.md"
    write_text(path, text)
    return path


_CARD = """# Model card: the mini world's models

Written by `clbench pretrain-mini`. All are trained from nothing on pictures that `clbench.miniworld` draws; no outside
data. They exist to make a benchmark small: they know 20 shapes, 10 scenes, 40 style names and 40 identifier tokens.

- `pipeline`: Stable Diffusion XL's classes (two CLIP text encoders, U-Net with `text_time`, autoencoder), 32 x 32 px.
  Its text encoders were trained to pull different names' features apart (`separation_loss`), and then frozen.
- `clip`: an open_clip model; its image tower also taught the pipeline's text encoders.
- `csd`: CSD's architecture on that tower, trained to tell styles apart whatever the object.
- `dino`: a ViT in transformers' format. Unlike the DINO it stands for, it is not self-supervised: it was shown pairs of
  pictures of one instance, or of one style (half of these of different shapes).

## Training

AdamW, cosine schedule, averaged weights; every step draws new pictures. Stages that do not need each other ran side by
side. A stage named twice was trained again from its shipped weights (`--start`), with a fresh optimizer. Minutes are
wall-clock, beside other work.

{stages}

## Measured on held-out draws

The classifier is trained for this and not shipped. 1-NN: share of images whose nearest other image has the same look,
50 unseen looks of 8 images. Cosines between names: of the features of two different names in captions that are
otherwise alike, mean over all pairs and ten captions; at the name's last token, at the first end token, at the last of
the end tokens that fill the context, and of the pooled embedding.

{figures}

## Checksums

{sums}
"""


def train_classifier(folder: Path) -> torch.nn.Module:
    """A shape classifier for generated images, trained with checkpoints in `folder` (one to five minutes)."""
    model = models.ShapeClassifier(len(SHAPES))

    def loss(step: StepRng) -> Tensor:
        pictures, _ = captioned_pictures(CLASSIFIER_BATCH, step.python, CaptionMix(named=0.4, marked=0.15, photos=0.3))
        return F.cross_entropy(model(step.pictures(pictures)), pictures.shape)

    return fit("classifier", model, loss, folder=folder, steps=CLASSIFIER_STEPS)


@torch.no_grad()
def measure(weights: Path, classifier: torch.nn.Module) -> dict[str, float]:
    """All figures of the model card, from the saved weights."""
    suite = load_suite("mini-v2")
    backbone = Backbone.load(weights / "pipeline", suite.training)
    backbone.use_adapter(None)
    csd, dino, clip = (load_encoder(name, weights / name) for name in ("csd", "dino", "clip"))
    generator = torch.Generator().manual_seed(20_000)
    rng = random.Random("held out")

    def generate(prompts: Sequence[str]) -> Tensor:
        size = backbone.unet.config.sample_size
        batches = [list(prompts[start : start + 40]) for start in range(0, len(prompts), 40)]
        images = []
        for batch in batches:
            noise = torch.randn(len(batch), 4, size, size, generator=generator)
            images.append(backbone.generate(batch, noise, suite.sampling.steps, suite.sampling.guidance_scale))
        return torch.cat(images)

    def shape_accuracy(images: Tensor, shapes: Sequence[str]) -> float:
        predicted = classifier(images * 2 - 1).argmax(dim=1)
        return (predicted == torch.tensor([SHAPES.index(shape) for shape in shapes])).float().mean().item()

    figures = name_cosines(backbone.pipeline)
    shapes = list(SHAPES) * 10
    scenes = [rng.choice(SCENES) for _ in shapes]
    photos = PictureBatch.from_names(shapes, scenes, [random_look(rng, OBJECT_FACTORS) for _ in shapes])
    styles = PictureBatch.from_names(shapes, [None] * len(shapes), [random_look(rng, STYLE_FACTORS) for _ in shapes])
    names = [(style, shape) for style in named_styles() for shape in rng.sample(SHAPES, 10)]
    named = PictureBatch.from_names(
        [s for _, s in names], [None] * len(names), [named_styles()[style] for style, _ in names]
    )
    real_photos, real_styles, real_named = (draw(pictures, generator) for pictures in (photos, styles, named))

    for what, images in (("held-out styles", real_styles), ("photos", real_photos)):
        posterior = backbone.pipeline.vae.encode(images * 2 - 1).latent_dist
        decoded = (backbone.pipeline.vae.decode(posterior.mean).sample / 2 + 0.5).clamp(0, 1)
        error = (decoded - images).pow(2).mean(dim=(1, 2, 3))
        figures[f"autoencoder PSNR, {what} (dB)"] = (-10 * error.log10()).mean().item()

    figures["classifier, real photos"] = shape_accuracy(real_photos, shapes)
    figures["classifier, real named styles"] = shape_accuracy(real_named, [shape for _, shape in names])
    drawn = generate([f"a photo of a {shape}" for shape in shapes])
    figures["shapes in generated photos"] = shape_accuracy(drawn, shapes)
    drawn = generate([f"{style} image of a {shape}" for style, shape in names])
    figures["shapes in style prompts"] = shape_accuracy(drawn, [shape for _, shape in names])

    references = [
        csd.embed(to_pil(draw(PictureBatch.from_names(rng.choices(SHAPES, k=10), [None] * 10, [look] * 10), generator)))
        for look in named_styles().values()
    ]

    def csd_score(images: Tensor) -> float:
        pairs = zip(csd.embed(to_pil(images)).split(10), references, strict=True)
        return sum(mean_pairwise_cosine(*pair) for pair in pairs) / len(references)

    generated_csd, real_csd = csd_score(drawn), csd_score(real_named)
    figures["CSD, named styles"] = generated_csd
    figures["CSD, real against real"] = real_csd
    figures["CSD, share of real against real"] = generated_csd / real_csd

    marked = [(token, rng.choice(SHAPES), rng.choice(SCENES)) for token in token_looks() for _ in range(10)]
    drawn = generate([f"a {token} {shape} in the {scene}" for token, shape, scene in marked])
    looks = [token_looks()[token] for token, _, _ in marked]
    pictures = PictureBatch.from_names([shape for _, shape, _ in marked], [scene for _, _, scene in marked], looks)
    real, other_real = draw(pictures, generator), draw(pictures, generator)
    figures["shapes in identifier prompts"] = shape_accuracy(drawn, [shape for _, shape, _ in marked])
    figures["DINO, identifier prompts"] = mean_paired_cosine(dino, drawn, real)
    figures["DINO, identifiers, real against real"] = mean_paired_cosine(dino, other_real, real)

    looks = [random_look(rng, STYLE_FACTORS) for _ in range(50)]
    accuracy = nearest_neighbour_accuracy(csd, looks, lambda: (rng.choice(SHAPES), None), generator)
    figures["1-NN, held-out styles (CSD)"] = accuracy
    instances = [(rng.choice(SHAPES), random_look(rng, OBJECT_FACTORS)) for _ in range(50)]
    shapes, looks = ([*part] for part in zip(*instances, strict=True))
    for name, encoder in (("DINO", dino), ("CLIP", clip)):
        accuracy = nearest_neighbour_accuracy(encoder, looks, lambda: (None, rng.choice(SCENES)), generator, shapes)
        figures[f"1-NN, held-out instances ({name})"] = accuracy
    return figures


def name_cosines(pipeline: StableDiffusionXLPipeline) -> dict[str, float]:
    """Mean cosine between different names' features over ten captions, by kind of name and place."""
    tokenizer: Any = pipeline.tokenizer
    kinds = {"styles": slice(len(named_styles())), "identifiers": slice(len(named_styles()), None)}
    found: dict[str, list[float]] = {}
    for number in range(10):
        for place, rows in name_features(pipeline, tokenizer, StepRng.seeded("names apart", number)).items():
            for kind, which in kinds.items():
                key = f"cosine between names, {kind}: {place}"
                found.setdefault(key, []).append(pairwise_cosines(rows[which]).mean().item())
    return {key: sum(values) / len(values) for key, values in found.items()}


def mean_paired_cosine(encoder: Encoder, a: Tensor, b: Tensor) -> float:
    """Mean cosine of each image with its partner."""
    return (encoder.embed(to_pil(a)) * encoder.embed(to_pil(b))).sum(dim=1).mean().item()


def nearest_neighbour_accuracy(
    encoder: Encoder, looks: list[dict], vary: Callable, generator: torch.Generator, shapes: list[str] | None = None
) -> float:
    """Share of images, 8 of each look, whose nearest other image has the same look.

    Args:
        vary: draws an image's shape and scene.
        shapes: one shape for each look, instead of those that `vary` draws.
    """
    labels = [label for label in range(len(looks)) for _ in range(8)]
    drawn_shapes, scenes = zip(*(vary() for _ in labels), strict=True)
    own_shapes = [shapes[label] for label in labels] if shapes else drawn_shapes
    pictures = PictureBatch.from_names(own_shapes, scenes, [looks[label] for label in labels])
    rows = encoder.embed(to_pil(draw(pictures, generator)))
    similarity = rows @ rows.T
    similarity.fill_diagonal_(-2)
    expected = torch.tensor(labels)
    return (expected[similarity.argmax(dim=1)] == expected).float().mean().item()
