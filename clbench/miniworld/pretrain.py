"""Train the mini world's models from scratch: `clbench pretrain-mini --output DIR`.

Six stages, each a loss function for the training loop in `fit`: the autoencoder; the pipeline's two text encoders,
trained together with a CLIP so that different names get different features; that CLIP alone, trained further; CSD,
which starts from its image tower; DINO; the U-Net. Every batch is new, from generators seeded by (seed, stage, step).
Checkpoints hold weights, optimizer and averaged weights as safetensors, so that training can resume.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, ViTModel

from clbench.encoders.csd import CSD
from clbench.errors import ClbenchError, did_you_mean
from clbench.miniworld import models
from clbench.miniworld.captions import captioned_pictures, style_pairs, view_pairs
from clbench.miniworld.fit import StepRng, fit
from clbench.miniworld.losses import TextModels, class_token, clip_loss, pair_loss, text_loss, unet_loss, vae_loss

PIXEL_MEAN, PIXEL_STD = 0.5, 0.5
PREPROCESS = {"mean": [PIXEL_MEAN] * 3, "std": [PIXEL_STD] * 3, "interpolation": "bicubic"}
"""Preprocessing of CLIP and CSD, in open_clip's terms."""
STAGES = ("vae", "text", "clip", "csd", "dino", "unet")
STEPS = {"vae": 2300, "text": 1600, "clip": 2000, "csd": 300, "dino": 500, "unet": 12_000}
BATCH = {"vae": 16, "text": 128, "clip": 128, "csd": 96, "dino": 96, "unet": 32}
SHIPPED = {
    "vae": "pipeline/vae/diffusion_pytorch_model.safetensors",
    "clip": "clip/open_clip_model.safetensors",
    "csd": "csd/model.safetensors",
    "dino": "dino/model.safetensors",
    "unet": "pipeline/unet/diffusion_pytorch_model.safetensors",
}
"""Stage -> its file under `weights/`; the text stage is missing, because only a part of its model is saved there."""


