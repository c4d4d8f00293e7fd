"""Logits that are hard on fp32 sums in one way or another."""

from __future__ import annotations

import math

import torch


def logits_of(kind, states, vocabulary):
    """Give fp32 logits of student and teacher."""
    generator = torch.Generator().manual_seed(7)
    first = 2 * torch.randn(states, vocabulary, generator=generator)
    second = first + torch.randn(states, vocabulary, generator=generator)
    if kind == "peaked":
        first[:, 5] += 30
        second[:, 5] += 25
    elif kind == "offset":
        first, second = first + 300, second - 200
    elif kind == "nearly equal":
        second = first + 1e-4 * torch.randn(states, vocabulary, generator=generator)
    elif kind == "wide":
        first, second = 8 * first, 8 * second
    elif kind == "one ulp apart":
        second = first.clone()
        second[:, ::3] = torch.nextafter(second[:, ::3], torch.tensor(math.inf))
    return first, second


KINDS = ["ordinary", "peaked", "offset", "nearly equal", "wide", "one ulp apart"]


def normalised(logits):
    """Log-probabilities in fp32; log_softmax of fp32 loses up to 4e-5 nats of the normaliser of peaked states."""
    shifted = logits - logits.amax(-1, keepdim=True)
    return shifted - shifted.logsumexp(-1, keepdim=True)
