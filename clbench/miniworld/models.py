"""The mini world's models, untrained: SDXL's classes and the three encoders' architectures, all tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, ViTConfig, ViTModel

from clbench.miniworld.captions import vocabulary

CONTEXT = 16
WIDTH = 64
START, END = "<|startoftext|>", "<|endoftext|>"
VISION = {"image_size": 32, "patch_size": 4, "width": 96, "layers": 3, "head_width": 24}


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer, saved in `folder`, whose byte-pair vocabulary has one token for every word of the captions."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = "abcdefghijklmnopqrstuvwxyz"
    trainer = trainers.BpeTrainer(
        vocab_size=2000, min_frequency=1, end_of_word_suffix="</w>", initial_alphabet=list(letters), show_progress=False
    )
    bpe.train_from_iterator(vocabulary(), trainer)
    trained = json.loads(bpe.to_str())["model"]
    tokens = sorted(set(trained["vocab"]) | {f"{letter}</w>" for letter in letters})
    # The end token must have the highest id, at which CLIP's text towers pool.
    vocab = {token: index for index, token in enumerate([*tokens, START, END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in trained["merges"]) + "\n"
    )
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CONTEXT,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    return CLIPTokenizer.from_pretrained(folder)


def text_encoders(tokens: CLIPTokenizer) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """SDXL's two text encoders."""
    config = {
        "vocab_size": len(tokens),
        "hidden_size": WIDTH,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "projection_dim": WIDTH,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.eos_token_id,
    }
    return (
        CLIPTextModel(CLIPTextConfig(**config, hidden_act="quick_gelu")),
        CLIPTextModelWithProjection(CLIPTextConfig(**config, hidden_act="gelu")),
    )


def vae() -> AutoencoderKL:
    make: Any = AutoencoderKL  # its annotations allow only one block
    return make(
        block_out_channels=(24, 48),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        mid_block_add_attention=False,
    )


def unet() -> UNet2DConditionModel:
    make: Any = UNet2DConditionModel  # its annotations allow only one number of heads
    return make(
        sample_size=16,
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 2, 4),
        cross_attention_dim=2 * WIDTH,
        norm_num_groups=8,
        use_linear_projection=True,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=6 * 16 + WIDTH,
    )


def scheduler() -> Any:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def pipeline(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    text_encoder_2: CLIPTextModelWithProjection,
    tokens: CLIPTokenizer,
    unet: UNet2DConditionModel,
) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokens,
        tokenizer_2=tokens,
        unet=unet,
        scheduler=scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def clip_config(tokens: CLIPTokenizer) -> dict:
    """open_clip's model configuration."""
    text = {
        "context_length": CONTEXT,
        "vocab_size": len(tokens),
        "width": WIDTH,
        "heads": 4,
        "layers": 3,
        "hf_tokenizer_name": ".",  # its files are in the model's folder
    }
    return {"embed_dim": WIDTH, "vision_cfg": VISION, "text_cfg": text}


def clip(tokens: CLIPTokenizer) -> open_clip.CLIP:
    config = clip_config(tokens)
    return open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])


def dino() -> ViTModel:
    config = ViTConfig(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=384, image_size=32, patch_size=4
    )
    return ViTModel(config, add_pooling_layer=False)


class ShapeClassifier(torch.nn.Sequential):
    """A small convolutional network that recognises the shape, for measuring the generator; not shipped."""

    def __init__(self, classes: int) -> None:
        def block(inputs: int, outputs: int, stride: int) -> list[torch.nn.Module]:
            return [torch.nn.Conv2d(inputs, outputs, 3, stride, 1), torch.nn.GroupNorm(8, outputs), torch.nn.SiLU()]

        super().__init__(
            *block(3, 32, 1),
            *block(32, 64, 2),
            *block(64, 64, 1),
            *block(64, 128, 2),
            *block(128, 128, 1),
            *block(128, 128, 2),
            torch.nn.Flatten(),
            torch.nn.Linear(128 * 16, classes),
        )
