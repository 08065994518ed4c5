"""Sweeps on a real Ray cluster of three nodes on this machine."""

import sys
import threading
from pathlib import Path

import pytest
from test_harness import outcome

from clbench import harness, prepare
from clbench.engine.cluster import Cluster
from clbench.errors import ClbenchError, WorkFailed


@pytest.fixture(scope="module")
def nodes():
    """A head and two more nodes, each with one CPU; `remove_node` kills one."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    import ray

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node)
    added = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster, added
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def sweep(shared_models, tmp_path):
    """Two methods on one track of the mock suite, all orders and seeds."""

    def make(output: str, methods=("naive", "merge_ortho"), **options):
        options = {"device": "cpu", "output": tmp_path / output, **options}
        return harness.sweep(methods, ["styles"], "mock", **options)

    return make


@pytest.mark.long
def test_a_sweep_survives_the_death_of_a_node_with_the_scores_of_the_local_engine(nodes, sweep):
    cluster, added = nodes
    seen, killed = [], []

    def kill_a_node_midway(event):
        seen.append(event)
        if sum(one["event"] == "end" for one in seen) == 15 and not killed:
            killed.append(added[0])
            threading.Thread(target=cluster.remove_node, args=(added[0],), kwargs={"allow_graceful": False}).start()

    there = sweep("there", engine="ray", address=cluster.address, workers=3, watch=kill_a_node_midway)
    here = sweep("here", workers=1)
    assert [outcome(result) for result in there] == [outcome(result) for result in here]
    assert killed
    workers = [{event["worker"] for event in seen[: len(seen) // 4] if "worker" in event}]
    assert len(workers[0]) == 3, "all nodes took part"
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
def test_workers_that_do_not_see_the_store_say_so(nodes, sweep, monkeypatch):
    from clbench import harness as driver
    from clbench.job import setup_of

    class Elsewhere:
        """A setup whose sign lies in no store, as where each node has a folder of its own."""

        def __init__(self, workshop):
            self.real = setup_of(workshop)

        def __enter__(self):
            return self.real.__enter__().replace("sign-", "sign-0")

        def __exit__(self, *failure):
            return self.real.__exit__(*failure)

    monkeypatch.setattr(driver, "setup_of", Elsewhere)
    with pytest.raises(WorkFailed, match=r"does not see the store .*; give --store a folder or URL that all share"):
        sweep("unseen", engine="ray", address=nodes[0].address, workers=1, quick=True)


def test_without_ray_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClbenchError, match=r"ray is not installed; --engine ray needs `pip install 'clbench\[ray\]'`"):
        Cluster.join(None)


def test_an_unknown_engine_is_refused(shared_models, tmp_path: Path):
    with pytest.raises(ClbenchError, match="no engine 'slurm' \\(known: local, ray\\)"):
        prepare.prepare(["naive"], ["styles"], "mock", {}, prepare.Options(engine="slurm", output=tmp_path))  # type: ignore[arg-type]
