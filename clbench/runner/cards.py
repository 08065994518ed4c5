"""What work would take on common GPUs, reckoned from their makers' figures: a dry run shows it where there is none.

No figure was measured on these cards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clbench.errors import ClbenchError
from clbench.results.environment import describe
from clbench.runner.config import SweepSpec
from clbench.runner.estimate import Machine, ResourceEstimate, estimate, fit_memory
from clbench.runner.footprint import ModelFootprint

REACHED = 0.7
"""The share of its peak rate that a card is taken to reach in a large matrix product."""


@dataclass(frozen=True)
class Card:
    """A GPU."""

    name: str
    memory: float
    """Bytes."""
    peak: float
    """FLOP a second of its tensor cores in bfloat16, dense, summed in float32, by its maker's data sheet."""


CARDS = (
    Card("RTX 3060, 12 GB", 12e9, 25e12),
    Card("RTX 4080, 16 GB", 16e9, 97e12),
    Card("RTX 3090, 24 GB", 24e9, 71e12),
    Card("RTX 4090, 24 GB", 24e9, 165e12),
    Card("L40S, 48 GB", 48e9, 362e12),
    Card("A100, 40 GB", 40e9, 312e12),
    Card("A100, 80 GB", 80e9, 312e12),
    Card("H100, 80 GB", 80e9, 989e12),
)
DRIVER = 0.6e9
"""Bytes of a card that its driver and the libraries take."""


@dataclass(frozen=True)
class CardForecast:
    """What the work of one GPU takes."""

    card: str
    expected: ResourceEstimate | None
    """None: it does not fit."""

    def summary(self) -> dict[str, Any]:
        found = self.expected
        return {
            "card": self.card,
            "expected_seconds": found.seconds if found else None,
            "expected_memory_bytes": found.device_bytes if found else None,
        }


def forecast(
    footprint: ModelFootprint, sweep: SweepSpec, work: float, training: float, cards: Sequence[Card] = CARDS
) -> tuple[CardForecast, ...]:
    """The same work on one GPU of each kind.

    Args:
        footprint: with the sweep's precision.
        work, training: as `estimate` takes them.
    """
    here, found = describe("cpu"), []
    for card in cards:
        free = int(card.memory - DRIVER)
        wanted = sweep.config.model_copy(
            update={"device": "cuda", "gradient_checkpointing": False, "sample_batch_size": None}
        )
        try:
            config = fit_memory(footprint, sweep.suite, wanted, "auto", free, sharing=1)
        except ClbenchError:
            found.append(CardForecast(card.name, None))
            continue
        machine = Machine(free, REACHED * card.peak, 0, here)
        own = sweep.model_copy(update={"config": config})
        expected = estimate(footprint, own, machine, work=work, training=training, workers=1, sharing=1)
        found.append(CardForecast(card.name, expected))
    return tuple(found)
