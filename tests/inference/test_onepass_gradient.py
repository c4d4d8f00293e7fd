"""Shares of the gradient from what a scoring keeps, against float64 from the same hidden states and heads."""

from __future__ import annotations

import pytest
import torch

from opd_diag import metrics
from opd_diag.inference.block import BlockPlan, Blocks
from opd_diag.inference.head import Head

V, D, M, K = 6000, 64, 40, 16
TOLERANCE = 1e-4
KEPT = (
    "student_topk_logprobs", "teacher_at_student_topk_logprobs", "student_at_teacher_topk_logprobs",
    "teacher_topk_logprobs",
)  # fmt: skip
CASES = {
    "flat": (0.5, 0.5, 0.0, 0.0),
    "ordinary": (2.0, 1.0, 0.0, 0.0),
    "wide": (8.0, 4.0, 0.0, 0.0),
    "peaked": (2.0, 1.0, 22.0, 18.0),
    "sure student, unsure teacher": (2.0, 1.0, 25.0, 8.0),
    "very peaked": (2.0, 1.0, 30.0, 28.0),
    "near": (2.0, 0.05, 0.0, 0.0),
    "near and peaked": (2.0, 0.05, 20.0, 20.0),
}
"""Spread of the logits, distance of the teacher's, and what both add to the logit of one token."""


def scored(case):
    """Hidden states, both heads, and the fields of a block."""
    spread, distance, *peaks = CASES[case]
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(M, D, generator=generator)
    weight = spread / D**0.5 * torch.randn(V, D, generator=generator)
    weights = weight, weight + distance / D**0.5 * torch.randn(V, D, generator=generator)
    biases = [peak * (torch.arange(V) == 7) for peak in peaks]
    heads = [Head(w, b, 1.0, None) for w, b in zip(weights, biases, strict=True)]
    blocks = Blocks(*heads, BlockPlan(V, 1.0, 1.0, (3,), (1, 2, 4, 8, 16, 32), 32))
    assert blocks.rows >= M
    return hidden, heads, blocks.score(hidden, hidden, torch.ones(M, dtype=torch.long))


def exact_shares(hidden, heads):
    """(M, 4) in float64, and how sure the student is."""
    student, teacher = ((hidden.double() @ h.weight.double().T + h.bias.double()).log_softmax(-1) for h in heads)
    ratio = student - teacher
    p, centred = student.exp(), ratio - ratio.gather(-1, student.argmax(-1, keepdim=True))
    pushes = (p * (centred - (p * centred).sum(-1, keepdim=True))).square()
    nowhere = torch.zeros_like(p, dtype=torch.bool)
    mine, theirs = (nowhere.scatter(-1, metrics.topk(x, K)[1], True) for x in (student, teacher))
    kinds = mine & theirs, mine & ~theirs, theirs & ~mine, ~mine & ~theirs
    return torch.stack([(pushes * of).sum(-1) for of in kinds], dim=-1) / pushes.sum(-1, keepdim=True), p.amax(-1)


@pytest.mark.parametrize("case", CASES)
def test_shares_are_those_of_float64(case):
    hidden, heads, fields = scored(case)
    ids = (fields[name][:, :K] for name in ("student_topk_ids", "teacher_topk_ids"))
    totals = fields["centred_reverse_kl"], fields["gradient_squared_norm"]
    found = torch.stack(metrics.gradient_shares(*ids, *(fields[name][:, :K] for name in KEPT), *totals), dim=-1)
    expected, sureness = exact_shares(hidden, heads)
    defined = ~found.isnan().any(-1)
    torch.testing.assert_close(found[defined], expected[defined], rtol=0, atol=TOLERANCE)
    assert defined.all() or case.startswith("near")
    assert defined.float().mean() > 0.5
    if "peaked" in case or "sure" in case:
        assert sureness.max() > 0.9999


def test_equal_heads_have_no_gradient():
    hidden, (head, _), _ = scored("ordinary")
    fields = Blocks(head, head, BlockPlan(V, 1.0, 1.0, (3,), (1, 2), 32)).score(
        hidden, hidden, torch.ones(M, dtype=torch.long)
    )
    assert fields["gradient_squared_norm"].tolist() == [0.0] * M
    ids = fields["student_topk_ids"], fields["teacher_topk_ids"]
    totals = fields["centred_reverse_kl"], fields["gradient_squared_norm"]
    assert torch.stack(metrics.gradient_shares(*ids, *(fields[name] for name in KEPT), *totals)).isnan().all()
