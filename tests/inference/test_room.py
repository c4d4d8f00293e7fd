"""How much memory there is, read from files that a system could have."""

from __future__ import annotations

import os

import pytest
import torch

from opd_diag.inference import room
from opd_diag.inference.room import Room, room_of, room_of_cpu

KB = 1024


def system(root, *, cgroup="", **files):
    """Write ``/proc`` of a machine of 100 kB, of which 60 are free and 10 more are swap; files by path, __ for /."""
    contents = {
        "proc/meminfo": "MemTotal: 100 kB\nMemFree: 5 kB\nMemAvailable: 60 kB\nSwapTotal: 10 kB\nHugePages_Total: 0\n",
        "proc/self/cgroup": cgroup,
    }
    for path, text in (contents | files).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def group(folder, limit, used, *, names=("memory.max", "memory.current"), inactive=0):
    """The files of one control group."""
    return {
        f"{folder}/{names[0]}": f"{limit}\n",
        f"{folder}/{names[1]}": f"{used}\n",
        f"{folder}/memory.stat": f"anon 1\ninactive_file {inactive}\n",
    }


def test_a_machine_of_its_own(tmp_path):
    assert room_of_cpu(system(tmp_path, cgroup="0::/\n")) == Room(60 * KB, 110 * KB)


def test_a_container_has_less(tmp_path):
    limits = group("sys/fs/cgroup/pod/box", 50 * KB, 30 * KB, inactive=8 * KB)
    assert room_of_cpu(system(tmp_path, cgroup="0::/pod/box\n", **limits)) == Room(28 * KB, 60 * KB)


def test_the_groups_around_it_bind_too(tmp_path):
    limits = group("sys/fs/cgroup/pod/box", "max", 1 * KB) | group("sys/fs/cgroup/pod", 40 * KB, 39 * KB)
    assert room_of_cpu(system(tmp_path, cgroup="0::/pod/box\n", **limits)) == Room(1 * KB, 50 * KB)


def test_a_group_of_the_first_version(tmp_path):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    limits = group("sys/fs/cgroup/memory/job", 20 * KB, 25 * KB, names=names)
    groups = "5:cpu:/job\n4:memory:/job\n0::/\n"
    assert room_of_cpu(system(tmp_path, cgroup=groups, **limits)) == Room(0, 30 * KB), "never less than nothing"


@pytest.mark.parametrize("groups", ["", "nonsense\n", "0::/gone\n"])
def test_groups_that_say_nothing(tmp_path, groups):
    assert room_of_cpu(system(tmp_path, cgroup=groups)) == Room(60 * KB, 110 * KB)


def test_a_system_without_proc_knows_its_size(tmp_path, monkeypatch):
    sizes = {"SC_PHYS_PAGES": 7, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    assert room_of_cpu(tmp_path) == Room(7 * 4096, 7 * 4096)
    monkeypatch.delattr(os, "sysconf")
    assert room_of_cpu(tmp_path) is None


def test_this_machine():
    found = room_of(torch.device("cpu"))
    assert found is not None
    assert 0 < found.free <= found.total


def test_a_gpu_has_what_torch_holds_and_does_not_use_too(monkeypatch):
    asked = {"mem_get_info": (30, 80), "memory_reserved": 20, "memory_allocated": 15}
    for name, value in asked.items():
        monkeypatch.setattr(room.torch.cuda, name, lambda device, value=value: value)
    assert room_of(torch.device("cuda:1")) == Room(35, 80)
