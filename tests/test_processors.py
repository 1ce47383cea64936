"""A container's CPU quota counts, in both versions of cgroups; so does the mask."""

import os
from pathlib import Path

import pytest

from plsc.processors import usable_processors

V1 = "4:memory:/pods/one\n3:cpu,cpuacct:/pods/one\n0::/\n"


@pytest.fixture(autouse=True)
def _sixteen_in_the_mask(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def system(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000\n", 16),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("5000 100000\n", 1),
        ("9900000 100000\n", 16),
        ("", 16),
        ("nonsense", 16),
    ],
)
def test_the_quota_of_cgroup_v2(tmp_path, content, expected):
    root = system(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": content})
    assert usable_processors(root) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("300000", 3), ("1000", 1)])
@pytest.mark.parametrize("place", ["", "pods/one/", "pods/"])
def test_the_quota_of_cgroup_v1_at_the_mount_or_at_the_path(tmp_path, quota, expected, place):
    folder = f"sys/fs/cgroup/cpu,cpuacct/{place}"
    files = {f"{folder}cpu.cfs_quota_us": quota, f"{folder}cpu.cfs_period_us": "100000\n"}
    assert usable_processors(system(tmp_path, V1, files)) == expected


def test_the_smallest_quota_on_the_way_up_counts(tmp_path):
    files = {
        "sys/fs/cgroup/pod/container/cpu.max": "max 100000",
        "sys/fs/cgroup/pod/cpu.max": "400000 100000",
    }
    assert usable_processors(system(tmp_path, "0::/pod/container\n", files)) == 4


def test_a_path_that_leads_out_of_the_mount_is_passed_over(tmp_path):
    files = {"sys/cpu.max": "100000 100000", "sys/fs/cgroup/cpu.max": "500000 100000"}
    assert usable_processors(system(tmp_path, "0::/../..\n", files)) == 5


def test_without_cgroups_the_mask_counts(tmp_path):
    assert usable_processors(tmp_path) == 16


def test_this_machine_has_a_processor():
    assert usable_processors() >= 1
