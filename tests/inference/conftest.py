"""A pair that many modules score, and GPUs where there are none."""

from __future__ import annotations

import pytest
import torch
from models import RAGGED, random_rollouts, wrapped

from opd_diag.inference import device_maps, placing, score
from opd_diag.inference.device_maps import resolve_device
from opd_diag.inference.room import Room


@pytest.fixture(scope="module")
def student():
    return wrapped("llama", name="step 20", label="step 20", step=20, seed=1)


@pytest.fixture(scope="module")
def teacher():
    return wrapped("qwen3", name="big teacher", seed=2, eos_token_id=[2, 5])


@pytest.fixture(scope="module")
def rollouts():
    return random_rollouts(RAGGED)


@pytest.fixture(scope="module")
def local(student, teacher, rollouts):
    """Its scores."""
    return score(student, teacher, rollouts)


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs as far as maps are concerned; give what is free on each device, to be changed."""
    free = {"cuda:0": 10**6, "cuda:1": 10**6, "cpu": 10**6}
    there = resolve_device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(placing, "room_of", lambda device: Room(free[str(device)], 10**7))
    for module in (device_maps, placing):
        monkeypatch.setattr(
            module, "resolve_device", lambda name: torch.device(name) if name in ("cuda", *free) else there(name)
        )
    return free
