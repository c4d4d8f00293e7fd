"""Giving memory back to the system between two hungry steps."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Return what the C library holds of memory that nobody uses.

    A body leaves tens of megabytes of freed activations behind, which the heads after it cannot use, as their buffers
    are large and come from elsewhere; without this both count at once. Where there is nothing to return it takes
    microseconds, and where the library has no such function nothing happens.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, other C libraries do not
