"""Sweeps on a real Ray cluster of three nodes on this machine."""

import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
from builders import outcome

from clbench.errors import ClbenchError, WorkFailed
from clbench.runner import harness, prepare
from clbench.runner.config import RunConfig
from clbench.runner.engine import PoolRequest, Unit, execute
from clbench.runner.engine.ray import RayEngine
from clbench.variants import Variant


@pytest.fixture(scope="module")
def nodes():
    """A head and two more nodes, each with one CPU; `remove_node` kills one."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    import ray

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node)
    added = [cluster.add_node(wait=False, num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
    cluster.wait_for_nodes(timeout=300)
    yield cluster, added
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def sweep(mock_folder, tmp_path):
    """Two methods on one track of the mock suite, all orders and seeds unless told otherwise."""

    def make(output: str, methods=("naive", "merge_ortho"), **options):
        options = {"device": "cpu", "output": tmp_path / output, **options}
        return harness.sweep(methods, ["styles"], mock_folder, **options)

    return make


@pytest.mark.long
def test_a_sweep_survives_the_death_of_a_node_with_the_scores_of_the_local_engine(nodes, sweep):
    cluster, added = nodes
    seen, killed = [], []

    def kill_a_node_midway(event):
        seen.append(event)
        workers = {one["worker"] for one in seen if "worker" in one}
        if sum(one["event"] == "end" for one in seen) >= 8 and len(workers) == 3 and not killed:
            killed.append(added[0])
            threading.Thread(target=cluster.remove_node, args=(added[0],), kwargs={"allow_graceful": False}).start()

    order = {"orders": ["forward"]}
    there = sweep("there", engine="ray", address=cluster.address, workers=3, on_event=kill_a_node_midway, **order)
    here = sweep("here", workers=1, **order)
    assert [outcome(result) for result in there] == [outcome(result) for result in here]
    assert killed, "all nodes took part, before one died"
    assert any("a worker died" in event["message"] for event in seen if event["event"] == "warning")
    plan = next(event for event in seen if event["event"] == "plan")
    assert sum(event["event"] == "end" for event in seen) == plan["units"]
    cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)


@pytest.mark.long
def test_what_fails_on_the_cluster_is_told_as_it_is_here(nodes, sweep, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from clbench import Method\n\n\nclass Broken(Method):\n    name = 'broken'\n\n"
        "    def weights(self, state):\n        raise ValueError('no weights')\n"
    )
    options = {"engine": "ray", "address": nodes[0].address, "workers": 1, "quick": True}
    with pytest.raises(WorkFailed, match=r"method broken failed in weights\(\) at task 'byzantine'.*no weights"):
        sweep("broken", ("broken",), plugins=(plugin,), **options)


@pytest.mark.long
def test_workers_that_do_not_see_the_store_say_so(nodes, mock_folder, tmp_path):
    config = RunConfig.of(engine="ray", address=nodes[0].address, workers=1, quick=True, device="cpu", output=tmp_path)
    plan = prepare.prepare([Variant.of("naive")], ["styles"], mock_folder, config)
    real = harness.pool_request(plan)

    @contextmanager
    def elsewhere():
        """A setup whose sign lies in no store, as where each node has a folder of its own."""
        with real.setup() as setup:
            yield setup.replace("sign-", "sign-0")

    with (
        plan.engine.start(replace(real, setup=elsewhere)) as pool,
        pytest.raises(WorkFailed, match=r"does not see the store .*; give --store a folder or URL that all share"),
    ):
        execute(plan.graph.units, pool, lambda event: None)


def request(open_executor, workers: int, memory: int = 10**7) -> PoolRequest:
    """Workers on a CPU, whose executors need no setup."""
    setup = lambda: nullcontext("")  # noqa: E731
    return PoolRequest(open_executor(""), open_executor, setup, workers, "cpu", memory)


@pytest.mark.long
def test_what_no_unit_expects_costs_its_worker_and_the_result_that_it_is_for(nodes):
    """As in a worker process: an unforeseen error is a worker's death, idle workers' deaths are no unit's."""
    engine = RayEngine.join(nodes[0].address)

    def open_shop(setup: str):  # within this function, so that it travels by value
        import time
        import warnings

        class Shop:
            def do(self, unit, emit):
                if unit.params.get("breaks"):
                    raise RuntimeError("CUDA error: unspecified launch failure")
                warnings.warn("something is odd", stacklevel=1)
                time.sleep(0.1)
                return True

        return Shop()

    units = [Unit("bad", "the bad unit", 1, (), ("A",), True, {"breaks": True})]
    units += [Unit(f"u{n}", f"unit {n}", 1, (f"u{n - 1}",) if n else (), ("B",)) for n in range(6)]
    told = []
    with engine.start(request(open_shop, 3)) as pool:

        def watch(event):
            told.append(event)
            if event["event"] == "end" and event.get("unit") == "u2":  # one unit at a time is left: the others idle
                idle = [actor for actor in pool._actors if actor.unit is None]
                for actor in idle:
                    pool._ray.kill(actor.handle)

        failures = execute(units, pool, watch)
    assert set(failures) == {"A"}
    assert "3 workers died of it, the last: RuntimeError: CUDA error" in failures["A"].message
    assert [event["unit"] for event in told if event["event"] == "end" and event["how"] == "done"] == [
        f"u{n}" for n in range(6)
    ]
    assert [event["message"] for event in told if event["event"] == "end" and event["how"] == "failed"] == [
        failures["A"].message
    ]
    assert "something is odd" in [event.get("message") for event in told if event["event"] == "warning"]


