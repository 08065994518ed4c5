"""The losses of the pretraining stages; each is a function of one step's random generators."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, ViTModel

from clbench.miniworld import models
from clbench.miniworld.captions import CaptionMix, captioned_pictures, name_captions
from clbench.miniworld.fit import StepRng
from clbench.miniworld.render import PictureBatch
from clbench.miniworld.world import STYLE_NAMES


def vae_loss(vae: AutoencoderKL, batch: int) -> Callable[[StepRng], Tensor]:
    """L1 + 0.5 MSE + 0.5 L1 of the image gradients + 1e-3 KL."""

    def loss(step: StepRng) -> Tensor:
        pictures, _ = captioned_pictures(batch, step.python, CaptionMix(named=0.15, marked=0.1, photos=0.25))
        images = step.pictures(pictures)
        posterior = vae.encode(images).latent_dist  # type: ignore[union-attr]
        noise = step.normal(*posterior.mean.shape)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample  # type: ignore[union-attr]
        error = decoded - images
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + 0.5 * error.pow(2).mean() + 0.5 * edges + 1e-3 * posterior.kl().mean() / 1024

    return loss


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids, int64 [N, 16]."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def _first_end(ids: Tensor, tokenizer: CLIPTokenizer) -> Tensor:
    """Position of each caption's first end token, int64 [N]; the tokens after it are padding."""
    end: Any = tokenizer.eos_token_id  # always a number, although its annotation allows more
    return torch.eq(ids, end).int().argmax(dim=1)


def info_nce(a: Tensor, b: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE between unit rows [N, D]."""
    logits = a @ b.T * scale
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class TextModels(nn.Module):
    """CLIP and the pipeline's text encoders, trained together against CLIP's image tower."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.clip = models.clip(tokenizer)
        self.text_encoder, self.text_encoder_2 = models.text_encoders(tokenizer)
        self.head = nn.Linear(models.WIDTH, models.WIDTH, bias=False)  # the first text encoder has no projection


SEPARATION = 10.0
"""Weight of `separation_loss`, relative to the contrastive loss."""
NAME_LENGTH = 2.5
"""Norm that features at a name's token should have, as a multiple of other tokens' norm."""


def name_features(
    texts: TextModels | StableDiffusionXLPipeline, tokenizer: CLIPTokenizer, step: StepRng
) -> dict[str, Tensor]:
    """Features that condition the U-Net, in captions that differ only in the name: place -> [names, D]."""
    captions, last = name_captions(step.python)
    ids = tokenize(tokenizer, captions).to(step.device)
    hidden, pooled = encode_prompts(texts.text_encoder, texts.text_encoder_2, ids)
    rows, end = torch.arange(len(ids), device=ids.device), _first_end(ids, tokenizer)
    at_name = hidden[rows, torch.tensor(last, device=ids.device)]
    return {"name": at_name, "first end": hidden[rows, end], "last end": hidden[:, -1], "pooled": pooled}


def pairwise_cosines(features: Tensor) -> Tensor:
    """Cosines of all pairs of different rows of [N, D], as [N * (N - 1)]."""
    unit = F.normalize(features, dim=-1)
    return (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool, device=unit.device)]


def mean_squared_cosine(features: Tensor) -> Tensor:
    """Mean squared cosine between names; within styles, within identifiers and among all names, equally weighted."""
    parts = (features[: len(STYLE_NAMES)], features[len(STYLE_NAMES) :], features)
    return torch.stack([pairwise_cosines(part).pow(2).mean() for part in parts]).mean()


def separation_loss(texts: TextModels, tokenizer: CLIPTokenizer, step: StepRng) -> Tensor:
    """The mean squared cosine between different names' features, to be minimised.

    If names' features overlap, learning one name changes the others too, whatever a method does. The features at a
    name's own token are also separated from those of captions without names, and made longer.
    """
    features = name_features(texts, tokenizer, step)
    overlaps = {place: mean_squared_cosine(rows) for place, rows in features.items()}
    _, captions = captioned_pictures(64, step.python, CaptionMix(named=0, marked=0, photos=0.5))
    ids = tokenize(tokenizer, captions).to(step.device)
    hidden, _ = encode_prompts(texts.text_encoder, texts.text_encoder_2, ids)
    others = hidden[torch.arange(ids.shape[1], device=ids.device) <= _first_end(ids, tokenizer)[:, None]]
    from_others = (F.normalize(features["name"], dim=-1) @ F.normalize(others, dim=-1).T).pow(2).mean()
    too_short = F.relu(NAME_LENGTH - features["name"].norm(dim=1).mean() / others.norm(dim=1).mean())
    between = overlaps["name"] + overlaps["first end"] + overlaps["last end"] + 0.5 * overlaps["pooled"]
    return between + from_others + 0.1 * too_short


