"""What the precision floor says of sequences run together."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest

from opd_diag.inference import packing
from opd_diag.inference.attention import Span
from opd_diag.replay.precision import Floor, measured_floors, rollouts_for_floor
from opd_diag.replay.selftests.batches import batches


def floor(divergence, dtype="float32", note=None):
    distances = {} if divergence is None else {"reverse_kl": divergence, "overlap_ratio": 0.0}
    return Floor("step 0", dtype, "float64", 512, 0, {}, distances, note)


def measured(model, rollouts):
    return measured_floors(model, rollouts_for_floor(rollouts, as_teacher=False), temperature=1.0)[16]


def test_a_healthy_model(student, rollouts):
    found = batches(measured(student, rollouts))
    assert (found.name, found.model, found.status) == ("batches", "step 0", "pass")
    assert found.value < 1e-6
    assert "445 states" in found.evidence


def test_a_model_that_depends_on_what_runs_beside_fails(student, rollouts, monkeypatch):
    """Packs whose sequences see each other."""
    whole = packing.span_attention

    @contextmanager
    def blind(hf, spans):
        with whole(hf, (Span((0, 0), (0, spans[-1].own[1])),)) as layout:
            yield layout

    assert student.takes_packs
    monkeypatch.setattr(packing, "span_attention", blind)
    found = batches(measured(student, rollouts))
    assert found.status == "fail"
    assert found.value > 0.01
    assert found.advice


@pytest.mark.parametrize(("value", "dtype", "status"), [
    (2e-3, "float32", "fail"), (2e-3, "bfloat16", "pass"), (0.2, "float16", "fail"), (1e-7, "float32", "pass"),
])  # fmt: skip
def test_limits_know_the_precision(value, dtype, status):
    assert batches(floor(value, dtype)).status == status


def test_what_was_not_measured_is_unknown():
    found = batches(floor(None, note="No response begins with a state."))
    assert (found.status, math.isnan(found.value)) == ("unknown", True)
    assert "No response begins with a state." in found.evidence
