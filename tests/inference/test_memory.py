"""Freed memory goes back to the system, where the C library can do that."""

from __future__ import annotations

import sys

import pytest
import torch

from opd_diag.inference import memory


def resident() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))


@pytest.mark.skipif(memory._trim() is None, reason="the C library has no malloc_trim")
def test_what_was_freed_below_something_that_lives_goes_back():
    small = [torch.ones(16_000) for _ in range(2000)]  # 64 kB each: from the heap, not mapped
    last = torch.ones(16_000)
    full = resident()
    del small
    memory.give_back()
    assert full - resident() > 100_000  # of 128,000 kB
    assert last.sum() == 16_000


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_happens(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    memory._trim.cache_clear()
    try:
        assert memory._trim() is None
        memory.give_back()
    finally:
        memory._trim.cache_clear()
