"""The training loop of all the mini world's models: resumable, with averaged weights and a seed for each step."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clbench.miniworld.render import PictureBatch, draw


@dataclass(frozen=True)
class StepRng:
    """The random generators of one step: Python's for captions, torch's for pictures, poses and noise."""

    python: random.Random
    torch: torch.Generator
    device: str

    @classmethod
    def seeded(cls, *purpose: object, device: str = "cpu") -> StepRng:
        python = random.Random("/".join(map(str, purpose)))
        return cls(python, torch.Generator().manual_seed(python.getrandbits(62)), device)

    def pictures(self, pictures: PictureBatch) -> Tensor:
        """Rendered pictures, float [N, 3, 32, 32] in [-1, 1]."""
        return (draw(pictures, self.torch) * 2 - 1).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.torch).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.torch).to(self.device)


def fit(
    stage: str,
    model: nn.Module,
    loss: Callable[[StepRng], Tensor],
    *,
    folder: Path,
    seed: int = 0,
    steps: int,
    learning_rate: float = 1e-3,
    ema: float = 0.998,
    device: str = "cpu",
    checkpoint_seconds: float = 60.0,
) -> nn.Module:
    """Minimise `loss` with AdamW, and leave the averaged weights in `model`.

    The learning rate warms up over 100 steps and, after 20 % of all steps, decays by a cosine to 3 %. Training resumes
    from `folder/<stage>.checkpoint.safetensors`. Every 100 steps a line of JSON is added to `folder/<stage>.log.jsonl`.
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
            value = loss(StepRng.seeded(seed, stage, step, device=device))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
            decay = min(ema, (1 + step) / (10 + step))
            get_ema_multi_avg_fn(decay)(list(average.values()), [p.detach() for p in parameters.values()], step)
            recent.append(value.item())
            progress.update(bar, advance=1, loss=f"loss {sum(recent[-50:]) / len(recent[-50:]):.4f}")
            spent = before + time.monotonic() - began
            if (step + 1) % 100 == 0 or step + 1 == steps:
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
    """Load weights, optimizer and average from a checkpoint; returns the next step and the seconds spent so far."""
    if not path.exists():
        return 0, 0.0
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"weight/{name}"])
        average[name].copy_(tensors[f"average/{name}"])
        optimizer.state[parameter] = {key: tensors[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    return int(metadata["step"]), float(metadata["seconds"])
