"""The four methods are what their equations say, and plugins are found, named and checked."""

import hashlib
import importlib.metadata
from importlib import import_module
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from following import FRESH, RANK, SCALE, SHAPES, TRAINED, context, dense, follow, same, summed
from paths import PLUGINS

from clbench.errors import ClbenchError, UnknownMethod, WorkFailed
from clbench.lora import Adapter
from clbench.method import REGISTRY, Context, Method
from clbench.plugins import get_method, list_methods, source_of
from clbench.state import State, StateSize, regime
from clbench.suite import content_root

NAMES = ["magmax", "merge_init", "merge_ortho", "merge_ortho_products", "naive"]


# --- the bundled methods ---


def test_naive_goes_on_training_one_adapter_over_the_base_model():
    starts, frozen, states, weights = follow("naive")
    assert all(map(same, starts, [FRESH[0], *TRAINED[:2]]))
    assert frozen == [{}, {}, {}]
    assert [state.merged or state.extra for state in states] == [{}, {}, {}]
    assert all(same(state.adapter, adapter) for state, adapter in zip(states, TRAINED, strict=True))
    assert same(weights, dense(TRAINED[2]))


def test_merge_init_adds_each_product_and_starts_fresh():
    starts, frozen, states, weights = follow("merge_init")
    assert all(map(same, starts, FRESH))
    assert frozen[0] == {}
    assert same(frozen[1], dense(TRAINED[0]))
    assert same(frozen[2], dense(*TRAINED[:2]))
    assert all(state.adapter is None and not state.extra for state in states)
    assert same(states[2].merged, dense(*TRAINED))
    assert same(weights, dense(*TRAINED))


def test_merge_ortho_starts_orthogonal_to_the_past_sum_and_adds_factors():
    starts, frozen, states, weights = follow("merge_ortho")
    assert same(starts[0], FRESH[0])
    for position in (1, 2):
        past = summed(*TRAINED[:position])
        for name, A in past.A.items():
            columns = [torch.linalg.svd(column.reshape(1, RANK)).Vh[-1] for column in A.T]
            assert torch.allclose(starts[position].A[name], torch.stack(columns, dim=1), atol=1e-6)
            assert not starts[position].B[name].any()
        assert same(states[position - 1].adapter, past)
        assert same(frozen[position], dense(past))
    assert frozen[0] == {}
    assert same(states[2].adapter, summed(*TRAINED))
    assert not states[2].merged
    assert same(weights, dense(summed(*TRAINED)))


def test_merge_ortho_deploys_the_published_cross_terms():
    weights = follow("merge_ortho")[3]
    cross = {
        name: sum(SCALE * TRAINED[i].B[name] @ TRAINED[j].A[name] for i in range(3) for j in range(3) if i != j)
        for name in SHAPES
    }
    assert same(weights - dense(*TRAINED), cross)
    assert not same(weights, dense(*TRAINED))


def test_merge_ortho_products_starts_like_merge_ortho_and_deploys_no_cross_terms():
    starts, frozen, states, weights = follow("merge_ortho_products")
    assert all(map(same, starts, follow("merge_ortho")[0]))
    assert frozen[0] == {}
    assert same(frozen[1], dense(TRAINED[0]))
    assert same(frozen[2], dense(*TRAINED[:2]))
    assert same(states[2].adapter, summed(*TRAINED))
    assert same(weights, dense(*TRAINED))


def test_magmax_keeps_the_larger_dense_change_and_trains_over_what_it_kept():
    starts, frozen, states, weights = follow("magmax")
    kept = [dense(TRAINED[0])]
    for adapter in TRAINED[1:]:
        old, new = kept[-1], dense(adapter)
        kept.append({name: torch.where(new[name].abs() >= old[name].abs(), new[name], old[name]) for name in SHAPES})
    assert all(map(same, starts, FRESH))
    assert frozen[0] == {}
    assert all(map(same, frozen[1:], kept[:2]))
    assert all(same(state.merged, expected) for state, expected in zip(states, kept, strict=True))
    assert same(weights, kept[2])