@pytest.mark.long
def test_what_the_cluster_cannot_give_is_refused(nodes):
    engine = RayEngine.join(nodes[0].address)
    with pytest.raises(ClbenchError, match="no node of the Ray cluster offers more than"):  # noqa: SIM117
        with engine.start(request(lambda setup: None, 1, 10**15)):
            pass


@pytest.mark.parametrize(
    ("asked", "resources", "device"),
    [
        (None, {"GPU": 2.0}, "cuda"),
        (None, {"CPU": 4.0}, "cpu"),
        ("cpu", {"GPU": 2.0}, "cpu"),
        ("cuda", {"CPU": 4.0}, "no GPU in the Ray cluster for --device cuda"),
        ("cuda:1", {"GPU": 2.0}, "--device is cpu or cuda .* not 'cuda:1'"),
    ],
)
def test_a_clusters_device_is_one_that_it_has(asked, resources, device):
    engine = RayEngine(SimpleNamespace(cluster_resources=lambda: resources))
    if " " not in device:
        assert engine.device(asked) == device
        return
    with pytest.raises(ClbenchError, match=device):
        engine.device(asked)


def test_an_address_where_nobody_answers_is_refused_at_once(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # tests before this one may have joined a cluster
    with pytest.raises(ClbenchError, match=r"no Ray cluster lets us in at 127.0.0.1:9: .*refused"):
        RayEngine.join("127.0.0.1:9")


def test_without_ray_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClbenchError, match=r"ray is not installed; --engine ray needs `pip install 'clbench\[ray\]'`"):
        RayEngine.join(None)


def test_an_unknown_engine_is_refused():
    with pytest.raises(ClbenchError, match="--engine 'slurm': Input should be 'local' or 'ray'"):
        RunConfig.of(engine="slurm")


@pytest.mark.long
def test_what_a_unit_tells_is_told_of_it_however_busy_the_caller_is(nodes):
    engine = RayEngine.join(nodes[0].address, event_interval=0.0)

    def open_shop(setup: str):
        import time

        class Shop:
            def do(self, unit, emit):
                for number in range(20):
                    emit({"event": "note", "of": unit.key, "number": number})
                    time.sleep(0.02)
                return True

        return Shop()

    told = []
    with engine.start(request(open_shop, 2)) as pool:

        def watch(event):
            told.append(event)
            time.sleep(0.5 if event["event"] == "end" else 0)

        assert execute([Unit(f"u{number}", "a unit", 1) for number in range(8)], pool, watch) == {}
    notes = [event for event in told if event["event"] == "note"]
    assert [event for event in notes if event["unit"] != event["of"]] == []
    assert sorted((event["of"], event["number"]) for event in notes) == [
        (f"u{unit}", number) for unit in range(8) for number in range(20)
    ]
