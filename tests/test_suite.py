"""The definition: frozen, hashed, and shaped like the paper's."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from clbench.errors import ClbenchError
from clbench.files import folder_sha256
from clbench.miniworld.define import FILES, STYLE_TASKS, render_yaml
from clbench.miniworld.world import NAMED_STYLES, TOKEN_LOOKS, difference
from clbench.suite import Drawn, Images, content_root, list_suites, load_suite

MINI_V1 = "94015093206a1b115312c1a2d2a6557625a4274f486a4cb4cd9f4e8829db884b"
"""If this differs, mini-v1 was edited. Once it has results, make a new version instead."""

mini = load_suite("mini-v1")


def drawn(images: Images | None) -> Drawn:
    """Mini-v1's images, all of which are drawn."""
    assert isinstance(images, Drawn)
    return images


def test_mini_v1_is_the_definition_that_its_results_were_made_with():
    assert mini.sha256 == MINI_V1


def test_the_bundled_weights_are_the_ones_the_definition_names():
    folder = Path(__file__).parent.parent / "clbench" / "miniworld" / "weights"
    for weights in (mini.backbone, *mini.encoders.values()):
        assert folder_sha256(folder / weights.source.removeprefix("bundled:")) == weights.sha256


def test_the_bundled_weights_take_at_most_20_megabytes():
    folder = Path(__file__).parent.parent / "clbench" / "miniworld" / "weights"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 20_000_000


@pytest.mark.parametrize("name", FILES)
def test_the_task_lists_are_what_their_generator_writes(name: str):
    make, about = FILES[name]
    assert (content_root() / "tasks" / name).read_text() == render_yaml(make(), about)


@pytest.mark.parametrize("track", mini.tracks.values(), ids=lambda track: track.name)
def test_orders_are_the_papers_shuffles(track):
    assert list(track.orders) == ["0", "5", "10", "42"]
    for name, order in track.orders.items():
        expected = list(range(10))
        random.Random(int(name)).shuffle(expected)
        assert list(order) == expected


def test_the_protocol_has_the_papers_shape():
    assert mini.seeds == (0, 5)
    for track in mini.tracks.values():
        assert len(track.tasks) == 10
        assert len(track.eval_prompt_templates) == len(track.content_prompt_templates) == 5
        for task in track.tasks:
            assert len(drawn(task.train).shapes) == 5
            assert len(drawn(task.real).shapes) == 5 * mini.sampling.images_per_prompt
    assert mini.training.targets == ("to_q", "to_k", "to_v", "to_out.0")


def test_every_style_is_learned_from_one_object_and_judged_on_others():
    track = mini.track("styles")
    for task in track.tasks:
        trained = {STYLE_TASKS[task.name]}
        assert set(drawn(task.train).shapes) == trained
        assert not trained & set(drawn(task.reference).shapes)
        assert not trained & set(drawn(task.real).shapes)


def test_every_task_shows_a_look_the_base_model_has_never_seen():
    known = [*NAMED_STYLES.values(), *TOKEN_LOOKS.values()]
    for track in mini.tracks.values():
        for task in track.tasks:
            own = drawn(task.train).look
            assert all(look.keys() != own.keys() or difference(own, look) for look in known)
            assert own == drawn(task.reference).look == drawn(task.real).look


def test_prompts_are_the_protocols_strings():
    objects, styles = mini.track("objects"), mini.track("styles")
    assert objects.train_prompt(objects.tasks[1]) == "a photo of zwz boot"
    assert objects.eval_prompts(objects.tasks[1])[0] == "a zwz boot in the snow"
    assert styles.train_prompt(styles.tasks[1]) == "palette knife image of star"
    assert styles.content_prompts(styles.tasks[1])[0] == "image of a boot"


def test_an_unknown_suite_or_track_or_order_is_named_with_a_suggestion():
    with pytest.raises(ClbenchError, match="did you mean 'mini-v1'"):
        load_suite("mini-v2")
    with pytest.raises(ClbenchError, match="did you mean 'styles'"):
        mini.track("style")
    with pytest.raises(ClbenchError, match="no order '7'"):
        mini.track("styles").ordered("7")
    assert "mini-v1" in list_suites()


@pytest.mark.parametrize(
    ("line", "replacement", "expected"),
    [
        ("rank: 8", "rank: none", "training.rank"),
        ("seeds: [0, 5]", "seeds: [0, 5]\nsurprise: 1", "surprise"),
        ('"42": [7, 3,', '"42": [3, 3,', "not a permutation"),
        ("tracks:", "tracks: [", "cannot read"),
    ],
)
def test_a_broken_definition_is_refused_with_file_and_field(tmp_path, monkeypatch, line, replacement, expected):
    for folder in ("benchmark/mini-v1", "tasks"):
        (tmp_path / folder).mkdir(parents=True)
    for path in (content_root() / "tasks").glob("*.yaml"):
        (tmp_path / "tasks" / path.name).write_text(path.read_text())
    text = (content_root() / "benchmark/mini-v1/suite.yaml").read_text()
    assert line in text
    (tmp_path / "benchmark/mini-v1/suite.yaml").write_text(text.replace(line, replacement, 1))
    monkeypatch.setattr("clbench.suite.content_root", lambda: tmp_path)
    with pytest.raises(ClbenchError, match=re.escape("suite.yaml")) as error:
        load_suite("mini-v1")
    assert expected in str(error.value)