def test_all_methods_start_the_first_task_from_the_same_adapter_for_the_same_seed():
    starts = [get_method(name).begin_task(context(seed=5), State()) for name in NAMES]
    assert all(same(start, starts[0]) for start in starts)
    assert not same(starts[0], context(seed=0).fresh_adapter())


def test_a_fresh_adapter_is_pefts_gaussian_and_independent_of_earlier_positions():
    shapes = {"wide": (2, 20_000)}
    first, second = (Context(**{**vars(context(p)), "shapes": shapes}).fresh_adapter() for p in (0, 1))
    assert abs(first.A["wide"].std().item() * RANK - 1) < 0.02
    assert not first.B["wide"].any()
    assert abs((first.A["wide"] * second.A["wide"]).mean().item()) * RANK**2 < 0.02


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("naive", "adapter"),
        ("merge_init", "model"),
        ("merge_ortho", "adapter"),
        ("merge_ortho_products", "constant"),
        ("magmax", "model"),
    ],
)
def test_regimes_are_read_off_the_states_before_and_after_their_file(name, expected, tmp_path):
    states = follow(name)[2]
    for position, state in enumerate(states):
        state.save(tmp_path / f"{position}")
        loaded = State.load(tmp_path / f"{position}")
        assert same(loaded.tensors(), state.tensors())
        assert loaded.adapter is None or loaded.adapter.scale == SCALE
    assert regime([StateSize.of(state) for state in states], RANK) == expected


def test_regimes_of_looser_states():
    adapter, extra = State(adapter=TRAINED[0]), torch.zeros(10)
    wide = State(adapter=Adapter({"a": torch.zeros(RANK + 1, 5)}, {"a": torch.zeros(6, RANK + 1)}))
    sequences = {
        "constant": [adapter, adapter.with_extra(fisher=extra), adapter.with_extra(fisher=extra)],
        "growing": [adapter.with_extra(**{f"kept{i}": extra for i in range(count)}) for count in range(3)],
    }
    for expected, states in sequences.items():
        assert regime([StateSize.of(state) for state in states], RANK) == expected
    assert regime([StateSize.of(wide)] * 3, RANK) == "constant"


def test_an_empty_state_is_a_file_like_any_other(tmp_path):
    State().save(tmp_path / "state")
    assert State.load(tmp_path / "state") == State()


def test_a_state_may_keep_the_same_tensor_twice(tmp_path):
    adapter = TRAINED[0]
    State(adapter=adapter).with_extra(anchor=adapter.A["attn1.to_q"]).save(tmp_path / "state")
    assert same(State.load(tmp_path / "state").extra, {"anchor": adapter.A["attn1.to_q"]})


@pytest.mark.parametrize("name", NAMES)
def test_each_method_is_one_short_file_with_its_equation_or_rule(name):
    text = (content_root() / "methods" / f"{name}.py").read_text()
    assert len(text.splitlines()) < 40
    assert get_method(name).__doc__


# --- finding them ---


@pytest.fixture
def own_registry():
    """What a test registers is forgotten after it."""
    list_methods()
    with patch.dict(REGISTRY):
        yield


PLUGIN = """
from pydantic import BaseModel
from clbench import Method

class Mine(Method):
    '''Mine.'''
    name = "mine"

    class Config(BaseModel, extra="forbid"):
        strength: float = 1.0
"""


