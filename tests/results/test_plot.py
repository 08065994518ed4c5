"""The figure of a result: numbers as in its matrices, no state outside it, and shown by notebooks."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_result, tiny_suite
from paths import ROOT

from clbench.errors import ClbenchError
from clbench.results.io import load_result
from clbench.results.schema import Result

SUITE = tiny_suite()
GOOD = make_result(SUITE)
PARTIAL = make_result(SUITE, quick=True)
PNG = b"\x89PNG\r\n\x1a\n"


def drawn(result: Result) -> Any:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    return result.plot()


def test_the_figure_has_each_metrics_mean_matrix_with_its_numbers():
    figure = drawn(GOOD)
    assert figure.get_suptitle() == "naive on styles of tiny: 4 runs"
    heatmaps = figure.axes[::2]
    assert [axes.get_title() for axes in heatmaps] == [f"{name}: score matrix" for name in ("CSD", "DINO", "CLIP-T")]
    for axes, metric in zip(heatmaps, ("csd", "dino", "clip_t"), strict=True):
        matrix = GOOD.matrix(metric)
        numbers = {text.get_position(): text.get_text() for text in axes.texts}
        known = np.argwhere(np.isfinite(matrix)).tolist()
        assert numbers == {(column, row): f"{matrix[row, column]:.2f}" for row, column in known}


def test_the_curve_is_the_mean_score_k_tasks_after_learning_with_a_band_over_runs():
    axes = drawn(GOOD).axes[1]
    means = [[np.mean([run.matrix("csd")[j + 1 + k, j] for j in range(3 - k)]) for k in range(3)] for run in GOOD.runs]
    curve, base = axes.lines
    assert curve.get_xdata() == pytest.approx([0, 1, 2])
    assert curve.get_ydata() == pytest.approx(np.mean(means, axis=0))
    assert base.get_ydata() == pytest.approx([np.mean([run.matrix("csd")[0] for run in GOOD.runs])] * 2)
    [band] = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    mean, std = np.mean(means, axis=0), np.std(means, axis=0, ddof=1)
    low, high = mean - std, mean + std
    assert (heights.min(), heights.max()) == pytest.approx((low.min(), high.max()))


def test_one_run_has_its_tasks_names_and_no_band():
    heatmap, curve, *_ = drawn(PARTIAL).axes
    assert [label.get_text() for label in heatmap.get_xticklabels()] == ["1 winter", "2 byzantine", "3 ink art"]
    assert not curve.collections


def test_a_dollar_in_a_name_starts_no_formula_and_a_long_name_is_cut():
    names = ("$\\frac{1$", "$x$", "n" * 4000)
    run = PARTIAL.runs[0].model_copy(update={"task_order": names})
    figure = drawn(PARTIAL.model_copy(update={"runs": (run,)}))
    assert figure._repr_png_().startswith(PNG)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["1 $\\frac{1$", "2 $x$", "3 " + "n" * 16]


def test_the_figure_can_be_saved_and_needs_no_pyplot(tmp_path: Path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    script = (
        "import sys; from pathlib import Path; from clbench import load_result\n"
        "load_result(Path(sys.argv[1])).plot().savefig(sys.argv[2])\n"
        "assert not {'matplotlib.pyplot', 'pandas', 'torch'} & sys.modules.keys()"
    )
    path = ROOT / "submissions/mini-v2/styles/merge_init.json"
    subprocess.run([sys.executable, "-c", script, str(path), str(tmp_path / "result.png")], check=True)
    assert (tmp_path / "result.png").read_bytes().startswith(PNG)


def test_a_notebook_shows_the_figure_as_a_picture_and_the_result_as_a_table():
    formatters = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed")
    formatter = formatters.DisplayFormatter()
    shown, _ = formatter.format(GOOD)
    assert shown["text/html"] == GOOD._repr_html_()
    assert shown["text/plain"] == repr(GOOD)
    shown, _ = formatter.format(drawn(GOOD))
    assert shown["image/png"].startswith(PNG)


@pytest.mark.parametrize("path", sorted((ROOT / "submissions").glob("*/*/*.json")), ids=lambda path: path.stem)
def test_every_submission_can_be_drawn(path: Path):
    assert len(drawn(load_result(path)).axes) in (4, 6)


def test_without_matplotlib_the_figure_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "clbench.results.plot", raising=False)
    with pytest.raises(ClbenchError, match=r"matplotlib is not installed; .* `pip install 'clbench\[plot\]'`$"):
        GOOD.plot()
