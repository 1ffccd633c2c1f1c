"""Limits of control groups, read from a tree like that of the kernel."""

from pathlib import Path

import pytest

from realrl.base.machine import cpu_quotas, memory_bytes, memory_limits


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("own", "files", "limits", "quotas"),
    [
        ("0::/", {"memory.max": "5", "cpu.max": "150000 100000"}, [5], [1.5]),
        ("0::/", {"memory.max": "max", "cpu.max": "max 100000"}, [], []),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "7", "a/cpu.max": "2 1"}, [7], [2.0]),
        ("0::/a/b", {"a/b/memory.max": "3", "a/memory.max": "7", "c/memory.max": "1"}, [3, 7], []),
        ("4:memory:/a\n0::/", {"memory/a/memory.limit_in_bytes": "9"}, [9], []),
        ("4:memory:/of/the/host", {"memory/memory.limit_in_bytes": "9"}, [9], []),
        (
            "3:cpu,cpuacct:/",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            [],
            [0.5],
        ),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, [], []),
        ("", {}, [], []),
    ],
)
def test_the_limits_of_a_group_and_of_those_above(tmp_path, own, files, limits, quotas):
    """Of both versions, in a container and outside; a group of others is not looked at."""
    root = tree(tmp_path / "groups", files)
    (tmp_path / "own").write_text(own)
    assert list(memory_limits(root, tmp_path / "own")) == limits
    assert list(cpu_quotas(root, tmp_path / "own")) == quotas


def test_there_is_not_more_memory_than_the_host_has():
    total = int(Path("/proc/meminfo").read_text().split()[1]) << 10
    assert 0 < memory_bytes() <= total
