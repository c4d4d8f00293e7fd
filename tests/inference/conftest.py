"""GPUs where there are none."""

from __future__ import annotations

import pytest
import torch

from opd_diag.inference import device_maps, placing
from opd_diag.inference.device_maps import resolve_device
from opd_diag.inference.room import Room


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
