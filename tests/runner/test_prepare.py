"""What is refused before any work, and how many processes share it."""

import pytest
import torch

from clbench.errors import ClbenchError
from clbench.runner import prepare as preparing
from clbench.runner.config import RunConfig
from clbench.runner.engine.local import LocalEngine

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


def test_a_sweep_refuses_settings_for_a_method_that_it_does_not_run(ready):
    with pytest.raises(ClbenchError, match="'magmax', which is not run"):
        ready(settings={"magmax": {}})


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
