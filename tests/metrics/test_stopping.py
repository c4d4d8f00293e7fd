"""Probability of stopping: by hand, naive Python, and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from opd_diag import metrics


def test_by_hand():
    # .2 + .3 = .5.
    logprobs = torch.tensor([0.5, 0.2, 0.3]).log()
    assert metrics.stop_logprobs(logprobs, [1, 2]).item() == pytest.approx(math.log(0.5), abs=1e-6)
    assert metrics.stop_logprobs(logprobs, [2]).item() == pytest.approx(math.log(0.3), abs=1e-6)


@pytest.mark.parametrize("stop_ids", [[0], [3, 7], [8, 1, 0, 5]])
def test_equal_to_the_naive_version_and_to_scipy(stop_ids, random_pair):
    logprobs, _ = random_pair(9, 4, 5, holes=0.3)
    found = metrics.stop_logprobs(logprobs, stop_ids)
    assert found.shape == (4, 5)
    masses = [sum(math.exp(row[i]) for i in stop_ids) for row in logprobs.flatten(0, 1).tolist()]
    naive = [math.log(m) if m else -math.inf for m in masses]
    assert found.flatten().tolist() == pytest.approx(naive, abs=1e-12)
    assert found.numpy() == pytest.approx(logsumexp(logprobs.numpy()[..., stop_ids], axis=-1), abs=1e-12)


def test_no_stop_token_is_impossible_and_all_tokens_certain(random_pair):
    logprobs, _ = random_pair(9, 4, dtype=torch.float32)
    assert metrics.stop_logprobs(logprobs, []).tolist() == [-math.inf] * 4
    assert metrics.stop_logprobs(logprobs, range(9)).tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    assert metrics.stop_logprobs(logprobs, range(9)).max().item() <= 0
    excluded = torch.tensor([1.0, 0.0, 0.0]).log()
    assert metrics.stop_logprobs(excluded, [1, 2]).item() == -math.inf


def test_arguments_untouched(random_pair):
    logprobs, _ = random_pair(9, 4)
    before = logprobs.clone()
    metrics.stop_logprobs(logprobs, [2])
    assert torch.equal(logprobs, before)
    assert np.isfinite(before.numpy()).all()
