"""What is refused before any work, and how many processes share it."""

from typing import get_type_hints

import pytest
import torch
from builders import outcome
from paths import PLUGINS

from clbench.errors import ClbenchError
from clbench.results.io import load_result
from clbench.runner import prepare as preparing
from clbench.runner.config import RunConfig, RunOptions
from clbench.runner.engine.local import LocalEngine
from clbench.runner.harness import result_path
from clbench.variants import Variant

CROSSED = [("a", 0), ("a", 5), ("b", 0), ("b", 5)]
OWN = [("a", 7), ("b", 8), ("c", 9)]


@pytest.mark.parametrize(
    ("protocol", "asked", "runs"),
    [
        (CROSSED, {}, CROSSED),
        (CROSSED, {"quick": True}, [("a", 0)]),
        (CROSSED, {"quick": True, "orders": ["b"]}, [("b", 0)]),
        (CROSSED, {"quick": True, "seeds": [5]}, [("a", 5)]),
        (CROSSED, {"seeds": [5]}, [("a", 5), ("b", 5)]),
        (OWN, {}, OWN),
        (OWN, {"quick": True}, [("a", 7)]),
        (OWN, {"quick": True, "orders": ["b", "c"]}, [("b", 8), ("c", 9)]),
        (OWN, {"quick": True, "seeds": [9]}, [("c", 9)]),
    ],
)
def test_a_part_of_the_protocol_is_chosen_by_order_and_seed_however_they_are_paired(protocol, asked, runs):
    assert preparing.chosen_runs(protocol, RunConfig.of(**asked)) == runs


def test_an_order_with_another_orders_seed_is_refused():
    with pytest.raises(ClbenchError, match="none of these orders with one of these seeds"):
        preparing.chosen_runs(OWN, RunConfig.of(orders=["a"], seeds=[8]))


def test_the_keywords_of_run_and_sweep_are_the_fields_of_the_configuration():
    assert set(get_type_hints(RunOptions)) == set(RunConfig.model_fields)


EWC = {"plugins": (PLUGINS / "ewc.py",)}


def test_two_configurations_of_one_name_are_refused_and_both_are_shown(ready):
    variants = [Variant.of("ewc", {"strength": 10}), Variant.of("ewc", {"strength": 0.02})]
    with pytest.raises(ClbenchError, match=r"the name 'ewc': ewc, strength=10; and ewc, strength=0\.02; give each"):
        ready(variants, **EWC)


@pytest.mark.long
def test_a_configuration_does_not_replace_the_result_of_another(ready, sweep, tmp_path):
    (first,) = sweep([Variant.of("ewc", {"strength": 10})], **EWC)
    path = result_path(tmp_path / "runs", first)
    kept = path.read_bytes()
    with pytest.raises(ClbenchError, match=r"ewc, strength=10.* there, ewc, strength=0\.02 here; .*--variant"):
        ready([Variant.of("ewc", {"strength": 0.02})], **EWC)
    with pytest.raises(ClbenchError, match=r"ewc, strength=10.* there, naive here"):
        ready([Variant.of("naive", name="ewc")])
    assert path.read_bytes() == kept
    (named,) = sweep([Variant.of("ewc", {"strength": 0.02}, "ewc-weak")], **EWC)
    assert result_path(tmp_path / "runs", named).name == "ewc-weak.partial.json"
    assert "--variant ewc-weak" in named.command
    assert "--set strength=0.02" in named.command
    assert path.read_bytes() == kept


@pytest.mark.long
def test_an_edited_plugin_replaces_its_own_result(ready, sweep, tmp_path):
    plugin = tmp_path / "mine.py"
    source = (PLUGINS / "ewc.py").read_text().replace('name = "ewc"', 'name = "mine"')
    plugin.write_text(source)
    (before,) = sweep([Variant.of("mine")], plugins=(plugin,))
    edited = tmp_path / "edited.py"  # a file is loaded once a process
    edited.write_text(source.replace("strength: float = 1e6", "other: int = 1\n        strength: float = 2e6"))
    (after,) = sweep([Variant.of("mine")], plugins=(edited,))
    assert after.method.config != before.method.config
    assert load_result(result_path(tmp_path / "runs", before)) == after


@pytest.mark.long
def test_a_variants_name_enters_no_key_so_that_equal_work_is_done_once(ready, sweep):
    (first,) = sweep([Variant.of("naive")])
    again = ready([Variant.of("naive", name="again")])
    assert again.graph.units == []
    together = ready([Variant.of("magmax"), Variant.of("magmax", name="twin")])
    assert len(together.graph.everything) == len(ready([Variant.of("magmax")]).graph.everything)
    (second,) = sweep([Variant.of("naive", name="again")])
    assert (second.variant, outcome(second)) == ("again", outcome(first))
    assert second.checksum != first.checksum


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"address": "1.2.3.4:6379"}, "--address is of a Ray cluster, and needs --engine ray"),
        ({"store": "memory://here", "workers": 2}, "seen by one process alone; give --workers 1"),
        ({"device": "gpu"}, "no device 'gpu' here: give cpu, cuda"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(ready, options, says):
    with pytest.raises(ClbenchError, match=says) as caught:
        ready(**options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("cores", "gigabytes", "workers"), [(16, 64, 8), (3, 64, 3), (16, 4, 2), (16, 1, 1)])
def test_as_many_processes_start_as_cores_runs_and_memory_allow(monkeypatch, cores, gigabytes, workers):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    engine = LocalEngine(memory=lambda device: gigabytes * 10**9)
    assert engine.workers(None, 8, "cpu") == workers
    assert engine.workers(3, 8, "cpu") == 3


@pytest.mark.parametrize(("workers", "options"), [(0, {}), (2, {"resume": False})])
def test_impossible_numbers_of_workers_are_refused(ready, workers, options):
    with pytest.raises(ClbenchError, match="workers"):
        ready(workers=workers, **options)
