"""All methods: what each says of itself, the page that lists them, and equal bits whenever they are run."""

import ast
import re

import pytest
from every_method import FILES, NAMES, most_long
from paths import ROOT
from pydantic import ValidationError

from clbench.method import FAMILIES, Settings
from clbench.plugins import get_method, list_methods
from clbench.protocol.method_host import MethodHere
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.state import digest
from clbench.storage.store import Store
from clbench.tokens import named_tensors

UNCHANGED = {"frozen_base", "single_task"}
"""What they deploy, where no task is asked for, is the base model."""
QUICK = {
    "cofima": {"batches": 2},
    "ewc": {"batches": 2},
    "gpm": {"batches": 2},
    "inflora": {"batches": 2},
    "keep_lora": {"batches": 2},
    "mas": {"batches": 2},
    "prior_preservation": {"images": 2},
    "self_replay": {"images": 2},
}


@pytest.mark.parametrize("name", NAMES)
def test_each_method_says_where_it_comes_from(name):
    method = list_methods()[name]
    assert method.family in FAMILIES
    assert method.paper
    assert re.fullmatch(r"\d{4}\.\d{4,5}", method.arxiv)
    assert re.fullmatch(r"(19|20)\d\d", method.year)
    assert method.code == "" or method.code.startswith("https://")
    assert method.departures.endswith(".")
    text = method.__doc__ or ""
    assert len(text.splitlines()[0]) <= 115
    assert all(word in text for word in ("Passed on:", "Settings:"))


@pytest.mark.parametrize("name", NAMES)
def test_each_method_is_one_short_file_that_imports_torch_only_where_it_computes(name):
    text = (ROOT / "methods" / f"{name}.py").read_text()
    assert len(text.splitlines()) < 100
    imported = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imported}
    known = {"clbench", "clbench.method", "clbench.lora", "clbench.replay", "clbench.subspace", "dataclasses"}
    known |= {"pydantic", "typing"}
    assert modules <= known


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_described_bounded_and_fixed(name):
    config = list_methods()[name].Config
    assert config.model_config.get("extra") == "forbid"
    assert config.model_config.get("frozen")
    for setting, field in config.model_fields.items():
        assert field.description
        assert field.metadata, f"{setting} has no bounds"
        with pytest.raises(ValidationError):
            config(**{setting: -1})


def test_the_page_on_methods_has_every_method_with_its_family_and_paper():
    page = (ROOT / "docs" / "methods.md").read_text()
    sections = dict(re.findall(r"^## (\w+).*?\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    listed = {name for section in sections.values() for name in re.findall(r"^\| `(\w+)`", section, re.MULTILINE)}
    assert listed == {path.stem for path in FILES}
    for name in NAMES:
        method = list_methods()[name]
        [row] = re.findall(rf"^\| `{name}` .*$", sections[method.family.capitalize()], re.MULTILINE)
        assert method.arxiv in row
        own = {name: field for name, field in method.Config.model_fields.items() if name not in Settings.model_fields}
        for setting, field in own.items():
            default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert f"`{setting}` {default}" in row


@pytest.mark.parametrize("name", most_long())
def test_two_runs_give_the_same_bits_also_if_every_task_has_an_instance_of_its_own(name, runtime, tmp_path):
    settings = QUICK.get(name, {})

    def run(folder: str, renewed: bool) -> list[str]:
        own = TrackRuntime(runtime.suite, "styles", Store(tmp_path / folder), models=runtime.models)
        renew = (lambda: get_method(name, settings)) if renewed else None
        host = MethodHere(get_method(name, settings), renew)
        sequence, digests = TaskSequence(own, host, "forward", 0), []
        for position in range(3):
            state = sequence.state(position)
            hooks = sequence.hooks
            used = {**hooks.weights(position, state), **named_tensors(hooks.tokens(position, state))}
            digests += [digest(state.tensors()), digest(used)]
        return digests

    digests = run("one", renewed=False)
    assert digests == run("other", renewed=True)
    assert len(set(digests[1::2])) == (1 if name in UNCHANGED else 3)  # every task changes what is deployed
