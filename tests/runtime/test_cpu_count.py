import os

import pytest

from bgert import cpu_count
from bgert.cpu_count import available_cpus, cgroup_quota


def make(tmp_path, membership, files):
    (tmp_path / "self").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cgroup_quota(tmp_path / "mount", tmp_path / "self")


V1 = "12:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n"


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 0.5),
        ("0::/not/seen/from/inside\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/../../out\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
        (V1, {}, None),
        (V1, {"cpu,cpuacct/docker/x/cpu.cfs_quota_us": "-1", "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000"}, None),
        (
            V1,
            {"cpu,cpuacct/docker/x/cpu.cfs_quota_us": "400000", "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000"},
            4,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2.5),
        ("3:cpuset:/x\n", {"cpuset/x/cpu.cfs_quota_us": "100000", "cpuset/x/cpu.cfs_period_us": "100000"}, None),
        ("garbage\n", {}, None),
    ],
)
def test_quota_of_a_cgroup(tmp_path, membership, files, quota):
    assert make(tmp_path, membership, files) == quota


def test_no_cgroup_file_system(tmp_path):
    assert cgroup_quota(tmp_path, tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("cores", "quota", "expected"), [(8, None, 8), (8, 1.5, 2), (8, 0.1, 1), (2, 16.0, 2), (1, 0.5, 1)]
)
def test_affinity_and_quota(monkeypatch, cores, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)), raising=False)
    monkeypatch.setattr(cpu_count, "_own_quota", lambda: quota)
    assert available_cpus() == expected


def test_systems_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(cpu_count, "_own_quota", lambda: None)
    assert available_cpus() == 1


def test_here():
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
