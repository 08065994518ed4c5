"""How much memory a process may take."""

import pytest

from clbench.protocol.device import allowed_memory


@pytest.mark.parametrize(
    ("membership", "folder", "limit", "use", "cache"),
    [
        ("0::/slurm/job_7/step_0\n", "slurm/job_7", "memory.max", "memory.current", "inactive_file"),
        (
            "3:cpuset:/\n4:cpu,memory:/slurm/job_7\n",
            "memory/slurm",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_a_jobs_own_memory_limit_counts(tmp_path, membership, folder, limit, use, cache):
    (tmp_path / "membership").write_text(membership)
    group = tmp_path / "groups" / folder
    group.mkdir(parents=True)
    (group / "memory.stat").write_text(f"anon 5\n{cache} 400\n")
    (group / use).write_text("1000\n")
    (group / limit).write_text("max\n")
    assert list(allowed_memory(tmp_path / "membership", tmp_path / "groups")) == []
    (group / limit).write_text("5000\n")
    assert list(allowed_memory(tmp_path / "membership", tmp_path / "groups")) == [5000 - (1000 - 400)]
    assert list(allowed_memory(tmp_path / "none", tmp_path)) == []
