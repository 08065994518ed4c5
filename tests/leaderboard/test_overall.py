"""A suite's tracks together: the mean Kept, with intervals and ranks over the orders that the tracks share."""

import csv
import io

import numpy as np
import pytest
from boards import LEVELS, load, submit, submitted
from builders import make_result
from scipy import stats

from clbench.leaderboard import make_boards, read_submissions, write_tables
from clbench.leaderboard.overall import overall, overall_table


def test_overall_is_the_mean_kept_over_tracks_and_headline_metrics(tmp_path):
    methods = submitted(tmp_path)
    found = overall(make_boards(methods, load=load))
    assert found is not None
    assert found.columns == (("styles", "csd"), ("styles", "dino"), ("objects", "clip_i"), ("objects", "dino"))
    [best, *_] = found.ranking.standings
    assert best.method == "merge_init"
    assert [one.method for one in found.ranking.standings] == sorted(LEVELS, key=lambda name: -LEVELS[name])
    own = [method for method in methods if method.variant == "merge_init"]
    means = [method.statistics[metric]["kept"].mean() for method in own for metric in method.track.headline_metrics]
    assert best.mean == pytest.approx(np.mean(means))
    row = overall_table(found).rows[0]
    orders = found.kept["merge_init"].mean(axis=0)
    low, high = stats.t.interval(0.95, len(orders) - 1, orders.mean(), stats.sem(orders))
    assert row[3].note == f"{100 * low:.0f} % to {100 * high:.0f} %"


def test_a_variant_that_lacks_a_track_or_is_two_configurations_is_not_in_it(tmp_path):
    methods = submitted(tmp_path)
    suite = load("tiny")
    submit(make_result(suite, "styles", "lone", seed=8), tmp_path)
    for track, strength in (("styles", 1.0), ("objects", 2.0)):
        submit(make_result(suite, track, "torn", seed=9, settings={"strength": strength}), tmp_path)
    found = overall(make_boards(read_submissions(tmp_path, load), load=load))
    assert found is not None
    assert found.kept.keys() == {method.variant for method in methods}


def test_one_method_or_one_track_makes_no_overall_table(tmp_path):
    [method] = [one for one in submitted(tmp_path) if one.variant == "naive" and one.track.name == "styles"]
    assert overall(make_boards([method], load=load)) is None


def test_the_page_and_its_csv_say_the_same(tmp_path):
    boards = make_boards(submitted(tmp_path / "in"), load=load)
    write_tables(boards, tmp_path / "out")
    page = (tmp_path / "out/tiny/overall.md").read_text()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/tiny/overall.csv").read_text())))
    assert [row["Variant"] for row in rows] == sorted(LEVELS, key=lambda name: -LEVELS[name])
    for row in rows:
        assert f"| `{row['Variant']}`" in page
        assert row["Overall kept ↑"] in page
        assert row["Overall kept ↑ note"] in page
