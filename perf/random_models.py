"""Random weights in the files of an SDXL pipeline and of CLIP, at their own size or small, for `perf/gpu.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


def write_pipeline(folder: Path, full: bool) -> dict[str, Any]:
    """A pipeline with random weights; returns its U-Net's configuration."""
    widths = (320, 640, 1280) if full else (32, 64, 128)
    first = _text_config(*((768, 12) if full else (64, 2)))
    second = _text_config(*((1280, 32) if full else (64, 2)), hidden_act="gelu")
    config: dict[str, Any] = {
        "sample_size": 128 if full else 32,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": widths,
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 10) if full else (1, 1, 2),
        "attention_head_dim": tuple(width // 64 for width in widths) if full else (1, 2, 4),
        "norm_num_groups": 32,
        "use_linear_projection": True,
        "cross_attention_dim": first.hidden_size + second.hidden_size,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": second.hidden_size + 6 * 256,
    }
    channels = (128, 256, 512, 512) if full else (32, 32, 32, 32)
    vae: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": channels,
        "layers_per_block": 2,
        "scaling_factor": 0.13025,
        "sample_size": 1024 if full else 256,
    }
    letters = [chr(number) for number in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    vocab = {word: number for number, word in enumerate(words)} | {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(**vae),
        "text_encoder": CLIPTextModel(first),
        "text_encoder_2": CLIPTextModelWithProjection(second),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "unet": UNet2DConditionModel(**config),
        "scheduler": EulerDiscreteScheduler(**schedule, timestep_spacing="leading"),  # type: ignore[arg-type]
    }
    StableDiffusionXLPipeline(**parts, add_watermarker=False).save_pretrained(folder)
    return config


def _text_config(width: int, layers: int, **more: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        bos_token_id=49406,
        eos_token_id=49407,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        projection_dim=width,
        **more,
    )


def write_clip(folder: Path, full: bool) -> None:
    """ViT-B/32 in open_clip's layout, or a small one."""
    width, layers = (768, 12) if full else (64, 2)
    config = {
        "embed_dim": 512,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": layers, "width": width, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": layers},
    }
    folder.mkdir()
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
