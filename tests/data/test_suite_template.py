"""A suite of one's own: begun as a copy of another, and used from its first check to a valid result."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
from commands import CLBENCH, execute

from clbench.data.suite_template import write_suite_template
from clbench.errors import ClbenchError
from clbench.suite import load_suite


@pytest.mark.parametrize("like", ["sdxl-v1", "mini-v2", "mini-v2-dev"])
def test_a_new_suite_is_its_models_copy_under_its_own_name(like, tmp_path):
    write_suite_template(tmp_path / "my-cats", like)
    copy, model = load_suite(str(tmp_path / "my-cats")), load_suite(like)
    assert (copy.name, copy.version) == ("my-cats", "1")
    assert copy.sha256 != model.sha256
    same = {"name": model.name, "version": model.version, "version_reason": model.version_reason}
    assert copy.model_copy(update=same) == model
    assert (tmp_path / "my-cats" / "suite.yaml").read_text().startswith("# A suite of your own")
    with pytest.raises(ClbenchError, match="exists"):
        write_suite_template(tmp_path / "my-cats", like)


def test_a_folder_without_a_suite_is_named_with_the_command_that_writes_one(tmp_path):
    with pytest.raises(ClbenchError, match="clbench new-suite"):
        load_suite(str(tmp_path))


@pytest.mark.long
def test_from_data_status_to_a_validated_result_on_the_command_line(tiny, world, tmp_path):
    environment = {"HF_HUB_OFFLINE": "1", "CLBENCH_DATA_ROOT": str(world)}

    def call(*words: Any, code: int = 0) -> subprocess.CompletedProcess:
        return execute(CLBENCH, *words, code=code, env=environment, cwd=tmp_path)

    status = call("data", "status", "--suite", tiny).stdout.splitlines()
    assert [line.split()[0] for line in status[:-1]] == ["ready"] * 7
    run = ("run", "--method", "naive", "--track", "objects", "--suite", tiny, "--quick", "--workers", "1", "--json")
    done = call(*run)
    assert "estimate: " in done.stderr
    assert json.loads(done.stdout)["suite"]["name"] == "tiny"
    result = tmp_path / "runs" / "tiny" / "objects" / "naive.partial.json"
    assert "valid" in call("validate", "--allow-partial", "--suite", tiny, result).stdout
    assert "have a board" in call("submit", result, "--submitter", "me", code=2).stderr
    assert "wrote" in call("export", result, "--task", "glasses", "--suite", tiny).stdout
    shutil.rmtree(world / "CSD")
    assert "not ready  csd" in call("data", "status", "--suite", tiny, code=1).stdout
