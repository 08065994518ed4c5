"""Store keys: every artifact is named by the hash of all that made it, so that equal work is found and done once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clbench.protocol.device import DeviceConfig
from clbench.storage.store import recipe_key
from clbench.suite import Suite
from clbench.utils.software import software_versions


def track_recipe(suite: Suite, track: str, assets: Mapping[str, str], config: DeviceConfig) -> dict[str, Any]:
    """The inputs that every artifact of a track depends on.

    Package versions are part of it because they change the last bits; so is, where the last bits are promised, whatever
    else changes them (the number of threads, gradient checkpointing).

    Args:
        assets: model or data set -> checksum.
    """
    cpu = config.device == "cpu"
    return {
        "suite": suite.sha256,
        "assets": dict(assets),
        "track": track,
        "device": config.device,
        "precision": config.precision,
        **software_versions(config.device),
        **({"half_precision": "all but the factors"} if config.precision != "fp32" else {}),
        **({"convolutions": "tf32"} if config.device.startswith("cuda") else {}),
        **({"threads": torch.get_num_threads()} if cpu else {}),
        **({"deterministic": True} if config.deterministic else {}),
        **({"low_memory": True} if config.gradient_checkpointing and (cpu or config.deterministic) else {}),
    }


class TrackKeys:
    """Keys of what all methods share on a track.

    Args:
        recipe: as `track_recipe` gives it.
    """

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        self._recipe = recipe
        self.base = recipe_key("base", recipe)
        """The base model's scores and cells."""
        self.controls = recipe_key("controls", recipe)
        self.drift = recipe_key("drift", recipe)
        """The base model's images of the unrelated prompts, embedded."""

    def cell(self, task: str, prompts: list[str], weights: str, tokens: str | None = None) -> str:
        """The key of a cell drawn with weights of that digest.

        Args:
            tokens: digest of the learned tokens that are in the prompts, if there are any.
        """
        recipe = {"task": task, "prompts": prompts, "weights": weights, **({"tokens": tokens} if tokens else {})}
        return recipe_key("cell", {**self._recipe, **recipe})

    def first_training(self, task: str, seed: int, start: str, frozen: str, learning_rate: float | None = None) -> str:
        """The key of a first task's training that no method shapes, by the digests of what it starts from.

        Args:
            learning_rate: if it is not the suite's.
        """
        recipe = {"task": task, "seed": seed, "position": 0, "start": start, "frozen": frozen}
        recipe |= {} if learning_rate is None else {"learning_rate": learning_rate}
        return recipe_key("fit", {**self._recipe, **recipe})

    def sequence(self, identity: Mapping[str, Any], tasks: Sequence[str], seed: int) -> SequenceKeys:
        """The keys of one sequence of tasks.

        Args:
            identity: the method: its name, settings and source.
        """
        hashes: list[str] = []
        for position, task in enumerate(tasks):
            before = hashes[-1] if hashes else None
            recipe = {
                **self._recipe,
                **identity,
                "before": before,
                "task": task,
                "position": position,
                "seed": seed,
            }
            hashes.append(recipe_key("state", recipe).split("-", 1)[1])
        return SequenceKeys(hashes)


class SequenceKeys:
    """Keys of one sequence's artifacts, by position; each hash includes the one before it."""

    def __init__(self, hashes: Sequence[str]) -> None:
        self.hashes = tuple(hashes)

    def state(self, position: int) -> str:
        """The key of the state that is handed on after the task at `position`."""
        return f"state-{self.hashes[position]}"

    def row(self, position: int) -> str:
        """The key of the row of scores after the task at `position`."""
        return f"row-{self.hashes[position]}"

    def cost(self, position: int) -> str:
        """The key of what the training at `position` cost."""
        return f"cost-{self.hashes[position]}"
