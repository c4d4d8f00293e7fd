"""The exact top-k: by hand, naive Python, and numpy's stable sort; ties go to the lower ids."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from opd_diag import metrics
from opd_diag.metrics.topk import BLOCK


def naive_topk(values, k):
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]


def assert_topk(logprobs, k):
    """Compare with numpy's lexsort: by value downwards, then by id upwards."""
    values, ids = metrics.topk(logprobs, k)
    array = logprobs.numpy()
    order = np.lexsort((np.broadcast_to(np.arange(array.shape[-1]), array.shape), -array), axis=-1)[..., :k]
    assert ids.tolist() == order.tolist()
    assert torch.equal(values, logprobs.gather(-1, ids))


def test_by_hand():
    # .4 first; the two .2 by lower id; then .1 at id 1 before the .1 at id 3.
    values, ids = metrics.topk(torch.tensor([0.2, 0.1, 0.4, 0.1, 0.2]), 4)
    assert ids.tolist() == [2, 0, 4, 1]
    assert values.tolist() == pytest.approx([0.4, 0.2, 0.2, 0.1])


@pytest.mark.parametrize(
    ("vocabulary", "k"),
    [(1, 1), (5, 1), (5, 5), (127, 3), (128, 32), (129, 129), (1000, 1), (1000, 3), (5000, 16), (20_011, 32)],
)
@pytest.mark.parametrize("levels", [None, 40, 2], ids=["no ties", "ties", "two values"])
def test_equal_to_the_naive_version_and_to_numpy(vocabulary, k, levels, random_pair):
    logprobs, _ = random_pair(vocabulary, 4, seed=vocabulary, dtype=torch.float32)
    if levels:
        logprobs = torch.randint(0, levels, logprobs.shape, generator=torch.Generator().manual_seed(k)).float()
    _, ids = metrics.topk(logprobs, k)
    assert ids.tolist() == [naive_topk(row, k) for row in logprobs.tolist()]
    assert_topk(logprobs, k)


@pytest.mark.parametrize("k", [1, 2, 8])
def test_winners_in_one_block_at_block_ends_or_in_the_rest(k):
    vocabulary = 40 * BLOCK + 17
    for places in (range(3 * BLOCK, 3 * BLOCK + 8), [0, BLOCK - 1, BLOCK, 2 * BLOCK], range(40 * BLOCK, vocabulary)):
        logprobs = -torch.rand(3, vocabulary, generator=torch.Generator().manual_seed(0)) - 5
        logprobs[:, list(places)] += 4
        assert_topk(logprobs, k)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_ties_across_the_edge_of_the_top_take_the_lower_ids(k):
    vocabulary = 80 * BLOCK + 17
    logprobs = torch.full((2, vocabulary), -9.0)
    logprobs[0, [4999, 5100, 17, 300, 2900, 80 * BLOCK + 3, 1, 700, 701, 702]] = -1.0
    logprobs[1, 4000:] = -1.0
    _, ids = metrics.topk(logprobs, k)
    assert ids[0].tolist() == [1, 17, 300, 700, 701, 702, 2900, 4999][:k]
    assert ids[1].tolist() == list(range(4000, 4000 + k))


def test_fewer_possible_tokens_than_k():
    logprobs = torch.full((6000,), -math.inf)
    logprobs[[5000, 40]] = torch.tensor([0.75, 0.25]).log()
    values, ids = metrics.topk(logprobs, 5)
    assert ids.tolist() == [5000, 40, 0, 1, 2]
    assert values.tolist()[2:] == [-math.inf] * 3


@pytest.mark.parametrize("vocabulary", [60, 6000])
def test_any_leading_shape_and_arguments_untouched(vocabulary):
    logprobs = torch.randint(0, 50, (2, 3, vocabulary), generator=torch.Generator().manual_seed(2)).float()
    before = logprobs.clone()
    values, ids = metrics.topk(logprobs, 4)
    assert values.shape == ids.shape == (2, 3, 4)
    assert torch.equal(logprobs, before)
    for i in range(2):
        for j in range(3):
            assert ids[i, j].tolist() == naive_topk(logprobs[i, j].tolist(), 4)
            assert metrics.topk(logprobs[i, j], 4)[1].tolist() == ids[i, j].tolist()
    assert_topk(logprobs.transpose(0, 1), 4)


@pytest.mark.parametrize("k", [0, -1, 6])
def test_refuses_k_outside_the_vocabulary(k):
    with pytest.raises(ValueError, match=rf"1 to the vocabulary size 5, found {k}"):
        metrics.topk(torch.zeros(5), k)
