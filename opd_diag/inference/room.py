"""How much memory a device has, and how much of it is free: asked of the system, nothing is allocated.

Of the CPU Linux says it in ``/proc/meminfo``; a container may have less, which its control group says (version 2, or
1). Elsewhere ``sysconf`` knows the size of the memory alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Room:
    """Memory of one device, in bytes."""

    free: int
    """What can be had now; of the CPU without swapping."""
    total: int
    """More than that it never has; of the CPU swap included."""


def room_of(device: torch.device) -> Room | None:
    """Give the memory of a device; None where the system does not say."""
    if device.type != "cuda":
        return room_of_cpu()
    free, total = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # ours, and used by no tensor
    return Room(free + unused, total)


def room_of_cpu(root: Path = Path("/")) -> Room | None:
    """Give the memory that this process may use.

    Parameters
    ----------
    root
        Folder of ``proc`` and ``sys``.
    """
    said = _meminfo(root)
    if said is None:
        return _by_sysconf()
    free, total, swap = (said.get(name, 0) for name in ("MemAvailable", "MemTotal", "SwapTotal"))
    for limit, used in _limits(root):
        free, total = min(free, max(0, limit - used)), min(total, limit)
    return Room(free, total + swap)


def _meminfo(root: Path) -> dict[str, int] | None:
    """Read what the system says of its memory, in bytes."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        return {name: 1024 * int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    except (OSError, ValueError, LookupError):
        return None


def _limits(root: Path) -> list[tuple[int, int]]:
    """Give (limit, used) of every control group with a limit that this process is in."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for _, controllers, path in (line.split(":", 2) for line in groups if line.count(":") >= 2):
        if controllers == "":
            top, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        here = top / path.lstrip("/")
        for folder in (here, *here.parents):  # a group is bound by the limits of those around it
            found += _limit(folder, limit, used)
            if folder == top:
                break
    return found


def _limit(folder: Path, limit: str, used: str) -> list[tuple[int, int]]:
    try:
        most, now = int((folder / limit).read_text()), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return [(most, now - int(stat.get("inactive_file", 0)))]  # pages of files, which go when memory is needed
    except (OSError, ValueError):  # there is none, or it is "max"
        return []


def _by_sysconf() -> Room | None:
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return Room(size, size)
