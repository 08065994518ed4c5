"""Train the mini world's models from nothing: `clbench pretrain-mini --output DIR`.

Six stages, each a loss function handed to the one loop in `fit`: the autoencoder; the pipeline's two text encoders,
taught by CLIP's image tower; CLIP itself, which goes on from there; CSD, which starts from that tower; DINO; the U-Net.
Every batch is drawn afresh from a generator seeded by (seed, stage, step); checkpoints hold weights, optimizer and
average as safetensors, so that a killed training goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, ViTModel

from clbench.encoders.csd import CSD
from clbench.errors import ClbenchError, did_you_mean
from clbench.miniworld import models
from clbench.miniworld.captions import Mix, captioned, style_pairs, view_pairs
from clbench.miniworld.render import Pictures, draw

PIXEL_MEAN, PIXEL_STD = 0.5, 0.5
STAGES = ("vae", "text", "clip", "csd", "dino", "unet")
STEPS = {"vae": 2300, "text": 1000, "clip": 800, "csd": 300, "dino": 500, "unet": 5712}
BATCH = {"vae": 16, "text": 128, "clip": 128, "csd": 96, "dino": 96, "unet": 32}
SHIPPED = {
    "vae": "pipeline/vae/diffusion_pytorch_model.safetensors",
    "clip": "clip/open_clip_model.safetensors",
    "csd": "csd/model.safetensors",
    "dino": "dino/model.safetensors",
    "unet": "pipeline/unet/diffusion_pytorch_model.safetensors",
}
"""Stage -> its file under `weights/`; the text stage ships only a part of what it trains."""


@dataclass(frozen=True)
class Draw:
    """One step's randomness: python's for captions, torch's for pictures, poses and noise."""

    python: random.Random
    torch: torch.Generator
    device: str

    @classmethod
    def of(cls, *purpose: object, device: str = "cpu") -> Draw:
        python = random.Random("/".join(map(str, purpose)))
        return cls(python, torch.Generator().manual_seed(python.getrandbits(62)), device)

    def pictures(self, pictures: Pictures) -> Tensor:
        """float [N, 3, 32, 32] in [-1, 1]."""
        return (draw(pictures, self.torch) * 2 - 1).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.torch).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.torch).to(self.device)


def fit(
    stage: str,
    model: nn.Module,
    loss: Callable[[Draw], Tensor],
    *,
    folder: Path,
    seed: int = 0,
    steps: int,
    learning_rate: float = 1e-3,
    ema: float = 0.998,
    device: str = "cpu",
    checkpoint_seconds: float = 60.0,
) -> nn.Module:
    """Minimise `loss` with AdamW (warm-up 100, cosine from 20 % down to 3 %) and leave the averaged weights in `model`.

    Resumes from `folder/<stage>.checkpoint.safetensors`. Writes one line of JSON a hundred steps to
    `folder/<stage>.log.jsonl`.
    """
    model.to(device)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    average = {name: p.detach().clone() for name, p in parameters.items()}
    path = folder / f"{stage}.checkpoint.safetensors"
    start, before = _resume(path, parameters, optimizer, average)

    def schedule(step: int) -> float:
        after = max(0.0, (step / steps - 0.2) / 0.8)
        return min(1.0, (step + 1) / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * after)))

    began = saved = time.monotonic()
    recent: list[float] = []
    columns = ("[bold]{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task(stage, total=steps, completed=start, loss="")
        for step in range(start, steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * schedule(step)
            value = loss(Draw.of(seed, stage, step, device=device))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
            decay = min(ema, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.values()), [p.detach() for p in parameters.values()], 1 - decay)
            recent.append(value.item())
            progress.update(bar, advance=1, loss=f"loss {sum(recent[-50:]) / len(recent[-50:]):.4f}")
            spent = before + time.monotonic() - began
            if (step + 1) % 100 == 0:
                record = {"step": step + 1, "loss": sum(recent) / len(recent), "seconds": round(spent, 1)}
                with (folder / f"{stage}.log.jsonl").open("a") as log:
                    log.write(json.dumps(record) + "\n")
                recent = recent[-50:]
            if step + 1 == steps or time.monotonic() - saved > checkpoint_seconds:
                _save(path, step + 1, spent, parameters, optimizer, average)
                saved = time.monotonic()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(average[name])
    return model.eval()


def _save(
    path: Path, step: int, seconds: float, parameters: dict, optimizer: torch.optim.Optimizer, average: dict
) -> None:
    tensors = {f"weight/{name}": p.detach() for name, p in parameters.items()}
    tensors |= {f"average/{name}": p for name, p in average.items()}
    for name, parameter in parameters.items():
        tensors |= {f"{key}/{name}": value for key, value in optimizer.state[parameter].items()}
    temporary = path.with_suffix(".tmp")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, temporary, metadata={"step": str(step), "seconds": str(seconds)})
    temporary.replace(path)


