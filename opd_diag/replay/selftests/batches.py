"""The same sequences run together and alone: what stands beside a sequence must not change it."""

from __future__ import annotations

import math

from opd_diag.records.selftest import SelfTest
from opd_diag.replay.precision import Floor
from opd_diag.replay.selftests.limits import BATCH_KL

NAME = "batches"


def batches(floor: Floor) -> SelfTest:
    """Judge what the precision floor measured: one pack against sequences one at a time, of the same weights.

    Parameters
    ----------
    floor
        Of the model. It was measured on purpose without padding: sequences stand one behind the other.
    """
    limit = BATCH_KL["float32" if floor.dtype in ("float32", "float64") else "sixteen bits"]
    divergence = floor.batches.get("reverse_kl", math.nan)
    overlap = floor.batches.get("overlap_ratio", math.nan)
    known = math.isfinite(divergence)
    passes = known and divergence <= limit
    return SelfTest(
        name=NAME,
        model=floor.model,
        status="pass" if passes else "fail" if known else "unknown",
        value=divergence,
        threshold=limit,
        evidence=f"Sequences of {floor.model} that run together differ from those that run alone by {divergence:.1e} "
        f"nats of reverse KL and {overlap:.1e} of the overlap ratio over {floor.n_states} states."
        if known
        else f"It could not be measured of {floor.model}. {floor.note or ''}".strip(),
        advice=""
        if passes
        else "What a sequence scores depends on what runs beside it: use --dtype float32, and report the architecture."
        if known
        else "Give responses that begin with a state.",
    )
