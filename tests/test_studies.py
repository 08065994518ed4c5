"""The studies: mini-v2's measure of agreement, and how it changes settings; the tables of the findings."""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT
from scipy import stats

from clbench.leaderboard.published import load_published
from clbench.plugins import list_methods
from clbench.suite import load_suite


def loaded(name: str) -> Any:
    """A study, which is a script."""
    spec = importlib.util.spec_from_file_location(f"{name}_study", ROOT / "benchmark" / "studies" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


study, findings = loaded("mini_v2"), loaded("findings")

PAIRS = list(itertools.combinations(study.PAPER, 2))
distinct = st.lists(st.integers(-50, 50), min_size=4, max_size=4, unique=True)


def named(values):
    return dict(zip(study.PAPER, map(float, values), strict=True))


@given(ours=distinct, paper=distinct)
def test_tau_over_all_pairs_and_its_chance_are_kendalls(ours, paper):
    expected: Any = stats.kendalltau(ours, paper, method="exact", alternative="greater")
    assert study.tau(named(ours), named(paper), PAIRS) == pytest.approx(expected.statistic)
    assert study.chance_of(named(ours), named(paper), PAIRS) == pytest.approx(expected.pvalue)


def test_tau_over_some_pairs_asks_for_those_alone():
    ours, paper = named([1, 2, 3, 4]), named([1, 2, 4, 3])
    assert study.tau(ours, paper, PAIRS[:-1]) == 1
    assert study.tau(ours, paper, PAIRS) == pytest.approx(4 / 6)


def test_what_the_paper_separates_is_read_off_its_tables():
    found = study.published(load_published()["sdxl-v1"].tracks["styles"], "csd")
    assert found["score"]["merge_init"] == (0.385, 0.019)
    assert found["best since learned"]["naive"][0] == pytest.approx(0.345 + 0.184)


def test_a_changed_setting_is_all_that_differs_from_the_development_suite(tmp_path):
    changed = load_suite(str(study.changed_suite(["training.rank=4", "sampling.guidance_scale=3"], tmp_path)))
    original = load_suite("mini-v2-dev")
    assert (changed.training.rank, changed.sampling.guidance_scale) == (4, 3)
    put_back = {
        "name": original.name,
        "training": original.training,
        "sampling": original.sampling,
    }
    assert changed.model_copy(update=put_back).model_dump() == original.model_dump()


def test_an_interval_is_students_over_the_orders():
    values = np.array([0.1, 0.3, 0.2, 0.4])
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert study.interval(values) == f"0.250 ± {(high - low) / 2:.3f}"


def test_the_tables_of_the_findings_and_of_the_readme_are_what_the_submitted_results_give():
    found, tables = findings.boards(), ("all", "bytes", "bytes_of_weights", "claims", "tuned")
    for page, places in zip(findings.PAGES, (tables, ("best",)), strict=True):
        text = page.read_text()
        assert tuple(re.findall("^<!-- (?!end)(.*) -->$", text, re.MULTILINE)) == places
        assert findings.filled(text, found) == text, "run `python benchmark/studies/findings.py`"


def test_a_method_seen_on_one_track_alone_stands_where_its_published_settings_put_it_on_the_other():
    found = findings.boards()
    kept = [
        {one.variant: one.estimate(board.metrics[0].name, "kept").spread.mean for one in board.methods}
        for board in found
    ]
    ranked = {one.variant: one.result.method.name for board in found for one in board.methods if not one.is_bound}
    rows = re.findall(r"^\| `(\w+)`", findings.filled("<!-- all -->\n<!-- end -->", found), re.MULTILINE)
    rows = [variant for variant in rows if variant in ranked]
    assert any(variant not in track for track in kept for variant in rows)
    means = [np.mean([track.get(variant, track[ranked[variant]]) for track in kept]) for variant in rows]
    assert len(means) == len(ranked)
    assert means == sorted(means, reverse=True)


def test_each_claim_names_methods_and_a_paper_and_is_made_once():
    known = set(list_methods())
    for claim in findings.CLAIMS:
        assert {claim.better, claim.worse} <= known
        assert list_methods()[claim.better].arxiv in (claim.arxiv, ""), "the paper's own methods do not say it yet"
    assert len({(claim.better, claim.worse) for claim in findings.CLAIMS}) == len(findings.CLAIMS)