def _resume(path: Path, parameters: dict, optimizer: torch.optim.Optimizer, average: dict) -> tuple[int, float]:
    """Fill weights, optimizer and average from a checkpoint; the step to go on from and the seconds spent so far."""
    if not path.exists():
        return 0, 0.0
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"weight/{name}"])
        average[name].copy_(tensors[f"average/{name}"])
        optimizer.state[parameter] = {key: tensors[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    return int(metadata["step"]), float(metadata["seconds"])


# --- the stages' losses ---------------------------------------------------------------------------------------------


def vae_loss(vae: AutoencoderKL, batch: int) -> Callable[[Draw], Tensor]:
    """L1 + 0.5 MSE + L1 of the image gradients + 1e-3 KL."""

    def loss(step: Draw) -> Tensor:
        pictures, _ = captioned(batch, step.python, Mix(named=0.15, marked=0.1, photos=0.25))
        images = step.pictures(pictures)
        posterior = vae.encode(images).latent_dist  # type: ignore[union-attr]
        noise = step.normal(*posterior.mean.shape)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample  # type: ignore[union-attr]
        error = decoded - images
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + 0.5 * error.pow(2).mean() + 0.5 * edges + 1e-3 * posterior.kl().mean() / 1024

    return loss


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """int64 [N, 16]."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def info_nce(a: Tensor, b: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE between unit rows [N, D]."""
    logits = a @ b.T * scale
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class Texts(nn.Module):
    """CLIP and the pipeline's text encoders, which learn from CLIP's image tower in the same steps."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.clip = models.clip(tokenizer)
        self.text_encoder, self.text_encoder_2 = models.text_encoders(tokenizer)
        self.head = nn.Linear(models.WIDTH, models.WIDTH, bias=False)  # the first encoder has no projection of its own


def text_loss(texts: Texts, tokenizer: CLIPTokenizer, batch: int) -> Callable[[Draw], Tensor]:
    """Half of each batch are groups that differ in their shape alone: else a style's name drowns the object's."""

    def loss(step: Draw) -> Tensor:
        mix = Mix(named=0.25, marked=0.25, photos=0.3, detail=0.8)
        halves = [captioned(batch // 2, step.python, mix, group=group) for group in (1, 16)]
        ids = tokenize(tokenizer, halves[0][1] + halves[1][1]).to(step.device)
        images = torch.cat([step.pictures(pictures) for pictures, _ in halves])
        image = texts.clip.encode_image(images, normalize=True)
        scale = texts.clip.logit_scale.exp().clamp(max=100)
        embedded = (
            texts.clip.encode_text(ids),
            texts.head(texts.text_encoder(ids).pooler_output),
            texts.text_encoder_2(ids).text_embeds,
        )
        return torch.stack([info_nce(image, F.normalize(text, dim=-1), scale) for text in embedded]).sum()

    return loss


def clip_loss(clip: Any, tokenizer: CLIPTokenizer, batch: int) -> Callable[[Draw], Tensor]:
    """Captions that name every attribute; half of each batch are groups that differ in their look alone."""
    mix = Mix(named=0.15, marked=0.1, photos=0.55, detail=1.0, scenes=0.2)

    def loss(step: Draw) -> Tensor:
        halves = [captioned(batch // 2, step.python, mix, group, "look") for group in (1, 16)]
        ids = tokenize(tokenizer, halves[0][1] + halves[1][1]).to(step.device)
        images = torch.cat([step.pictures(pictures) for pictures, _ in halves])
        image, text = clip.encode_image(images, normalize=True), clip.encode_text(ids, normalize=True)
        return info_nce(image, text, clip.logit_scale.exp().clamp(max=100))

    return loss


def pair_loss(
    embed: Callable[[Tensor], Tensor],
    pairs: Callable[[int, random.Random], tuple[Pictures, Pictures]],
    batch: int,
    temperature: float,
) -> Callable[[Draw], Tensor]:
    def loss(step: Draw) -> Tensor:
        first, second = pairs(batch, step.python)
        views = torch.cat([step.pictures(first), step.pictures(second)])
        a, b = F.normalize(embed(views), dim=-1).chunk(2)
        return info_nce(a, b, 1 / temperature)

    return loss


def class_token(dino: ViTModel) -> Callable[[Tensor], Tensor]:
    return lambda pixels: dino(pixels).last_hidden_state[:, 0]


def encode_prompts(
    text_encoder: CLIPTextModel, text_encoder_2: CLIPTextModelWithProjection, ids: Tensor
) -> tuple[Tensor, Tensor]:
    """SDXL's conditioning: both encoders' penultimate hidden states [N, L, 128], and the pooled embedding [N, 64]."""
    first = text_encoder(ids, output_hidden_states=True)
    second = text_encoder_2(ids, output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds


def unet_loss(pipeline: StableDiffusionXLPipeline, batch: int) -> Callable[[Draw], Tensor]:
    """v-prediction; half the time steps are uniform-like, half lean to high noise, where shapes are decided."""
    scheduler = models.scheduler()
    device = pipeline.device
    mean = torch.tensor(pipeline.vae.config.latents_mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(pipeline.vae.config.latents_std, device=device).view(1, -1, 1, 1)
    factor = pipeline.vae.config.scaling_factor
    time_ids = torch.tensor([[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]], device=device).expand(batch, -1)

    def loss(step: Draw) -> Tensor:
        pictures, captions = captioned(batch, step.python)
        with torch.no_grad():
            latents = (pipeline.vae.encode(step.pictures(pictures)).latent_dist.mean - mean) * factor / std
            ids = tokenize(pipeline.tokenizer, captions).to(step.device)
            hidden, pooled = encode_prompts(pipeline.text_encoder, pipeline.text_encoder_2, ids)
        dropped = step.uniform(batch) < 0.1  # SDXL's unconditional embedding is all zeros
        hidden, pooled = hidden * ~dropped.view(-1, 1, 1), pooled * ~dropped.view(-1, 1)
        lean = torch.where(step.uniform(batch) < 0.5, -0.2, 0.6)
        level = torch.sigmoid(lean + 1.1 * step.normal(batch))
        timesteps = (level * 1000).long().clamp(0, 999)
        noise = step.normal(*latents.shape)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        target = scheduler.get_velocity(latents, noise, timesteps)
        conditions = {"text_embeds": pooled, "time_ids": time_ids}
        predicted = pipeline.unet(noisy, timesteps, hidden, added_cond_kwargs=conditions).sample
        return F.mse_loss(predicted, target)

    return loss


# --- running them ---------------------------------------------------------------------------------------------------


def latent_statistics(vae: AutoencoderKL) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of the latents of 2,048 random pictures."""
    step = Draw.of("latent statistics")
    with torch.no_grad():
        latents = torch.cat(
            [vae.encode(step.pictures(captioned(256, step.python)[0])).latent_dist.mean for _ in range(8)]  # type: ignore[union-attr]
        )
    return latents.mean((0, 2, 3)).tolist(), latents.std((0, 2, 3)).tolist()


def save_clip(clip: nn.Module, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """open_clip's own folder layout, as its `local-dir:` loader and its users expect it."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {
        "mean": [PIXEL_MEAN] * 3,
        "std": [PIXEL_STD] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": models.clip_config(tokenizer), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1))
    tokenizer.save_pretrained(folder)
    save_half(clip.state_dict(), folder / "open_clip_model.safetensors")


def save_half(state: dict[str, Tensor], path: Path) -> None:
    """Weights as float16 (integer tensors unchanged)."""
    save_file({k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}, path)


def pretrain(
    output: Path,
    stages: tuple[str, ...] = STAGES,
    scale: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    start: Path | None = None,
) -> None:
    """Train `stages` in order; each reads what the earlier ones wrote to `output`.

    Args:
        output: folder for `weights/` (what the suite loads) and `checkpoints/`.
        scale: multiplies every stage's number of steps.
        start: an earlier `weights/` to begin from (with a fresh optimizer and schedule) instead of from nothing.

    Raises:
        ClbenchError: an unknown stage, or one that cannot begin from shipped weights.
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
    tokenizer = models.tokenizer(weights / "pipeline" / "tokenizer")

    def run(
        stage: str, model: nn.Module, loss: Callable[[Draw], Tensor], rate: float = 1e-3, ema: float = 0.998
    ) -> None:
        steps = max(1, round(STEPS[stage] * scale))
        if start is not None:
            model.load_state_dict(load_file(start / SHIPPED[stage]))
        fit(
            stage,
            model.train(),
            loss,
            folder=checkpoints,
            seed=seed,
            steps=steps,
            learning_rate=rate,
            ema=ema,
            device=device,
        )
        model.cpu()

    for stage in stages:
        # The only global draw: initial weights. Every later one has a generator of its own.
        torch.manual_seed(random.Random(f"{seed}/{stage}").getrandbits(62))
        if stage == "vae":
            vae = models.vae()
            run(stage, vae, vae_loss(vae, BATCH[stage]))
            mean, std = latent_statistics(vae)
            vae.register_to_config(latents_mean=mean, latents_std=std, scaling_factor=1.0)
            vae.half().save_pretrained(weights / "pipeline" / "vae")
        elif stage == "text":
            texts = Texts(tokenizer)
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
    """A pipeline of the trained parts in `folder` and an untrained U-Net, in fp32."""
    vae = AutoencoderKL.from_pretrained(folder / "vae").float().eval().requires_grad_(False)
    vae.register_to_config(_name_or_path="")  # diffusers would write this machine's folder into the weights
    first = CLIPTextModel.from_pretrained(folder / "text_encoder").float().eval().requires_grad_(False)
    second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2").float().eval().requires_grad_(False)
    return models.pipeline(vae, first, second, tokenizer, models.unet())


def csd_from_clip(folder: Path) -> CSD:
    """CSD as its authors start it: CLIP's image tower, with its projection as both heads."""
    weights = load_file(folder / "open_clip_model.safetensors")
    csd = CSD(models.VISION, models.WIDTH)
    tower = {name.removeprefix("visual."): value for name, value in weights.items() if name.startswith("visual.")}
    heads = tower.pop("proj")
    csd.backbone.load_state_dict(tower)
    csd.last_layer_style.data.copy_(heads)
    csd.last_layer_content.data.copy_(heads)
    return csd


def save_csd(csd: CSD, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "vision_cfg": models.VISION,
        "embed_dim": models.WIDTH,
        "preprocess_cfg": {"mean": [PIXEL_MEAN] * 3, "std": [PIXEL_STD] * 3, "interpolation": "bicubic"},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_half(csd.state_dict(), folder / "model.safetensors")


def save_dino(dino: ViTModel, folder: Path) -> None:
    """transformers' own files; the image processor's settings among them."""
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
