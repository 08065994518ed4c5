"""Plans and sweeps of the mock suite."""

import pytest

from clbench.runner import harness
from clbench.runner.config import RunConfig
from clbench.runner.prepare import ExecutionPlan, prepare
from clbench.variants import Variant


@pytest.fixture
def ready(mock_folder, models, tmp_path):
    """`prepare` for the mock suite, on the first order and seed unless the caller chooses."""

    def make(methods=("merge_init",), tracks=("styles",), suite=mock_folder, **options) -> ExecutionPlan:
        given = {"quick": True, "output": tmp_path / "runs", "device": "cpu", "workers": 1, **options}
        variants = [Variant.of(one) if isinstance(one, str) else one for one in methods]
        return prepare(variants, tracks, suite, RunConfig.of(**given), models=models)

    return make


@pytest.fixture
def sweep(ready):
    """The results of what `ready` prepares."""
    return lambda *arguments, **options: harness.carry_out(ready(*arguments, **options))
