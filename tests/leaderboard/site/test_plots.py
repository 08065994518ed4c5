"""The plots, and the shades of the score matrices."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from clbench.leaderboard.site.drawing import axis, bytes_axis, place_labels, series
from clbench.leaderboard.site.heat import difference_shade, score_heat, score_shade
from clbench.leaderboard.site.plots import bytes_against, hotelling, pareto, ranks, scatter


@pytest.mark.parametrize("runs", [4, 8, 16])
def test_the_ellipse_reaches_as_far_as_hotellings_region(runs):
    from scipy.stats import f

    expected = 2 * (runs - 1) / (runs - 2) * f.ppf(0.95, 2, runs - 2)
    assert hotelling(runs) == pytest.approx(expected)


def test_the_pareto_front_has_the_points_that_none_beats():
    assert pareto([(0.0, 1.0), (0.5, 0.5), (0.4, 0.4), (1.0, 0.0), (0.5, 0.2)]) == [0, 1, 3]
    assert pareto([(0.5, 0.5), (0.5, 0.5)]) == [0, 1], "equal points share it"


@pytest.mark.parametrize("values", [(0.1, 0.4), (-0.37, 0.95), (0.5,), (0.0,), (0.1234, 0.1235), (-1.0, 1.0)])
def test_an_axis_holds_its_values_and_is_ticked_at_round_numbers(values):
    found = axis(values, 0, 100)
    assert found.low < min(values) <= max(values) < found.high
    assert 2 <= len(found.ticks) <= 8
    texts = [text.replace("−", "-") for _, text in found.ticks]
    assert len(set(texts)) == len(texts)
    for at, text in found.ticks:
        assert found.at(float(text.replace("−", "-"))) == at


def test_what_learns_more_is_further_right_and_what_keeps_more_further_up(styles):
    methods = styles.methods
    plot = scatter(methods, series([method.variant for method in methods]), "csd")
    assert plot is not None
    places = {}
    for dot, method in zip(plot.dots, methods, strict=True):
        learned, kept = (method.estimate("csd", name) for name in ("learned", "kept"))
        assert learned is not None
        assert kept is not None
        places[learned.spread.mean] = dot.x
        assert plot.box.y.at(kept.spread.mean) == dot.y
    assert all(places[a] < places[b] for a, b in pairwise(sorted(places)))
    assert plot.box.y.at(0.1) < plot.box.y.at(0.0), "what keeps more is further up, where y is smaller"


def test_smaller_states_are_further_left_on_a_logarithmic_axis_and_empty_ones_at_its_left_end():
    found = bytes_axis([0, 2_000, 20_000, 2_000_000], 0, 100)
    assert [text for _, text in found.ticks] == ["0", "1.0 kB", "10.0 kB", "100.0 kB", "1.0 MB"]
    places = [at for at, _ in found.ticks]
    assert places == sorted(places)
    steps = [b - a for a, b in pairwise(places[1:])]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    assert places[0] >= 0
    assert places[-1] <= 100


def test_bytes_are_set_against_what_ranks_and_the_front_has_no_bounds(styles):
    methods = [
        method
        if method.variant != "keeper"
        else replace(
            method,
            result=method.result.model_copy(
                update={"runs": tuple(run.model_copy(update={"regime": "bound"}) for run in method.result.runs)}
            ),
        )
        for method in styles.methods
    ]
    plot = bytes_against(methods, series([method.variant for method in methods]), "csd", "kept")
    assert plot is not None
    for dot, method in zip(plot.dots, methods, strict=True):
        estimate = method.estimate("csd", "kept")
        assert estimate is not None
        assert dot.y == plot.box.y.at(estimate.spread.mean)
        assert dot.interval == tuple(map(plot.box.y.at, estimate.interval or ()))
    by_size = sorted(zip(methods, plot.dots, strict=True), key=lambda pair: pair[0].state_bytes)
    assert [dot.x for _, dot in by_size] == sorted(dot.x for _, dot in by_size)
    assert "keeper" not in plot.on_front
    best = max((m for m in methods if not m.is_bound), key=lambda m: m.summary["csd"]["kept"].mean)  # pyright: ignore
    assert best.variant in plot.on_front


def test_of_many_methods_the_best_and_the_bounds_are_named():
    names = [f"m{n}" for n in range(20)]
    styles = series(names, {"m19"})
    assert [style.name for style in styles if style.is_named] == [*names[:14], "m19"]
    assert all(style.is_named for style in series(names[:14]))


def test_a_name_that_would_lie_over_another_has_no_room_and_takes_none():
    names = [f"method_{n}" for n in range(12)]
    *crowd, alone = place_labels(series(names), [(300.0, 200.0)] * 11 + [(100.0, 60.0)])
    shown = [label for label in crowd if label.has_room]
    assert 0 < len(shown) < 11
    assert alone.has_room
    assert len({(label.x, label.y) for label in shown}) == len(shown)


def test_the_rank_plot_has_the_boards_ranks_and_intervals_around_the_means(styles):
    methods, ranking = styles.methods, styles.ranking
    plot = ranks(methods, series([method.variant for method in methods]), "csd", styles.ranked_by, ranking)
    assert [span.rank for span in plot.spans] == [standing.rank for standing in ranking.standings]
    assert all(span.low <= span.x <= span.high for span in plot.spans)


def test_many_methods_are_told_apart_by_more_than_colour():
    styles = series([f"m{n}" for n in range(24)])
    assert len({(style.css, style.marker) for style in styles}) == 24


def test_a_score_that_rounds_to_zero_has_one_text_whichever_is_shown_first():
    for matrix in ([[-1e-5], [1e-5]], [[1e-5], [-1e-5]]):
        score_shade.cache_clear()
        heat = score_heat(np.array(matrix), "scores", (-1.0, 1.0))
        assert [row[0].text for _, row in heat.rows] == ["0.00", "0.00"]


def test_shades_run_from_the_lowest_to_the_highest_and_differences_both_ways():
    assert [score_shade(value, 0.0, 1.0).css for value in (0.0, 0.5, 1.0)] == ["h0", "h8", "h15"]
    assert score_shade(0.3, 0.3, 0.3).css == "h0"
    assert score_shade(None, 0.0, 1.0).text == ""
    assert [difference_shade(value, 0.5).css for value in (-0.5, -0.01, 0.0, 0.2, 0.5)] == [
        "n7",
        "d0",
        "d0",
        "p3",
        "p7",
    ]
    assert [difference_shade(value, 0.5).text for value in (-0.5, 0.25)] == ["−0.50", "+0.25"]
