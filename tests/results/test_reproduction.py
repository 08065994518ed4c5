"""Verification by repetition: honest results pass, inflated ones fail, and what is repeated cannot be foreseen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from builders import make_result, tiny_suite
from numpy.typing import NDArray

from clbench.results import reproduction
from clbench.results.baselines import Noise, on_record
from clbench.results.reproduction import (
    ENOUGH_POWER,
    FALSE_ALARMS,
    NOISIEST,
    Reproducibility,
    draw_sample,
    judge,
    power,
    runs_needed,
)
from clbench.suite import load_suite

T, METRICS, TRIALS = 10, ("csd", "dino", "clip_t"), 2000
SEEN = np.tril(np.ones((T, T), dtype=bool))
GROWTH = 1.8
"""By this factor differences between two trainings grow with each task, on a noisy suite."""


def quiet(rng: np.random.Generator, rows: int) -> NDArray:
    """Differences of independent cells, (rows, T, T)."""
    return rng.normal(0, 1e-3, (rows, T, T))


def noisy(deviation: float):
    """Differences that grow with each task; `deviation` is that of one run's average score."""

    def draw(rng: np.random.Generator, rows: int) -> NDArray:
        # Half of a row's variance is common to its cells.
        grown = GROWTH ** (np.arange(T) - (T - 1.0))[:, None]
        own, common = rng.standard_normal((rows, T, T)), rng.standard_normal((rows, T, 1))
        scale = 2**0.5 * deviation / ((1 + 1 / T) / 2) ** 0.5
        return scale * grown * (own + common) / 2**0.5

    return draw


def reproducibility(draw) -> Reproducibility:
    """The true standard deviations of differences that `draw` makes."""
    drawn = np.where(SEEN, draw(np.random.default_rng(1), 20_000), np.nan)
    rows = np.nanmean(drawn, axis=2)
    return Reproducibility(
        cell=float(np.nanstd(drawn[:, -1])),
        early_rows=float(np.nanmean(drawn[:, :3] ** 2) ** 0.5),
        average_score=float(rows[:, -1].std()),
        run_mean=float(rows.mean(axis=1).std()),
    )


NOISES = {"quiet": quiet, "noisy, 0.02": noisy(0.02), "noisy, 0.04": noisy(0.04), "noisy, 0.06": noisy(0.06)}


def rejected(draw, own: Reproducibility, runs: int = 1, inflation: float = 0.0, first_row: int = 0) -> float:
    """The share of repetitions that fail a result whose scores are raised from a row on."""
    rng, failed = np.random.default_rng(0), 0
    raised = np.where(np.arange(T)[:, None] >= first_row, inflation, 0.0)
    for _ in range(TRIALS):
        whole = {metric: np.where(SEEN, draw(rng, runs) + raised, np.nan) for metric in METRICS}
        cells = {metric: draw(rng, 3)[:, -1, 0] + raised[-1, 0] for metric in METRICS}
        failed += not all(figure.holds for figure in judge(whole, cells, own))
    return failed / TRIALS


@pytest.mark.parametrize("noise", NOISES)
def test_of_honest_results_one_in_a_hundred_fails_and_of_inflated_ones_nineteen_in_twenty(noise):
    draw = NOISES[noise]
    own = reproducibility(draw)
    assert own.early_rows < 0.01
    assert rejected(draw, own) <= FALSE_ALARMS
    assert rejected(draw, own, inflation=0.05) >= ENOUGH_POWER
    assert rejected(draw, own, inflation=-0.05) >= ENOUGH_POWER
    assert runs_needed(own, 8, T, 3, len(METRICS)) == 1


def test_a_forger_who_leaves_the_early_rows_as_they_were_needs_more_runs_where_training_is_noisy():
    assert rejected(quiet, reproducibility(quiet), inflation=0.05, first_row=3) == 1
    draw = NOISES["noisy, 0.06"]
    own = reproducibility(draw)
    runs = runs_needed(own, 8, T, 3, len(METRICS), honest_start=True)
    assert runs
    assert runs > 1
    assert rejected(draw, own, runs) <= FALSE_ALARMS
    assert rejected(draw, own, runs, inflation=0.05, first_row=3) >= ENOUGH_POWER


def test_the_noisiest_method_needs_one_run_and_three_where_early_rows_are_honest():
    counts = 8, T, 3, len(METRICS)
    assert runs_needed(NOISIEST, *counts) == 1
    assert runs_needed(NOISIEST, *counts, honest_start=True) == 3
    hopeless = dataclasses.replace(NOISIEST, early_rows=0.2, run_mean=0.1)
    assert runs_needed(hopeless, *counts) is None


