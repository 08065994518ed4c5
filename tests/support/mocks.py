"""A suite of three tasks on untrained models: the whole path in seconds."""

from __future__ import annotations

from pathlib import Path

import torch

from clbench.encoders.csd import CSD
from clbench.miniworld import models
from clbench.miniworld.pretrain import save_clip, save_csd, save_dino
from clbench.runner.mini_suites import SOURCES, object_task, style_task
from clbench.suite import Suite, Weights
from clbench.utils.files import folder_sha256


def write_models(folder: Path) -> dict[str, Weights]:
    """Random models in their real file formats: {"pipeline": ..., "clip": ..., "dino": ..., "csd": ...}."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = models.tokenizer(folder / "pipeline" / "tokenizer")
        first, second = models.text_encoders(tokenizer)
        vae = models.vae()
        vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4, scaling_factor=1.0)
        models.pipeline(vae, first, second, tokenizer, models.unet()).save_pretrained(folder / "pipeline")
        save_clip(models.clip(tokenizer), tokenizer, folder / "clip")
        csd = CSD(models.VISION, models.WIDTH)
        torch.nn.init.normal_(csd.last_layer_style)
        save_csd(csd, folder / "csd")
        save_dino(models.dino(), folder / "dino")
    names = ("pipeline", "clip", "dino", "csd")
    return {name: Weights(source=str(folder / name), sha256=folder_sha256(folder / name)) for name in names}


def tiny_suite(weights: dict[str, Weights], tasks: int = 3, steps: int = 2) -> Suite:
    """mini-v2's shape with few tasks, two orders, two seeds and hardly any training."""
    orders = {"forward": list(range(tasks)), "backward": list(range(tasks))[::-1]}
    source = SOURCES["mini-v2"]
    track = {"orders": orders, "train_prompt_template": "a photo of {token} {class}"}
    return Suite.model_validate(
        {
            "name": "mock",
            "version": "1",
            "version_reason": "for tests",
            "resolution": 32,
            "backbone": weights["pipeline"].model_dump(),
            "encoders": {name: weights[name].model_dump() for name in ("clip", "dino", "csd")},
            "training": {
                "rank": 4,
                "alpha": 4,
                "targets": ["to_q", "to_k", "to_v", "to_out.0"],
                "steps": steps,
                "batch_size": 2,
                "learning_rate": 1e-2,
                "weight_decay": 1e-4,
                "max_grad_norm": 1.0,
                "budget": 5,
            },
            "sampling": {"steps": 1, "guidance_scale": 2.0, "images_per_prompt": 2, "noise_seed": 42},
            "seeds": [0, 5],
            "tracks": {
                "objects": {
                    **track,
                    "name": "objects",
                    "tasks": [_shortened(object_task(source, index, 0), 4) for index in range(tasks)],
                    "eval_prompt_templates": ["a {token} {class} in the snow", "a {token} {class} in the night"],
                    "content_prompt_templates": ["a {class} in the snow", "a {class} in the night"],
                    "metrics": ["clip_i", "dino", "clip_t"],
                },
                "styles": {
                    **track,
                    "name": "styles",
                    "tasks": [_shortened(style_task(source, index, 0), 4) for index in range(tasks)],
                    "train_prompt_template": "{style} image of {object}",
                    "eval_prompt_templates": ["{style} image of a boot", "{style} image of a fish"],
                    "content_prompt_templates": ["image of a boot", "image of a fish"],
                    "metrics": ["csd", "dino", "clip_t"],
                },
            },
        }
    )


def _shortened(task: dict, images: int) -> dict:
    real = {**task["real"], "shapes": task["real"]["shapes"][:images], "scenes": task["real"]["scenes"][:images]}
    return {**task, "real": real}
