"""Whether the torch that is installed reads pickled tensors safely."""

from __future__ import annotations

import re

SAFE_TORCH = (2, 10)
"""First torch whose reader for weights (``weights_only``) has no hole that is known."""


def unsafe_torch() -> str | None:
    """Say why this torch is not to read pickles of strangers, as a clause; None where it may."""
    import torch

    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) >= SAFE_TORCH:
        return None
    return f"torch {torch.__version__} reads pickles unsafely (CVE-2026-24747, mended in 2.10)"
