"""The definitions: frozen, hashed, balanced; and the suite to tune on has other tasks than the protocol's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise, permutations
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from paths import ROOT
from tiny_sdxl import write_suite

from clbench.errors import ClbenchError
from clbench.miniworld.world import count_differences, named_styles, token_looks
from clbench.results.io import load_result
from clbench.runner import mini_suites
from clbench.suite import DrawnImages, Images, PhotoImages, Suite, Task, content_root, list_suites, load_suite
from clbench.utils.files import folder_sha256

MINI_V2 = "5e40292dc0c6b2daa3691a5865351cbb058ac6f9dffe2ffce077837740e97164"
MINI_V2_DEV = "b9e32fa9d3dc221ca88614e91cba4c7336731ed0675e49dfe12b5b7a847f36e6"
"""If one of these differs, that suite was edited. Once it has results, make a new version instead."""

mini, dev = load_suite("mini-v2"), load_suite("mini-v2-dev")
SUITES = pytest.mark.parametrize("suite", [mini, dev], ids=lambda suite: suite.name)
TRACKS = pytest.mark.parametrize(
    ("suite", "track"),
    [pytest.param(suite, track, id=f"{suite.name}-{track}") for suite in (mini, dev) for track in suite.tracks],
)


def drawn(images: Images | None) -> DrawnImages:
    """The images of a bundled suite, all of which are drawn."""
    assert isinstance(images, DrawnImages)
    return images


def tasks_of(suite: Suite) -> list[Task]:
    return [task for track in suite.tracks.values() for task in track.tasks]


# --- what is frozen ---


@pytest.mark.parametrize(("suite", "sha256"), [(mini, MINI_V2), (dev, MINI_V2_DEV)], ids=["mini-v2", "mini-v2-dev"])
def test_a_suite_is_the_definition_that_its_results_were_made_with(suite: Suite, sha256: str):
    assert suite.sha256 == sha256


@SUITES
def test_the_bundled_weights_are_the_ones_the_definition_names(suite: Suite):
    folder = ROOT / "clbench" / "miniworld" / "weights"
    for weights in (suite.backbone, *suite.encoders.values()):
        assert folder_sha256(folder / weights.source.removeprefix("bundled:")) == weights.sha256


def test_the_bundled_weights_take_at_most_40_megabytes():
    folder = ROOT / "clbench" / "miniworld" / "weights"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 40_000_000


# --- orders and seeds ---


@TRACKS
def test_orders_are_balanced_for_position_and_for_neighbours(suite: Suite, track: str):
    """Over the ten orders, each task is once at each position and once right before each other task."""
    orders = list(suite.track(track).orders.values())
    assert len(orders) == 10
    for at_one_position in zip(*orders, strict=True):
        assert sorted(at_one_position) == list(range(10))
    neighbours = [pair for order in orders for pair in pairwise(order)]
    assert sorted(neighbours) == sorted(permutations(range(10), 2))


@TRACKS
def test_orders_are_what_their_generator_makes(suite: Suite, track: str):
    orders, seed = suite.track(track).orders, {"mini-v2": 0, "mini-v2-dev": 1}[suite.name]
    assert list(orders) == [str(number) for number in range(10)]
    assert [list(order) for order in orders.values()] == mini_suites.williams_square(10, seed)


@pytest.mark.parametrize("count", [2, 4, 10, 16])
def test_a_williams_square_of_an_even_number_is_balanced(count: int):
    square = mini_suites.williams_square(count, seed=3)
    for line in (*square, *zip(*square, strict=True)):
        assert sorted(line) == list(range(count))
    assert sorted(pair for order in square for pair in pairwise(order)) == sorted(permutations(range(count), 2))
    assert mini_suites.williams_square(count, seed=3) == square
    assert count == 2 or mini_suites.williams_square(count, seed=4) != square


def test_a_williams_square_of_an_odd_number_is_refused():
    with pytest.raises(ValueError, match="even number of tasks, not 3"):
        mini_suites.williams_square(3, seed=0)


@TRACKS
def test_each_order_has_one_training_seed_of_its_own(suite: Suite, track: str):
    assert suite.seeds is None
    runs = suite.runs(track)
    assert [order for order, _ in runs] == list(suite.track(track).orders)
    assert len({seed for _, seed in runs}) == len(runs) == 10


def test_a_suite_with_one_list_of_seeds_has_a_run_for_each_order_and_seed():
    sdxl = load_suite("sdxl-v1")
    assert len(sdxl.seeds or ()) == 2
    assert sdxl.runs("styles") == [(order, seed) for order in sdxl.track("styles").orders for seed in sdxl.seeds or ()]
    assert len(sdxl.runs("styles")) == 8


# --- tasks and prompts ---


@SUITES
def test_a_suite_has_the_papers_shape(suite: Suite):
    for track in suite.tracks.values():
        assert len(track.tasks) == 10
        assert len(track.eval_prompt_templates) == len(track.content_prompt_templates) == 5
        for task in track.tasks:
            assert len(drawn(task.train).shapes) == 5
            assert len(drawn(task.reference).shapes) == {"styles": 10, "objects": 5}[track.name]
            assert len(drawn(task.real).shapes) == 5 * suite.sampling.images_per_prompt


@SUITES
def test_adapters_are_on_cross_attention_and_batches_are_balanced(suite: Suite):
    training = suite.training
    assert training.targets == ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
    assert training.balanced_batches
    assert training.stratified_timesteps
    for task in tasks_of(suite):
        assert training.batch_size % len(drawn(task.train).shapes) == 0, "each image as often as the others"


@SUITES
def test_every_style_is_learned_from_one_object_and_judged_on_others(suite: Suite):
    for task in suite.track("styles").tasks:
        trained = {task.fields["object"]}
        assert set(drawn(task.train).shapes) == trained
        assert not trained & set(drawn(task.reference).shapes)
        assert not trained & set(drawn(task.real).shapes)
        assert not drawn(task.train).scenes


@SUITES
def test_every_object_is_learned_in_some_scenes_and_drawn_in_others(suite: Suite):
    track = suite.track("objects")
    for task in track.tasks:
        train, real = drawn(task.train), drawn(task.real)
        assert {*train.shapes, *real.shapes} == {task.fields["class"]}
        assert not set(train.scenes) & set(real.scenes)
        asked = [prompt.rpartition(" ")[2] for prompt in track.eval_prompts(task)]
        assert list(real.scenes) == [scene for scene in asked for _ in range(suite.sampling.images_per_prompt)]


@SUITES
def test_every_task_shows_a_look_the_base_model_has_never_seen(suite: Suite):
    known = [*named_styles().values(), *token_looks().values()]
    for task in tasks_of(suite):
        own = drawn(task.train).look
        assert all(look.keys() != own.keys() or count_differences(own, look) for look in known)
        assert own == drawn(task.reference).look == drawn(task.real).look


@SUITES
def test_a_tasks_look_is_another_rendition_of_its_names_look(suite: Suite):
    """Nine tenths of the factors are replaced: 8 of a style's nine, 4 of an object's five."""
    for task in suite.track("styles").tasks:
        assert count_differences(drawn(task.train).look, named_styles()[task.fields["style"]]) == 8
    for task in suite.track("objects").tasks:
        assert count_differences(drawn(task.train).look, token_looks()[task.fields["token"]]) == 4


def test_prompts_are_the_protocols_strings():
    objects, styles = mini.track("objects"), mini.track("styles")
    assert objects.train_prompt(objects.tasks[1]) == "a photo of zwz boot"
    assert objects.eval_prompts(objects.tasks[1])[0] == "a zwz boot in the snow"
    assert styles.train_prompt(styles.tasks[1]) == "palette knife image of star"
    assert styles.content_prompts(styles.tasks[1])[0] == "image of a boot"


# --- the looks are chosen by a rule that asks the base model alone ---


@pytest.mark.parametrize("track", mini.tracks)
def test_the_base_model_hardly_knows_any_task(track: str):
    """In each headline metric of a verified result it has at most 15 % of the way from 0 to real images."""
    result = load_result(ROOT / "submissions" / "mini-v2" / track / "naive.json")
    run, real = result.runs[0], result.controls.real_against_real
    for metric in mini.track(track).headline_metrics:
        best = dict(zip(mini.track(track).task_names, real[metric], strict=True))
        for task, base in zip(run.task_order, run.scores[metric][0], strict=True):
            assert base is not None
            assert -0.05 - 1e-4 <= base / best[task] <= 0.15 + 1e-4, f"{metric} of {task}"


@pytest.mark.long
@TRACKS
def test_the_task_lists_are_what_their_generator_writes(suite: Suite, track: str):
    """So each look is the first candidate that the bundled base model hardly knows."""
    text = mini_suites.render_yaml(mini_suites.tasks_of(suite.name, track), f"The ten {track} of {suite.name}.")
    assert (content_root() / "tasks" / f"{suite.name}-{track}.yaml").read_text() == text


BENCH: Any = SimpleNamespace(track=SimpleNamespace(tasks=[SimpleNamespace(name="winter")]))


@pytest.mark.parametrize(
    ("shares", "chosen"),
    [
        ([{"csd": 0.1, "dino": 0.1}], 0),
        ([{"csd": 0.5, "dino": 0.1}, {"csd": 0.1, "dino": 0.5}, {"csd": 0.15, "dino": -0.05}], 2),
        ([{"csd": -0.06, "dino": 0.1}, {"csd": 0.0, "dino": 0.0}, {"csd": 0.0, "dino": 0.0}], 1),
    ],
)
def test_the_first_look_that_the_base_model_hardly_knows_in_any_metric_is_chosen(shares, chosen, monkeypatch):
    monkeypatch.setattr(mini_suites, "known_shares", lambda *_: iter(shares))
    assert mini_suites.choose_candidate(BENCH, mini_suites.SOURCES["mini-v2"], 0) == chosen


def test_where_the_base_model_knows_every_look_the_task_is_named(monkeypatch):
    monkeypatch.setattr(mini_suites, "known_shares", lambda *_: iter([{"csd": 0.5}, {"csd": 0.16}]))
    with pytest.raises(ValueError, match="every candidate of 'winter'"):
        mini_suites.choose_candidate(BENCH, mini_suites.SOURCES["mini-v2"], 0)


# --- the suite to tune on ---


def names_of(suite: Suite) -> set[str]:
    """The names that tasks go by and that their prompts use."""
    tasks = tasks_of(suite)
    words = [task.fields[key] for task in tasks for key in ("style", "token") if key in task.fields]
    return {*words, *(task.name for task in tasks)}


def looks_of(suite: Suite) -> list[dict[str, str]]:
    return [drawn(task.train).look for task in tasks_of(suite)]


def picture_seeds(suite: Suite) -> Iterator[int]:
    for task in tasks_of(suite):
        yield from {drawn(images).seed for images in (task.train, task.reference, task.real)}


def test_no_two_tasks_share_a_name_a_look_or_a_seed_of_pictures():
    tasks = [*tasks_of(mini), *tasks_of(dev)]
    looks = [*looks_of(mini), *looks_of(dev)]
    seeds = [*picture_seeds(mini), *picture_seeds(dev)]
    assert len({task.name for task in tasks}) == len(tasks) == 40
    assert len({tuple(sorted(look.items())) for look in looks}) == 40
    assert len(set(seeds)) == len(seeds)


def test_the_suite_to_tune_on_shares_no_name_class_training_seed_or_order_with_the_protocols():
    assert not names_of(mini) & names_of(dev)
    classes = [{task.fields["class"] for task in suite.track("objects").tasks} for suite in (mini, dev)]
    assert not classes[0] & classes[1]
    for track in mini.tracks:
        ours, theirs = mini.track(track), dev.track(track)
        assert not set((ours.seeds or {}).values()) & set((theirs.seeds or {}).values())
        assert not set(ours.orders.values()) & set(theirs.orders.values())


def test_the_suite_to_tune_on_is_like_the_protocols_in_everything_else():
    def rest(suite: Suite) -> dict[str, Any]:
        own = suite.model_dump(exclude={"name", "version_reason", "for_development"})
        for track in own["tracks"].values():
            for key in ("tasks", "orders", "seeds"):
                del track[key]
            for key in ("score_next_task", "leak_prompt_templates", "drift"):  # no method is tuned for them
                del track[key]
        return own

    assert rest(mini) == rest(dev)
    assert {"backbone", "encoders", "training", "sampling", "resolution", "version"} <= set(rest(mini))
    assert set(rest(mini)["tracks"]["styles"]) >= {"train_prompt_template", "eval_prompt_templates", "metrics"}


# --- reading a definition ---


def test_an_unknown_suite_or_track_or_order_is_named_with_a_suggestion():
    with pytest.raises(ClbenchError, match="did you mean 'mini-v2'"):
        load_suite("mini-v3")
    with pytest.raises(ClbenchError, match="did you mean 'styles'"):
        mini.track("style")
    with pytest.raises(ClbenchError, match="no order '10'"):
        mini.track("styles").ordered("10")
    assert {"mini-v2", "mini-v2-dev"} <= set(list_suites())


@pytest.mark.parametrize(
    ("line", "replacement", "expected"),
    [
        ("rank: 32", "rank: none", "training.rank"),
        ("sampling:\n", "surprise: 1\nsampling:\n", "surprise"),
        ('"9": [7, 6,', '"9": [7, 7,', "not a permutation"),
        ("tracks:", "tracks: [", "cannot read"),
        ("    seeds: *seeds\n", "", "neither the suite nor track styles names training seeds"),
        (', "9": 9}', "}", "the seeds of track objects do not name exactly its orders"),
        (', "9": 9}', ', "9": 9, "10": 10}', "the seeds of track objects do not name exactly its orders"),
    ],
)
def test_a_broken_definition_is_refused_with_file_and_field(tmp_path, line, replacement, expected):
    text = (content_root() / "benchmark/mini-v2/suite.yaml").read_text()
    assert line in text
    (tmp_path / "suite.yaml").write_text(text.replace(line, replacement, 1))
    with pytest.raises(ClbenchError, match=re.escape("suite.yaml")) as error:
        load_suite(str(tmp_path))
    assert expected in str(error.value)


@pytest.mark.parametrize("file", ["../x.jpg", "/etc/passwd", "a/../../x.jpg"])
def test_photos_stay_inside_their_data_set(file):
    with pytest.raises(ValueError, match="does not lie below"):
        PhotoImages(dataset="a", files=(file,))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "my cats"}, "name"),
        ({"metrics": ["csd", "dyno"]}, "did you mean 'dino'"),
        ({"train_prompt_template": "a {stile} image"}, "cannot be made of"),
        ({"orders": {"0": [0]}}, "not a permutation"),
        ({"datasets": {}}, "not in datasets"),
        ({"encoders": {}}, "not in encoders"),
    ],
)
def test_a_broken_suite_of_ones_own_is_refused_with_file_and_reason(change, sentence, tmp_path):
    folder = write_suite(tmp_path / "mine")
    suite = yaml.safe_load((folder / "suite.yaml").read_text())
    for key, value in change.items():
        (suite if key in suite else suite["tracks"]["styles"])[key] = value
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(ClbenchError) as caught:
        load_suite(str(folder))
    assert str(folder / "suite.yaml") in str(caught.value)
    assert sentence in str(caught.value)