@pytest.mark.parametrize("noise", NOISES)
def test_the_largest_of_eight_measured_repetitions_serves_as_well(noise):
    rng, draw, failed, missed, trials = np.random.default_rng(4), NOISES[noise], 0, 0, 1000

    def holds(own: Reproducibility, inflation: float) -> bool:
        whole = {metric: np.where(SEEN, draw(rng, 1) + inflation, np.nan) for metric in METRICS}
        cells = {metric: draw(rng, 3)[:, -1, 0] + inflation for metric in METRICS}
        return all(figure.holds for figure in judge(whole, cells, own))

    for _ in range(trials):
        drawn = np.where(SEEN, draw(rng, 8), np.nan)
        rows = np.nanmean(drawn, axis=2)
        own = Reproducibility(
            cell=np.nanmax(np.abs(drawn)),
            early_rows=np.nanmean(drawn[:, :3] ** 2, axis=(1, 2)).max() ** 0.5,
            average_score=np.abs(rows[:, -1]).max(),
            run_mean=np.abs(rows.mean(axis=1)).max(),
        )
        failed += not holds(own, 0.0)
        missed += holds(own, 0.05)
    assert failed / trials <= FALSE_ALARMS
    assert missed / trials <= 1 - ENOUGH_POWER


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("inflation", [0.005, 0.02, 0.05])
def test_the_power_that_is_stated_is_a_lower_bound(noise, inflation):
    own = reproducibility(NOISES[noise])
    stated = power(own, 1, T, 3, len(METRICS), inflation)
    assert rejected(NOISES[noise], own, inflation=inflation) >= stated - 0.02


@pytest.mark.parametrize("method", ["naive", "merge_init", "magmax", "merge_ortho", "merge_ortho_products", "mine"])
def test_on_mini_v2_one_run_is_enough_for_every_method(method):
    own = Reproducibility.of(make_result(load_suite("mini-v2"), method=method))
    assert power(own, 1, T, 3, 3) > 0.999
    assert power(own, 1, T, 3, 3, honest_start=True) > 0.999


def test_a_method_is_judged_by_its_own_noise_and_an_unmeasured_one_by_the_noisiest():
    suite = load_suite("mini-v2")
    own, magmax, mine = (Reproducibility.of(make_result(suite, method=one)) for one in ("naive", "magmax", "mine"))
    assert own.cell < 1e-4
    assert own.floor == 0.001
    assert (mine.cell, mine.average_score) == (magmax.cell, magmax.average_score)
    assert "never measured" in mine.source
    assert Reproducibility.of(make_result(tiny_suite())) == NOISIEST


def test_a_record_may_say_how_steady_early_rows_and_means_over_rows_are(monkeypatch):
    known = on_record("mini-v2")
    assert known
    noise = Noise(base=0, cell={"a": 0.3, "b": 0.2}, average_score={"a": 0.1}, early_rows={"a": 0.01}, measured="here")
    monkeypatch.setattr(reproduction, "on_record", lambda suite: known.model_copy(update={"noise": noise}))
    own = Reproducibility.of(make_result(load_suite("mini-v2"), method="b"))
    assert (own.cell, own.early_rows, own.average_score, own.run_mean) == (0.2, 0.01, 0.1, 0.1)


# --- what is repeated ---


def test_whole_runs_and_last_cells_of_other_runs_are_drawn():
    sample = draw_sample(10, T, seed=3, whole=2, cells=4)
    assert len(sample.runs) == 2
    assert len(sample.cells) == 4
    assert not {run for run, _ in sample.cells} & set(sample.runs)
    assert sample == draw_sample(10, T, seed=3, whole=2, cells=4)
    assert draw_sample(1, 3, seed=0) == draw_sample(1, 3, seed=1, whole=5), "a single run is repeated as a whole"


def test_each_run_and_each_cell_is_drawn_as_often():
    samples = [draw_sample(10, T, seed) for seed in range(5000)]
    runs = np.bincount([sample.runs[0] for sample in samples])[1:]
    cells = np.bincount([(run - 1) * T + column for sample in samples for run, column in sample.cells])
    assert np.abs(runs / 500 - 1).max() < 0.2
    assert np.abs(cells / 150 - 1).max() < 0.4