def latent_statistics(vae: AutoencoderKL) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of the latents of 2,048 random pictures."""
    step = StepRng.seeded("latent statistics")
    with torch.no_grad():
        latents = torch.cat(
            [vae.encode(step.pictures(captioned_pictures(256, step.python)[0])).latent_dist.mean for _ in range(8)]  # type: ignore[union-attr]
        )
    return latents.mean((0, 2, 3)).tolist(), latents.std((0, 2, 3)).tolist()


def save_clip(clip: nn.Module, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Save in open_clip's folder layout, which its `local-dir:` loader reads."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {**PREPROCESS, "resize_mode": "shortest"}
    config = {"model_cfg": models.clip_config(tokenizer), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1))
    tokenizer.save_pretrained(folder)
    save_half(clip.state_dict(), folder / "open_clip_model.safetensors")


def save_half(state: dict[str, Tensor], path: Path) -> None:
    """Save weights as float16, and integer tensors unchanged."""
    save_file({k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}, path)


def pretrain(
    output: Path,
    stages: tuple[str, ...] = STAGES,
    scale: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    start: Path | None = None,
) -> None:
    """Train the given stages in their order; each reads what earlier ones wrote to `output`.

    Args:
        output: folder for `weights/`, in the form that the suite loads, and `checkpoints/`.
        scale: multiplies every stage's number of steps.
        start: an earlier `weights/` to start from, with a new optimizer and schedule.

    Raises:
        ClbenchError: a stage is unknown or cannot start from saved weights.
    """
    for stage in stages:
        if stage not in STAGES:
            raise ClbenchError(f"there is no stage {stage!r}{did_you_mean(stage, list(STAGES))}")
        if start is not None and stage not in SHIPPED:
            raise ClbenchError(f"stage {stage!r} cannot start from weights; choose among {', '.join(SHIPPED)}")
    weights, checkpoints = output / "weights", output / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    if start is not None and not weights.exists():
        shutil.copytree(start, weights)
        shutil.copy(start / "training.json", checkpoints / "earlier.json")
    folder = weights / "pipeline" / "tokenizer"
    tokenizer: Any = CLIPTokenizer.from_pretrained(folder) if folder.exists() else models.tokenizer(folder)

    def run(
        stage: str, model: nn.Module, loss: Callable[[StepRng], Tensor], rate: float = 1e-3, ema: float = 0.998
    ) -> None:
        steps = max(1, round(STEPS[stage] * scale))
        if start is not None:
            model.load_state_dict(load_file(start / SHIPPED[stage]))
        settings = {"learning_rate": rate, "ema": ema}
        fit(stage, model.train(), loss, folder=checkpoints, seed=seed, steps=steps, device=device, **settings)
        model.cpu()

    for stage in stages:
        # Only initial weights come from the global generator; everything later has generators of its own.
        torch.manual_seed(random.Random(f"{seed}/{stage}").getrandbits(62))
        if stage == "vae":
            vae = models.vae()
            run(stage, vae, vae_loss(vae, BATCH[stage]))
            mean, std = latent_statistics(vae)
            vae.register_to_config(latents_mean=mean, latents_std=std, scaling_factor=1.0)
            vae.half().save_pretrained(weights / "pipeline" / "vae")
        elif stage == "text":
            texts = TextModels(tokenizer)
            run(stage, texts, text_loss(texts, tokenizer, BATCH[stage]))
            texts.text_encoder.half().save_pretrained(weights / "pipeline" / "text_encoder")
            texts.text_encoder_2.half().save_pretrained(weights / "pipeline" / "text_encoder_2")
            save_clip(texts.clip, tokenizer, checkpoints / "clip")
        elif stage == "clip":
            clip: Any = models.clip(tokenizer)
            if start is None:
                clip.load_state_dict(load_file(checkpoints / "clip" / "open_clip_model.safetensors"))
            run(stage, clip, clip_loss(clip, tokenizer, BATCH[stage]), rate=7e-4)
            save_clip(clip, tokenizer, weights / "clip")
        elif stage == "csd":
            csd = csd_from_clip((weights if start else checkpoints) / "clip")
            run(stage, csd, pair_loss(csd, style_pairs, BATCH[stage], 0.1), rate=5e-4)
            save_csd(csd, weights / "csd")
        elif stage == "dino":
            dino = models.dino()
            run(stage, dino, pair_loss(class_token(dino), view_pairs, BATCH[stage], 0.1))
            save_dino(dino, weights / "dino")
        elif stage == "unet":
            pipeline = assemble(weights / "pipeline", tokenizer).to(device)
            run(stage, pipeline.unet, unet_loss(pipeline, BATCH[stage]), ema=0.999)
            pipeline.to("cpu", torch.float16).save_pretrained(weights / "pipeline")


def assemble(folder: Path, tokenizer: CLIPTokenizer) -> StableDiffusionXLPipeline:
    """A pipeline with the trained parts in `folder` and an untrained U-Net, in fp32."""
    vae = AutoencoderKL.from_pretrained(folder / "vae").float().eval().requires_grad_(False)
    vae.register_to_config(_name_or_path="")  # else diffusers saves this machine's path
    first = CLIPTextModel.from_pretrained(folder / "text_encoder").float().eval().requires_grad_(False)
    second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2").float().eval().requires_grad_(False)
    return models.pipeline(vae, first, second, tokenizer, models.unet())


def csd_from_clip(folder: Path) -> CSD:
    """CSD as its authors initialise it: CLIP's image tower, with its projection as both heads."""
    weights = load_file(folder / "open_clip_model.safetensors")
    csd = CSD(models.VISION, models.WIDTH)
    tower = {name.removeprefix("visual."): value for name, value in weights.items() if name.startswith("visual.")}
    heads = tower.pop("proj")
    csd.backbone.load_state_dict(tower)
    csd.last_layer_style.data.copy_(heads)
    csd.last_layer_content.data.copy_(heads)
    return csd


def save_csd(csd: CSD, folder: Path) -> None:
    """Save in the form that `CSDEncoder` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"vision_cfg": models.VISION, "embed_dim": models.WIDTH, "preprocess_cfg": PREPROCESS}
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_half(csd.state_dict(), folder / "model.safetensors")


def save_dino(dino: ViTModel, folder: Path) -> None:
    """Save in transformers' layout, with the image processor's settings."""
    dino.half().save_pretrained(folder)
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 32, "width": 32},
        "resample": 3,
        "image_mean": [PIXEL_MEAN] * 3,
        "image_std": [PIXEL_STD] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=1))
