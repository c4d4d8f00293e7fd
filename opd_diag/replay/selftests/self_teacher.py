"""The student as its own teacher: what must be nothing, through the very path that scores take."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from opd_diag import metrics
from opd_diag.inference import Model, score
from opd_diag.inference.shards import Progress
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.selftest import SelfTest
from opd_diag.replay.selftests.limits import SELF_KL, SELF_OVERLAP
from opd_diag.replay.selftests.probe import own_view

NAME = "self_teacher"


def self_teacher(student: Model, rollouts: Sequence[Rollout], *, progress: Progress | None = None) -> SelfTest:
    """Score a model against itself: KL 0 within precision, overlap 1, no entropy gap.

    Parameters
    ----------
    student
        The model; it is run twice, once as either.
    rollouts
        A few responses, each with a state.
    progress
        Called with (tokens done, tokens in all).
    """
    return judged(student.name, score(student, student, own_view(rollouts), progress=progress))


def judged(model: str, scores: Scores) -> SelfTest:
    """Judge scores of a model against itself."""
    states = ~np.asarray(scores.terminal)
    ids = [torch.from_numpy(np.asarray(getattr(scores, f"{who}_topk_ids"))[states]) for who in ("student", "teacher")]
    overlap = float(metrics.overlap_ratio(*ids).mean())
    divergence = float(np.asarray(scores.reverse_kl)[states].mean(dtype=np.float64))
    entropies = np.asarray(scores.student_entropy, dtype=np.float64) - np.asarray(scores.teacher_entropy)
    gap = float(np.abs(entropies[states]).mean())
    passes = abs(divergence) <= SELF_KL and overlap >= SELF_OVERLAP and gap <= math.sqrt(SELF_KL)
    return SelfTest(
        name=NAME,
        model=model,
        status="pass" if passes else "fail",
        value=divergence,
        threshold=SELF_KL,
        evidence=f"As its own teacher, {model} has reverse KL {divergence:.1e} nats, overlap ratio {overlap:.4g} and "
        f"entropy gap {gap:.1e} nats over {int(states.sum())} states.",
        advice=""
        if passes
        else "The model does not give the same numbers twice: look for dropout or other noise that is left on in its "
        "code, or report its architecture.",
    )
