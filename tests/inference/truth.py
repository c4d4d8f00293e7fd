"""What every field of ``Scores`` ought to be: each sequence alone through ``model(ids).logits``, then float64 numpy."""

from __future__ import annotations

import numpy as np
import torch

from opd_diag.records.scores import TENSOR_FIELDS, Scores

CLEAR = 2e-5
"""Two log-probabilities closer than this may change places by rounding."""

TOLERANCE = 1e-5
"""Of a log-probability, entropy or divergence, in nats, and of a probability."""


@torch.no_grad()
def logprobs_before(model, prompt_ids, response_ids, positions, *, vocabulary=None, temperature=1.0):
    """(states, vocabulary) log-probabilities before each position of the response, renormalised; and the mass cut."""
    ids = torch.tensor([[*prompt_ids, *response_ids]])
    logits = model.hf(ids).logits[0].double().numpy() / temperature
    logits = logits[[len(prompt_ids) - 1 + p for p in positions]]
    whole = logits - logsumexp(logits)[:, None]
    common = whole[:, :vocabulary]
    norm = logsumexp(common)
    return common - norm[:, None], np.exp(whole[:, common.shape[1] :]).sum(-1)


def logsumexp(values):
    top = values.max(-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - top).sum(-1)) + top[:, 0]


def expectation(weights, values):
    """Σ w·v with 0 · anything = 0."""
    return np.where(weights > 0, weights * np.where(weights > 0, values, 0.0), 0.0).sum(-1)


def kl(a, b):
    with np.errstate(invalid="ignore"):
        return expectation(np.exp(a), a - b)


def positions_of(rollout):
    """States, and the terminal one of a truncated rollout, written without the code under test."""
    n = len(rollout.response_ids)
    own = [i for i in range(n) if rollout.generated is None or rollout.generated[i]]
    return own + ([n] if rollout.stop_reason == "length" else [])


def true_distributions(student, teacher, rollouts, *, temperatures=(1.0, 1.0)):
    """(N, V) of both models, the masses cut, and the rows' (rollout, position)."""
    vocabulary = min(student.vocabulary, teacher.vocabulary)
    p, q, p_cut, q_cut, places = [], [], [], [], []
    for i, r in enumerate(rollouts):
        where = positions_of(r)
        if not where:
            continue
        for out, cut, model, prompt, t in (
            (p, p_cut, student, r.prompt_ids, temperatures[0]),
            (q, q_cut, teacher, r.teacher_prompt_ids, temperatures[1]),
        ):
            values, mass = logprobs_before(model, prompt, r.response_ids, where, vocabulary=vocabulary, temperature=t)
            out.append(values)
            cut.append(mass)
        places += [(i, position) for position in where]
    return (*(np.concatenate(x) for x in (p, q, p_cut, q_cut)), places)


def assert_scores_are_true(scores: Scores, student, teacher, rollouts, *, temperatures=(1.0, 1.0), stop_ids) -> None:
    """Hold every field against the truth; a field that nobody looked at fails."""
    p, q, p_cut, q_cut, places = true_distributions(student, teacher, rollouts, temperatures=temperatures)
    seen: set[str] = set()

    def close(name, value, where=slice(None), rtol=1e-6):
        found = getattr(scores, name)
        assert found.shape == value.shape, name
        np.testing.assert_allclose(found[where], value[where], atol=TOLERANCE, rtol=rtol, err_msg=name)
        seen.add(name)

    def same(name, value):
        np.testing.assert_array_equal(getattr(scores, name), value, err_msg=name)
        seen.add(name)

    n = len(p)
    rows = np.arange(n)
    same("rollout", [i for i, _ in places])
    same("position", [position for _, position in places])
    response = [rollouts[i].response_ids for i, _ in places]
    terminal = np.array([position == len(r) for (_, position), r in zip(places, response, strict=True)])
    same("terminal", terminal)
    sampled = np.array([-1 if end else r[x] for (_, x), r, end in zip(places, response, terminal, strict=True)])
    same("sampled_ids", sampled)
    close("student_sampled_logprobs", np.where(terminal, np.nan, p[rows, sampled]))
    close("teacher_sampled_logprobs", np.where(terminal, np.nan, q[rows, sampled]))

    close("student_entropy", -expectation(np.exp(p), p))
    close("teacher_entropy", -expectation(np.exp(q), q))
    reverse = kl(p, q)
    close("reverse_kl", reverse)
    close("forward_kl", kl(q, p))
    mixture = np.logaddexp(p, q) - np.log(2)
    close("jensen_shannon", (kl(p, mixture) + kl(q, mixture)) / 2)
    close("common_mass", np.minimum(np.exp(p), np.exp(q)).sum(-1))
    with np.errstate(invalid="ignore"):
        gradient = np.where(p > -np.inf, np.exp(p) * (p - q - reverse[:, None]), 0.0)
    close("gradient_squared_norm", (gradient**2).sum(-1), rtol=1e-5)
    best = p.argmax(-1)
    close("centred_reverse_kl", reverse - (p - q)[rows, best], rtol=1e-5)
    close("student_stop_logprobs", logsumexp(p[:, stop_ids]) if stop_ids else np.full(n, -np.inf))
    close("teacher_stop_logprobs", logsumexp(q[:, stop_ids]) if stop_ids else np.full(n, -np.inf))
    close("student_cut_mass", p_cut)
    close("teacher_cut_mass", q_cut)

    _kept_tokens(scores, p, q, close, seen)
    _curve(scores, p, q, close, seen)
    assert seen == set(TENSOR_FIELDS)


