"""Random pairs of distributions that the metric tests share."""

from __future__ import annotations

import math

import pytest
import torch


def random_pair(vocabulary, *leading, seed=0, scale=3.0, dtype=torch.float64, holes=0.0):
    """Two (..., V) tensors of normalised log-probabilities that resemble each other; `holes` is the share of -inf.

    Both have the same holes, so that either KL stays finite.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (*leading, vocabulary)
    first = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    second = first + torch.randn(shape, generator=generator, dtype=torch.float64)
    hole = torch.rand(shape, generator=generator) < holes
    hole[..., 0] = False
    first, second = first.masked_fill(hole, -math.inf), second.masked_fill(hole, -math.inf)
    return first.log_softmax(-1).to(dtype), second.log_softmax(-1).to(dtype)


@pytest.fixture(name="random_pair", scope="session")
def random_pair_fixture():
    return random_pair