@pytest.fixture
def plugin(tmp_path, own_registry):
    """Write a plugin file."""

    def write(text: str = PLUGIN, name: str = "mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def refusal(kind: type[ClbenchError], call, *arguments) -> str:
    """The one sentence that `call` refuses with."""
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_four_methods_are_registered_by_lying_in_their_folder():
    assert set(NAMES) <= set(list_methods())


def test_an_unknown_method_is_refused_with_a_suggestion():
    assert "did you mean 'merge_init'" in refusal(UnknownMethod, get_method, "merge_inti")


def test_a_plugin_file_registers_its_methods(plugin):
    path = plugin()
    method = get_method("mine", {"strength": 2}, [path])
    assert method.config.strength == 2
    assert source_of(method).path == path
    assert source_of(method).distribution is None
    ran = hashlib.sha256(path.read_bytes()).hexdigest()
    assert source_of(method).sha256 == ran
    path.write_text(path.read_text() + "# edited while it runs\n")
    assert source_of(method).sha256 == ran


def test_a_methods_checksum_is_of_all_files_that_make_it(tmp_path, monkeypatch, own_registry):
    package = tmp_path / "acme_methods"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tricks.py").write_text("GAIN = 1\n")
    (tmp_path / "acme_base.py").write_text(
        "from clbench import Method\n\n\nclass Base(Method):\n    def loss(self, ctx, batch):\n        return 0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (package / "method.py").write_text("from clbench import Method\n\n\nclass Acme(Method):\n    name = 'acme'\n")
    (tmp_path / "acme_heir.py").write_text("from acme_base import Base\n\n\nclass Heir(Base):\n    name = 'heir'\n")
    packaged, heir = import_module("acme_methods.method").Acme(), import_module("acme_heir").Heir()
    for method, file in ((packaged, package / "tricks.py"), (heir, tmp_path / "acme_base.py")):
        before = source_of(method)
        file.write_text(file.read_text() + "# changed\n")
        assert source_of(method).sha256 != before.sha256
        assert source_of(method).path == before.path != file


def test_the_test_plugins_are_found_by_their_paths(own_registry):
    found = list_methods([PLUGINS / "ewc.py", PLUGINS / "self_replay.py"])
    assert {"ewc", "self_replay"} <= set(found)


def test_an_installed_entry_point_registers_its_method(monkeypatch, own_registry):
    def load():
        return type("Installed", (Method,), {"name": "installed"})

    points = [SimpleNamespace(name="installed", value="package:Installed", load=load)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == "clbench.methods" else [])
    assert get_method("installed").name == "installed"


def test_a_broken_installed_plugin_is_named_and_stops_no_other(monkeypatch, own_registry):
    points = [SimpleNamespace(name="bad", value="package:Bad", load=lambda: 1 / 0)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    with pytest.warns(UserWarning, match=r"'bad' \(package:Bad\) does not load: ZeroDivisionError"):
        assert "merge_init" in list_methods()


@pytest.mark.parametrize(
    ("text", "name", "kind", "says"),
    [
        ("1 / 0", "broken.py", WorkFailed, "ZeroDivisionError"),
        ("def f(:", "syntax.py", WorkFailed, "SyntaxError"),
        ("import nowhere_to_be_found", "imports.py", WorkFailed, "nowhere_to_be_found"),
        ("x = 1", "empty.py", ClbenchError, "defines no Method"),
        (PLUGIN, "plugin.txt", ClbenchError, "not a Python file"),
    ],
)
def test_a_plugin_that_does_not_load_is_one_sentence_with_its_path(plugin, text, name, kind, says):
    path = plugin(text, name)
    message = refusal(kind, list_methods, [path])
    assert says in message
    assert str(path) in message
    assert "merge_init" in list_methods()


def test_a_plugin_may_replace_a_method_but_only_where_it_is_named(plugin):
    path = plugin(PLUGIN.replace('"mine"', '"naive"'))
    assert [source_of(get_method("naive", None, plugins)).path == path for plugins in ([], [path], [])] == [
        False,
        True,
        False,
    ]


def test_a_plugin_that_is_not_there(tmp_path):
    assert "nothing.py" in refusal(ClbenchError, list_methods, [tmp_path / "nothing.py"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strenght": 1}, "did you mean 'strength'"),
        ({"strength": "much"}, "'strength'"),
        ({"self": 1}, "'self'"),
    ],
)
def test_settings_are_checked_by_name_and_type(plugin, settings, says):
    assert says in refusal(ClbenchError, get_method, "mine", settings, [plugin()])


def test_a_method_without_settings_takes_none():
    assert "'strength'" in refusal(ClbenchError, get_method, "naive", {"strength": 1})