def _kept_tokens(scores, p, q, close, seen):
    k = min(32, p.shape[1])
    assert scores.k_kept == k
    for model, own, other, crossed in (
        ("student", p, q, "teacher_at_student_topk_logprobs"),
        ("teacher", q, p, "student_at_teacher_topk_logprobs"),
    ):
        ids = getattr(scores, f"{model}_topk_ids")
        seen.add(f"{model}_topk_ids")
        assert ids.shape == (len(p), k)
        order = np.argsort(-own, axis=-1, kind="stable")
        ranked = np.take_along_axis(own, order, -1)
        # Ids are exact wherever float32 can tell neighbours in rank apart, which is nearly everywhere.
        gaps = np.full((len(p), p.shape[1] + 1), np.inf)
        gaps[:, 1:-1] = ranked[:, :-1] - ranked[:, 1:]
        clear = (np.minimum(gaps[:, :-1], gaps[:, 1:]) > CLEAR)[:, :k]
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(ids[clear], order[:, :k][clear])
        assert all(len(set(row)) == k for row in ids.tolist())
        close(f"{model}_topk_logprobs", ranked[:, :k])
        close(f"{model}_topk_logprobs", np.take_along_axis(own, ids.astype(int), -1))
        close(crossed, np.take_along_axis(other, ids.astype(int), -1))


def _curve(scores, p, q, close, seen):
    vocabulary = p.shape[1]
    grid = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k <= vocabulary]
    assert scores.grid == tuple(grid)
    fields = {name: np.empty((len(p), len(grid))) for name in _CURVE}
    clear = np.ones((len(p), len(grid)), dtype=bool)
    for g, k in enumerate(grid):
        for row in range(len(p)):
            tops = []
            for own in (p[row], q[row]):
                order = np.argsort(-own, kind="stable")
                tops.append(set(order[:k].tolist()))
                if k < vocabulary:
                    clear[row, g] &= bool(own[order[k - 1]] - own[order[k]] > CLEAR)
            shared = sorted(tops[0] & tops[1])
            fields["curve_shared"][row, g] = len(shared)
            fields["curve_student_shared_mass"][row, g] = np.exp(p[row, shared]).sum()
            fields["curve_teacher_shared_mass"][row, g] = np.exp(q[row, shared]).sum()
            fields["curve_student_mass"][row, g] = np.exp(p[row, sorted(tops[0])]).sum()
            fields["curve_teacher_mass"][row, g] = np.exp(q[row, sorted(tops[1])]).sum()
    assert clear.mean() > 0.97
    for name, value in fields.items():
        close(name, value, clear)


_CURVE = (
    "curve_shared",
    "curve_student_shared_mass",
    "curve_teacher_shared_mass",
    "curve_student_mass",
    "curve_teacher_mass",
)


def assert_same_scores(first: Scores, second: Scores, rows=slice(None)) -> None:
    """Equal to rounding; kept ids may change places only where their log-probabilities are equal to rounding."""
    for name in TENSOR_FIELDS:
        a, b = getattr(first, name)[rows], getattr(second, name)
        assert a.shape == b.shape, name
        if name in ("student_topk_ids", "teacher_topk_ids", "curve_shared"):
            assert (a == b).mean() > 0.99, name
        elif name.startswith("curve") or "_at_" in name:
            assert np.isclose(a, b, atol=TOLERANCE, rtol=0, equal_nan=True).mean() > 0.99, name
        elif name == "rollout":
            assert len(a) == len(b)
        else:
            np.testing.assert_allclose(a, b, atol=TOLERANCE, rtol=1e-5, err_msg=name)