def text_loss(texts: TextModels, tokenizer: CLIPTokenizer, batch: int) -> Callable[[StepRng], Tensor]:
    """InfoNCE between captions and pictures, plus `separation_loss`.

    Half of each batch are groups that differ only in the shape: otherwise a style's name outweighs the object's.
    """

    def loss(step: StepRng) -> Tensor:
        mix = CaptionMix(named=0.25, marked=0.25, photos=0.3, detail=0.8)
        halves = [captioned_pictures(batch // 2, step.python, mix, group=group) for group in (1, 16)]
        ids = tokenize(tokenizer, halves[0][1] + halves[1][1]).to(step.device)
        images = torch.cat([step.pictures(pictures) for pictures, _ in halves])
        image = texts.clip.encode_image(images, normalize=True)
        scale = texts.clip.logit_scale.exp().clamp(max=100)
        embedded = (
            texts.clip.encode_text(ids),
            texts.head(texts.text_encoder(ids).pooler_output),
            texts.text_encoder_2(ids).text_embeds,
        )
        matched = torch.stack([info_nce(image, F.normalize(text, dim=-1), scale) for text in embedded]).sum()
        return matched + SEPARATION * separation_loss(texts, tokenizer, step)

    return loss


def clip_loss(clip: Any, tokenizer: CLIPTokenizer, batch: int) -> Callable[[StepRng], Tensor]:
    """InfoNCE with captions that name every attribute; half of each batch are groups that differ only in the look."""
    mix = CaptionMix(named=0.15, marked=0.1, photos=0.55, detail=1.0, scenes=0.2)

    def loss(step: StepRng) -> Tensor:
        halves = [captioned_pictures(batch // 2, step.python, mix, group, "look") for group in (1, 16)]
        ids = tokenize(tokenizer, halves[0][1] + halves[1][1]).to(step.device)
        images = torch.cat([step.pictures(pictures) for pictures, _ in halves])
        image, text = clip.encode_image(images, normalize=True), clip.encode_text(ids, normalize=True)
        return info_nce(image, text, clip.logit_scale.exp().clamp(max=100))

    return loss


def pair_loss(
    embed: Callable[[Tensor], Tensor],
    pairs: Callable[[int, random.Random], tuple[PictureBatch, PictureBatch]],
    batch: int,
    temperature: float,
) -> Callable[[StepRng], Tensor]:
    """InfoNCE between the two pictures of each pair."""

    def loss(step: StepRng) -> Tensor:
        first, second = pairs(batch, step.python)
        views = torch.cat([step.pictures(first), step.pictures(second)])
        a, b = F.normalize(embed(views), dim=-1).chunk(2)
        return info_nce(a, b, 1 / temperature)

    return loss


def class_token(dino: ViTModel) -> Callable[[Tensor], Tensor]:
    """DINO's embedding: the class token of the last hidden state."""
    return lambda pixels: dino(pixels).last_hidden_state[:, 0]


def encode_prompts(
    text_encoder: CLIPTextModel, text_encoder_2: CLIPTextModelWithProjection, ids: Tensor
) -> tuple[Tensor, Tensor]:
    """SDXL's conditioning: both encoders' penultimate hidden states [N, L, 128], and the pooled embedding [N, 64]."""
    first = text_encoder(ids, output_hidden_states=True)
    second = text_encoder_2(ids, output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds


def unet_loss(pipeline: StableDiffusionXLPipeline, batch: int) -> Callable[[StepRng], Tensor]:
    """v-prediction; half of the timesteps are spread evenly, half favour high noise, where shapes are decided."""
    scheduler = models.scheduler()
    device = pipeline.device
    mean = torch.tensor(pipeline.vae.config.latents_mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(pipeline.vae.config.latents_std, device=device).view(1, -1, 1, 1)
    factor = pipeline.vae.config.scaling_factor
    time_ids = torch.tensor([[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]], device=device).expand(batch, -1)

    def loss(step: StepRng) -> Tensor:
        pictures, captions = captioned_pictures(batch, step.python)
        with torch.no_grad():
            latents = (pipeline.vae.encode(step.pictures(pictures)).latent_dist.mean - mean) * factor / std
            ids = tokenize(pipeline.tokenizer, captions).to(step.device)
            hidden, pooled = encode_prompts(pipeline.text_encoder, pipeline.text_encoder_2, ids)
        dropped = step.uniform(batch) < 0.1  # SDXL's unconditional embedding is all zeros
        hidden, pooled = hidden * ~dropped.view(-1, 1, 1), pooled * ~dropped.view(-1, 1)
        shift = torch.where(step.uniform(batch) < 0.5, -0.2, 0.6)
        level = torch.sigmoid(shift + 1.1 * step.normal(batch))
        timesteps = (level * 1000).long().clamp(0, 999)
        noise = step.normal(*latents.shape)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        target = scheduler.get_velocity(latents, noise, timesteps)
        conditions = {"text_embeds": pooled, "time_ids": time_ids}
        predicted = pipeline.unet(noisy, timesteps, hidden, added_cond_kwargs=conditions).sample
        return F.mse_loss(predicted, target)

    return loss
