"""The models and data of `sdxl-v1` in their real file formats, small and untrained; and a cut-down copy of the suite.

`write_world(root, photos)` fills a data root; `write_suite(folder)` writes a suite that runs on it in seconds.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import yaml
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from open_clip.transformer import QuickGELU, VisionTransformer
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    ViTConfig,
    ViTModel,
)

from clbench.data.suite_template import write_suite_template
from clbench.suite import load_suite

RESOLUTION = 64
LAYERS = {"sdxl-v1": 56, "ssd1b-v1": 96}
"""Adapted layers of the tiny U-Nets."""
UNETS: dict[str, dict[str, Any]] = {
    "stable-diffusion-xl-base-1.0": {"transformer_layers_per_block": (1, 1, 1)},
    "SSD-1B": {  # layers differ within a block and between the two halves, and the middle has no attention
        "transformer_layers_per_block": ((1,), (1,), (2,)),
        "reverse_transformer_layers_per_block": ((2, 4), (2, 1), 1),
        "mid_block_type": "UNetMidBlock2D",
    },
}
"""Hub name -> the U-Net's arrangement."""


def write_world(root: Path, photos: Path | None) -> None:
    """Models by hub name under `root`; `photos` is a folder of DreamBooth photos to copy, None for random ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, arrangement in UNETS.items():
            pipeline(**arrangement).save_pretrained(root / name)
            shutil.rmtree(root / name / "vae")  # which the suites do not fetch
        vae().save_pretrained(root / "sdxl-vae-fp16-fix")
        write_clip(root / "vit_base_patch32_clip_224.openai")
        write_dino(root / "dino-vits16")
        write_csd(root / "CSD" / "csd_checkpoint.pth")
    suite = load_suite("sdxl-v1")
    for dataset, folder in (("dreambooth", root / "dreambooth"), ("unlearncanvas", root / "UnlearnCanvas")):
        files = {
            file
            for track in suite.tracks.values()
            for task in track.tasks
            for p in task.photos
            for file in p.files
            if p.dataset == dataset
        }
        for number, file in enumerate(sorted(files)):
            path = folder / ("dataset" if dataset == "dreambooth" else "") / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if photos and dataset == "dreambooth":
                shutil.copy(photos / file, path)
            else:
                random_picture(number).save(path, quality=95)


def random_picture(number: int, size: tuple[int, int] = (80, 80)) -> Image.Image:
    """A few coloured squares."""
    colours = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def pipeline(**arrangement: Any) -> StableDiffusionXLPipeline:
    """SDXL's classes: two text encoders, `text_time` conditioning, attention at two widths."""
    shared: Any = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 600,
        "bos_token_id": 598,
        "eos_token_id": 599,
    }
    first = CLIPTextConfig(hidden_size=32, intermediate_size=64, projection_dim=32, hidden_act="quick_gelu", **shared)
    second = CLIPTextConfig(hidden_size=64, intermediate_size=96, projection_dim=64, hidden_act="gelu", **shared)
    unet: dict[str, Any] = {
        "sample_size": RESOLUTION // 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32, 64),
        "layers_per_block": 1,
        "attention_head_dim": (2, 4, 8),
        "norm_num_groups": 8,
        "use_linear_projection": True,
        "cross_attention_dim": 32 + 64,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64 + 6 * 8,
    }
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
        use_karras_sigmas=False,
    )
    parts: dict[str, Any] = {
        "vae": vae(),
        "text_encoder": CLIPTextModel(first),
        "text_encoder_2": CLIPTextModelWithProjection(second),
        "tokenizer": tokenizer("<|endoftext|>"),
        "tokenizer_2": tokenizer("!"),
        "unet": UNet2DConditionModel(**unet, **arrangement),
        "scheduler": scheduler,
    }
    return StableDiffusionXLPipeline(**parts, add_watermarker=False)


def vae() -> AutoencoderKL:
    config: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8, 8, 8, 8),
        "norm_num_groups": 4,
        "scaling_factor": 0.13025,
        "sample_size": RESOLUTION,
    }
    return AutoencoderKL(**config)


def tokenizer(pad: str) -> CLIPTokenizer:
    """Letters only, under CLIP's own tokenizer."""
    letters = [chr(number) for number in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    vocab = {word: number for number, word in enumerate(words)}
    vocab |= {f"<unused{number}>": number for number in range(len(words), 598)}
    vocab |= {"<|startoftext|>": 598, "<|endoftext|>": 599}
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token=pad, model_max_length=77)


def write_clip(folder: Path, quick_gelu: bool = True) -> None:
    """open_clip's own layout."""
    config = {
        "embed_dim": 32,
        "quick_gelu": quick_gelu,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    model = open_clip.CLIP(**config)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {
        "mean": open_clip.OPENAI_DATASET_MEAN,
        "std": open_clip.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))


def write_dino(folder: Path) -> None:
    """As `facebook/dino-vits16` has it: weights as a file of tensors, one number for the size."""
    config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    model = ViTModel(config, add_pooling_layer=False)
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    means = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 224, "resample": 3, **means}))


def csd_tower() -> VisionTransformer:
    """The image tower of the small CSD."""
    return VisionTransformer(
        224, patch_size=32, width=64, layers=2, heads=1, mlp_ratio=4, act_layer=QuickGELU, output_dim=48
    )


def write_csd(path: Path) -> dict[str, torch.Tensor]:
    """As its authors published it: a training checkpoint; returns its tensors by their names in it."""
    tower = csd_tower()
    state = {f"module.backbone.{name}": value for name, value in tower.state_dict().items() if name != "proj"}
    state |= {f"module.last_layer_{head}": torch.randn(64, 48) for head in ("style", "content")}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state_dict": state, "epoch": 3}, path)
    return state


def write_suite(folder: Path, like: str = "sdxl-v1", **changes: Any) -> Path:
    """`clbench new-suite` on a suite of real models, then cut down; `changes` are fields of the definition."""
    write_suite_template(folder, like)
    path = folder / "suite.yaml"
    suite = yaml.safe_load(path.read_text())
    suite |= {"resolution": RESOLUTION, "precision": "fp32"}
    for item in (suite["backbone"], suite["vae"], *suite["encoders"].values(), *suite["datasets"].values()):
        item.pop("checksums", None)
    suite["training"] |= {"rank": 4, "alpha": 4, "steps": 2, "learning_rate": 1e-3}
    suite["training"] |= {"adapted_layers": LAYERS[like], "adapter_parameters": None}
    suite["sampling"] |= {"steps": 2, "images_per_prompt": 1}
    path.write_text(yaml.safe_dump(suite | changes, sort_keys=False))
    return folder


def plain_pipeline(world: Path, name: str = "stable-diffusion-xl-base-1.0") -> Any:
    """The same models as users of diffusers load them."""
    vae = AutoencoderKL.from_pretrained(world / "sdxl-vae-fp16-fix")
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(world / name, vae=vae)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
