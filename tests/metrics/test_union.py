"""What both models say about the union of their top-k: by hand, a naive version, and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from opd_diag import metrics

from .kept_pairs import kept_of, rows


def of_union(kept):
    """Ids of each union with both models' probabilities there."""
    for s, t, *logprobs in rows(*kept):
        student = dict(zip(s, logprobs[0], strict=True)) | dict(zip(t, logprobs[2], strict=True))
        teacher = dict(zip(s, logprobs[1], strict=True)) | dict(zip(t, logprobs[3], strict=True))
        ids = sorted(student)
        yield ids, [math.exp(student[v]) for v in ids], [math.exp(teacher[v]) for v in ids]


@pytest.fixture(params=[(40, 6), (12, 12), (200, 32), (9, 1)], ids=str)
def kept(request, random_pair):
    vocabulary, k = request.param
    return kept_of(*random_pair(vocabulary, 50, seed=vocabulary), k)


def test_by_hand():
    # Union 0, 1, 2; p̄ = (.6, .3, .1), q̄ = (.1, .3, .6): 2 √.06 + .3 = .789898.
    p, q = (torch.tensor(x, dtype=torch.float64).log() for x in ([0.54, 0.27, 0.09, 0.1], [0.09, 0.27, 0.54, 0.1]))
    kept = kept_of(p, q, 2)
    assert metrics.bhattacharyya_coefficient(*kept).item() == pytest.approx(0.789898, abs=1e-6)


def test_each_token_of_the_union_is_there_once(kept):
    student, teacher = metrics.union_logprobs(*kept)
    for (ids, p, q), first, second in zip(of_union(kept), student.tolist(), teacher.tolist(), strict=True):
        assert sum(x > -math.inf for x in first) == sum(x > -math.inf for x in second) == len(ids)
        assert sorted(x for x in first if x > -math.inf) == pytest.approx(sorted(math.log(x) for x in p))
        assert sorted(x for x in second if x > -math.inf) == pytest.approx(sorted(math.log(x) for x in q))


def test_equal_to_the_naive_version_and_to_scipy(kept):
    found = metrics.bhattacharyya_coefficient(*kept).tolist()
    naive = [sum(math.sqrt(a / sum(p) * b / sum(q)) for a, b in zip(p, q, strict=True)) for _, p, q in of_union(kept)]
    assert found == pytest.approx(naive, abs=1e-12)
    roots = [1 - cosine(np.sqrt(p), np.sqrt(q)) for _, p, q in of_union(kept)]
    assert found == pytest.approx(roots, abs=1e-9)
    assert min(found) < 0.95 or kept.student.shape[-1] == 1


def test_without_a_common_token_only_what_one_model_says_of_the_others_counts():
    ids, others = torch.tensor([1]), torch.tensor([2])
    certain, nothing = torch.tensor([0.0]), torch.tensor([-math.inf])
    assert metrics.bhattacharyya_coefficient(ids, others, certain, nothing, nothing, certain).item() == 0.0
    half = torch.tensor([0.5]).log()
    assert metrics.bhattacharyya_coefficient(ids, others, half, half, half, half).item() == pytest.approx(1.0)


def test_refuses_log_probabilities_of_other_shapes():
    ids, logprobs = torch.arange(4).expand(3, 4), torch.zeros(3, 4)
    given = (ids, ids, logprobs, logprobs, logprobs, logprobs)
    for place in range(2, 6):
        with pytest.raises(ValueError, match=r"ids' shape \(3,.*\), found \(1,"):
            metrics.bhattacharyya_coefficient(*given[:place], given[place][:1], *given[place + 1 :])
