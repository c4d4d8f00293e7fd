"""Made-up states of two checkpoints whose own responses break at a place."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd

from opd_diag.studies.horizon_shown import Seen
from opd_diag.tables import METRIC_NAMES
from opd_diag.tables.excess import excess_of

LENGTH = 12
LABELS = ["step 0", "step 9"]


def states(place=None, entropy_place=None):
    """Every metric is level, and reverse KL and student entropy of own states of the last rise from a place on."""
    rng = np.random.default_rng(0)
    rows = []
    for step, label in zip((0, 9), LABELS, strict=True):
        for of in ("on-policy", "teacher"):
            for prompt in range(16):
                for position in range(LENGTH):
                    about = {"step": step, "label": label, "teacher": "big", "states": of, "k": 4}
                    about |= {"prompt_index": prompt, "prompt_id": str(prompt), "group": None, "rollout_index": 0}
                    about |= {"position": position, "sampled_id": 0, "gradient_squared_norm": 1.0, "shared_tokens": 2}
                    row = about | dict.fromkeys(METRIC_NAMES, 0.5 + 0.01 * rng.normal())
                    broken = {"reverse_kl": place, "student_entropy": entropy_place}
                    for metric, at in broken.items():
                        if at is not None and (label, of) == ("step 9", "on-policy") and position >= at:
                            row[metric] += 2.0 + 0.1 * rng.normal()
                    rows.append(row)
    return pd.DataFrame(rows).astype({"step": "Int64"})


def seen(place=None, entropy_place=None):
    """What a replay would show of them."""
    table = states(place, entropy_place)
    plan = SimpleNamespace(
        run="made up", settings=SimpleNamespace(max_new_tokens=20), step_zero_known=True, served=None
    )
    over = {"than": ("step 9", "teacher")}
    return Seen(
        plan=plan,
        student=None,
        states=table,
        labels=LABELS,
        length=LENGTH,
        signal=[excess_of(table, "reverse_kl", "step 9", LENGTH, **over)],
        entropies=[excess_of(table, "student_entropy", of, LENGTH, than=(of, "teacher")) for of in LABELS],
        own=tuple(SimpleNamespace(truncated=False) for _ in range(16)),
        theirs=tuple(SimpleNamespace(truncated=False) for _ in range(16)),
    )


def with_status(verdict, status):
    """The same verdict with another status."""
    return replace(verdict, status=status)
