"""A run's model goes to the hub with a card that the hub can read, and whose texts stay texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import CLBENCH, clbench, execute, refusal
from hub import TOKEN, Hub
from huggingface_hub import HfApi, ModelCard, constants
from markdown_it import MarkdownIt
from safetensors.torch import load_file
from tiny_sdxl import plain_pipeline, write_suite

from clbench.errors import ClbenchError, WorkFailed
from clbench.leaderboard.model_card import PushedLora, model_card
from clbench.protocol.rows import Row
from clbench.protocol.task_sequence import TaskSequence
from clbench.results.io import load_result
from clbench.results.validation import load_valid
from clbench.runner import harness, push
from clbench.runner.reopen import reopen
from clbench.suite import load_suite

BASE = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.fixture(scope="module")
def pushed(world, tmp_path_factory):
    """A short suite of two tasks, run by a method that merges."""
    folder = tmp_path_factory.mktemp("pushed")
    write_suite(folder / "short")
    suite = yaml.safe_load((folder / "short" / "suite.yaml").read_text())
    tasks = yaml.safe_load((folder / "short" / "objects.yaml").read_text())["tasks"][:2]
    (folder / "short" / "objects.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    suite["seeds"] = [0]
    suite["tracks"] = {"objects": suite["tracks"]["objects"] | {"orders": {"0": [1, 0]}}}
    (folder / "short" / "suite.yaml").write_text(yaml.safe_dump(suite))
    options = {"quick": True, "device": "cpu", "workers": 1, "data_root": world, "output": folder / "runs"}
    options["keep"] = ("states", "images")
    harness.run("merge_init", "objects", str(folder / "short"), **options)
    return folder


@pytest.fixture
def hub(monkeypatch):
    hub = Hub({})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.server.shutdown()


def words(pushed, world, repo: str, *more: Any) -> list[Any]:
    """`clbench push` of the run."""
    result = pushed / "runs" / "short" / "objects" / "merge_init.json"
    return ["push", result, repo, "--suite", pushed / "short", "--data-root", world, *more]


@pytest.mark.long
def test_a_push_creates_a_repository_with_lora_card_images_and_result(pushed, world, hub, tmp_path):
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    settings |= {"no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
    told = execute(CLBENCH, *words(pushed, world, "me/cats", "--private"), env=settings)
    assert f"pushed to {hub.url}/me/cats" in told.stdout
    assert hub.private == {"model:me/cats"}
    files = hub.repositories["model:me/cats"][1]
    images = {"images/01.png", "images/02.png"}
    assert files.keys() == {"README.md", "result.json", "pytorch_lora_weights.safetensors", *images}
    (tmp_path / "result.json").write_bytes(files["result.json"])
    result = load_result(pushed / "runs" / "short" / "objects" / "merge_init.json")
    assert load_result(tmp_path / "result.json") == result

    data: Any = ModelCard(files["README.md"].decode()).data
    assert (data.base_model, data.library_name, data["license"]) == (BASE, "diffusers", "openrail++")
    track = load_suite(str(pushed / "short")).track("objects")
    first, last = track.ordered("0")
    assert data["instance_prompt"] == track.train_prompt(last)
    assert {"lora", "text-to-image", "stable-diffusion-xl"} <= set(data.tags)
    prompts = [track.eval_prompts(first)[0], track.eval_prompts(last)[1]]
    assert [(one["text"], one["output"]["url"]) for one in data["widget"]] == list(
        zip(prompts, sorted(images), strict=True)
    )
    kept = next(one for one in data.eval_results if one.metric_type == "dino.kept")
    spread = result.summary["dino"]["kept"]
    assert spread
    assert kept.metric_value == pytest.approx(spread.mean)
    assert kept.dataset_name == "short objects"


def test_a_dry_run_writes_what_diffusers_loads(pushed, world, tmp_path):
    dry = words(pushed, world, "me/cats", "--dry-run", "--task", "1")
    assert "wrote push" in clbench(*dry, cwd=tmp_path)
    assert "that learned 1 task" in (tmp_path / "push" / "README.md").read_text()
    pipeline = plain_pipeline(world)
    pipeline.load_lora_weights(tmp_path / "push")
    factors = load_file(tmp_path / "push" / "pytorch_lora_weights.safetensors")
    name = next(name for name in factors if ".lora_A." in name)
    layer = pipeline.unet.get_submodule(name.removeprefix("unet.").removesuffix(".lora_A.weight"))
    change = factors[name.replace("lora_A", "lora_B")] @ factors[name]
    torch.testing.assert_close(layer.get_delta_weight("default_0"), change)
    assert "push exists" in refusal(*dry, cwd=tmp_path)


@pytest.mark.parametrize(
    ("repo", "says"),
    [
        ("cats", "'cats' does not say whose repository it is"),
        ("a b/c", "'a b/c' is not the name of a hub repository"),
    ],
)
def test_a_name_that_is_none_is_refused(pushed, world, tmp_path, repo, says):
    assert says in refusal(*words(pushed, world, repo, "--dry-run", "--to", tmp_path / "folder"))


def test_a_model_without_a_known_licence_needs_one(pushed):
    suite = load_suite(str(pushed / "short"))
    suite = suite.model_copy(update={"backbone": suite.backbone.model_copy(update={"source": "hub:me/base"})})
    with pytest.raises(ClbenchError, match="--licence, as the hub names it"):
        push.check_request(push.PushRequest("me/cats"), suite)
    assert push.check_request(push.PushRequest("me/cats", licence="mit"), suite) == "mit"


def test_a_method_with_a_model_for_each_task_is_not_pushed_as_one(pushed, world, tmp_path, monkeypatch):
    suite, path = str(pushed / "short"), pushed / "runs/short/objects/merge_init.json"
    method = load_valid(path, suite, allow_partial=True)
    monkeypatch.setattr(TaskSequence, "is_told", True)
    with (
        reopen(method.result, suite, pushed / "runs" / "store", data_root=world) as (runtime, sequences),
        pytest.raises(ClbenchError, match="merge_init is told which task to draw"),
    ):
        push.write_folder(push.PushRequest("me/cats"), method, runtime, sequences, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_an_image_that_was_not_kept_whole_is_its_thumbnail(pushed, world, monkeypatch):
    result = load_result(pushed / "runs" / "short" / "objects" / "merge_init.json")
    with reopen(result, str(pushed / "short"), pushed / "runs" / "store", data_root=world) as (runtime, [sequence]):
        row, prompts = Row.read(runtime, sequence.keys.row(1), 1), len(runtime.track.eval_prompt_templates)
        assert row
        whole = [np.asarray(push._image(runtime, row.cells[0], number, prompts)) for number in range(prompts)]
        monkeypatch.setattr(push, "image_suffix", lambda number: ".none.png")
        cut = [np.asarray(push._image(runtime, row.cells[0], number, prompts)) for number in range(prompts)]
    assert len({image.tobytes() for image in whole}) == prompts
    np.testing.assert_array_equal(whole, cut)  # the suite's images are no larger than thumbnails


# --- the upload ---


def test_a_second_upload_updates_the_repository(hub, tmp_path):
    api = HfApi(hub.url, token=TOKEN)
    for content in (b"one", b"two"):
        (tmp_path / "a.safetensors").write_bytes(content)
        assert push.upload(tmp_path, "me/cats", private=False, hub=api) == f"{hub.url}/me/cats"
    assert hub.repositories["model:me/cats"][1] == {"a.safetensors": b"two"}
    assert not hub.private


def test_an_upload_that_cannot_be_is_one_sentence(hub, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one")
    hub.repositories["model:me/taken"] = ("0" * 40, {})
    with pytest.raises(ClbenchError, match="me/taken exists and is public"):
        push.upload(tmp_path, "me/taken", private=True, hub=HfApi(hub.url, token=TOKEN))
    with pytest.raises(ClbenchError, match=r"the hub does not let this user write to me/cats: .*; give a repository"):
        push.upload(tmp_path, "me/cats", private=False, hub=HfApi(hub.url, token="hf_other"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WorkFailed, match=r"cannot push to me/cats: .*; the same command tries again"):
        push.upload(tmp_path, "me/cats", private=False, hub=HfApi(hub.url, token=TOKEN))
    assert hub.repositories == {"model:me/taken": ("0" * 40, {})}


def test_nobody_logged_in_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ClbenchError, match="call `hf auth login`, or set HF_TOKEN"):
        push.require_login()


# --- the card ---


def test_texts_of_a_result_stay_texts_in_its_card(pushed):
    suite = load_suite(str(pushed / "short"))
    method = load_valid(pushed / "runs/short/objects/merge_init.json", str(pushed / "short"), allow_partial=True)
    evil = "<script>alert(1)</script> [x](https://evil.example) `code` | cell\n---\nlicense: mit\n# title"
    result = method.result
    result = result.model_copy(
        update={
            "command": evil,
            "backbone": result.backbone.model_copy(update={"id": evil, "revision": evil}),
            "method": result.method.model_copy(update={"name": evil, "config": {evil: evil}}),
            "variant": evil,
        }
    )
    object.__setattr__(method, "result", result)
    task = suite.track("objects").tasks[0].model_copy(update={"name": evil, "fields": {"token": evil, "class": evil}})
    samples = ((evil, "images/01.png"),)
    lora = PushedLora("me/cats", "mit", result.runs[0].model_copy(update={"order": evil}), (task,), samples, 4, 0.0)
    card = ModelCard(model_card(method, suite, lora))
    assert card.data["widget"][0]["text"] == evil
    assert card.data["license"] == "mit"
    assert card.data["instance_prompt"] == f"a photo of {evil} {evil}"
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text)
    assert "<script" not in html
    assert "href" not in html
    assert html.count("<h1>") == 1
