"""The draw is the plain definition in float64, at every number and at the edges that random ones hardly ever reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from opd_diag.inference import drawing
from opd_diag.inference.drawing import draw, tempered_logprobs

SIZES = (1, 39, 128, 129, 1000, 5003)
JUST_BELOW_ONE = 1 - 2**-53


def distribution(logits, temperature):
    """(V,) log-probabilities in float64."""
    scaled = logits.double().numpy() / (temperature or 1.0)
    top = scaled.max()
    return scaled - top - np.log(np.exp(scaled - top).sum())


def kept_probabilities(logits, temperature, top_p):
    """(V,) probabilities in float64, those outside the nucleus set to 0: sorted, summed up, cut."""
    p = np.exp(distribution(logits, temperature))
    order = np.argsort(-logits.numpy(), kind="stable")
    before = np.cumsum(p[order]) - p[order]
    if top_p < 1:
        p[order[before >= top_p]] = 0.0
    return p


def logits_of(rows, size, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, size, generator=generator) + 50.0


def numbers(n, seed=0):
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.3, 1.0), (2.0, 0.9), (1.0, 0.5), (1.0, 0.999)])
@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_each_number_draws_the_token_into_whose_part_it_falls(size, temperature, top_p, spread):
    logits, uniforms = logits_of(40, size, spread), numbers(40)
    ids, logprobs = draw(logits, uniforms, temperature, top_p)
    for row, uniform, token, logprob in zip(logits, uniforms.tolist(), ids.tolist(), logprobs.tolist(), strict=True):
        p = kept_probabilities(row, temperature, top_p)
        edges = np.cumsum(p) / p.sum()
        assert p[token] > 0
        assert (edges[token - 1] if token else 0.0) - 1e-6 <= uniform <= edges[token] + 1e-6
        truth = distribution(row, temperature)[token]
        assert logprob == pytest.approx(truth, abs=1e-6, rel=1e-6 if temperature < 1 else 2e-7)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_nearly_all_numbers_draw_the_token_of_the_plain_definition(top_p):
    logits, uniforms = logits_of(1, 3000, 3.0).expand(4000, -1), numbers(4000)
    ids, _ = draw(logits, uniforms, 1.0, top_p)
    edges = np.cumsum(kept_probabilities(logits[0], 1.0, top_p))
    plain = np.searchsorted(edges, uniforms.numpy() * edges[-1], side="right")
    assert (ids.numpy() == plain).mean() > 0.998
    assert len(set(plain)) > 30


def test_follows_the_distribution():
    logits = torch.cat([logits_of(1, 300, 1.0), torch.full((1, 300), -math.inf)], dim=-1)
    ids, _ = draw(logits.expand(20_000, -1), numbers(20_000), 1.0, 1.0)
    counts = np.bincount(ids.numpy(), minlength=600)
    assert counts[300:].sum() == 0
    expected = 20_000 * np.exp(distribution(logits[0, :300], 1.0))
    often = expected >= 5
    assert often.sum() > 200
    pooled = [np.append(x[often], x[~often].sum()) for x in (counts[:300], expected)]
    assert stats.chisquare(*pooled).pvalue > 0.01


@pytest.mark.parametrize("top_p", [1.0, 0.99])
@pytest.mark.parametrize("uniform", [0.0, 1e-300, 0.5, 1 - 1e-12, JUST_BELOW_ONE])
def test_a_token_of_probability_zero_is_never_drawn(top_p, uniform):
    """Whole blocks without a token, and tokens without probability at the edges of the others."""
    logits = torch.full((200, 1100), -math.inf)
    possible = torch.rand(200, 1100, generator=torch.Generator().manual_seed(1)) < 0.004
    possible[:, 500] = True
    logits[possible] = logits_of(200, 1100, 10.0)[possible]
    ids, logprobs = draw(logits, torch.full((200,), uniform, dtype=torch.float64), 1.0, top_p)
    assert possible.gather(1, ids.unsqueeze(-1)).all()
    assert logprobs.isfinite().all()


def test_the_first_and_the_last_possible_token_are_reached():
    logits = torch.full((2, 700), -math.inf)
    logits[:, [130, 131, 400, 640]] = 0.0
    ids, logprobs = draw(logits, torch.tensor([0.0, JUST_BELOW_ONE], dtype=torch.float64), 1.0, 1.0)
    assert ids.tolist() == [130, 640]
    assert logprobs.tolist() == pytest.approx([math.log(0.25)] * 2)


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 1), (0.2499, 1), (0.2501, 3), (0.7499, 3), (0.7501, 4), (JUST_BELOW_ONE, 4)]
)
def test_each_number_has_its_token(uniform, token):
    logits = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]).log()
    ids, logprobs = draw(logits, torch.tensor([uniform], dtype=torch.float64), 1.0, 1.0)
    assert ids.tolist() == [token]
    assert logprobs.item() == pytest.approx(math.log([0, 0.25, 0, 0.5, 0.25][token]))


def test_the_token_that_crosses_top_p_belongs_and_the_next_does_not():
    logits = torch.tensor([[0.125, 0.5, 0.25, 0.125]]).log()
    for top_p, wanted in ((0.49, {1}), (0.51, {1, 2}), (0.74, {1, 2}), (0.76, {1, 2, 0}), (0.9, {1, 2, 0, 3})):
        uniforms = torch.linspace(0, 1 - 1e-9, 1001, dtype=torch.float64)
        ids, _ = draw(logits.expand(1001, -1), uniforms, 1.0, top_p)
        assert set(ids.tolist()) == wanted, top_p


def test_a_nucleus_wider_than_the_candidates_looked_at_first():
    """Four thousand equal tokens: the nucleus is those with the lower ids. A narrow one beside it is left as it is."""
    size = 4000
    flat, narrow = torch.zeros(size), torch.zeros(size)
    narrow[77] = 30.0
    logits = torch.stack([flat] * 3 + [narrow])
    uniforms = torch.tensor([0.0, 0.5, JUST_BELOW_ONE, 0.5], dtype=torch.float64)
    ids, logprobs = draw(logits, uniforms, 1.0, 0.9)
    assert ids.tolist() == [0, 1800, 3599, 77]
    assert logprobs[:3].tolist() == pytest.approx([-math.log(size)] * 3)  # before top-p


@pytest.mark.parametrize("spread", [0.05, 1.0, 2.5, 3.5])
@pytest.mark.parametrize("top_p", [0.5, 0.95])
def test_the_nucleus_is_the_same_however_it_is_found(monkeypatch, spread, top_p):
    """Narrow, wide, or narrow in some rows only; with tokens that are equally probable."""
    logits, uniforms = (logits_of(60, 1500, spread) * 16).round() / 16, numbers(60)
    for row in (0, 1):
        p = kept_probabilities(logits[row], 1.0, top_p)
        weights = torch.zeros(1, 12, drawing.BLOCK)
        weights.flatten(1)[:, :1500] = (logits[row] - logits[row].max()).exp()
        found = drawing._nucleus(weights, top_p * weights.sum(dtype=torch.float64).view(1, 1))
        assert (found.flatten()[:1500] > 0).tolist() == (p > 0).tolist()
    ids, _ = draw(logits, uniforms, 1.0, top_p)
    for candidates in (1, 1500):
        monkeypatch.setattr(drawing, "CANDIDATES", candidates)
        assert (draw(logits, uniforms, 1.0, top_p)[0] == ids).float().mean() > 0.98


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.9), (0.0, 1.0)])
def test_rows_do_not_depend_on_each_other(monkeypatch, temperature, top_p):
    logits, uniforms = logits_of(30, 1000, 3.0), numbers(30)
    together = draw(logits, uniforms, temperature, top_p)
    monkeypatch.setattr(drawing, "PART_BYTES", 1)
    alone = draw(logits, uniforms, temperature, top_p)
    assert torch.equal(together[0], alone[0])
    torch.testing.assert_close(together[1], alone[1], atol=1e-6, rtol=0)


def test_temperature_zero_takes_the_most_probable_token_and_the_lower_of_two():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 1.0, 3.0]])
    ids, logprobs = draw(logits, torch.tensor([0.9, 0.9], dtype=torch.float64), 0.0, 1.0)
    assert ids.tolist() == [1, 0]
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[[0, 1], [1, 0]])


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.0, 0.9), (0.0, 1.0), (0.5, 1.0)])
@pytest.mark.parametrize("damage", ["nan", "inf", "all -inf"])
def test_damaged_logits_give_nan_and_spare_the_other_rows(temperature, top_p, damage):
    logits = logits_of(3, 300, 3.0)
    if damage == "all -inf":
        logits[1] = -math.inf
    else:
        logits[1, 7] = float(damage)
    ids, logprobs = draw(logits, numbers(3), temperature, top_p)
    assert logprobs.isnan().tolist() == [False, True, False]
    assert ((ids >= 0) & (ids < 300)).all()
    kept = draw(logits[[0, 2]], numbers(3)[[0, 2]], temperature, top_p)
    assert ids[[0, 2]].tolist() == kept[0].tolist()


def test_logits_are_left_as_they_were():
    logits = logits_of(5, 300, 3.0)
    before = logits.clone()
    draw(logits, numbers(5), 0.7, 0.9)
    assert torch.equal(logits, before)


def test_tempered_logprobs():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    torch.testing.assert_close(tempered_logprobs(logits, 2.0), (logits / 2).log_softmax(-1))
    torch.testing.assert_close(tempered_logprobs(logits, 0.0), logits.log_softmax(-1))
