"""Our own ``rollouts/step-000040.jsonl``, as a report or the recorder writes them: token-exact, provenance known."""

from __future__ import annotations

import math
import re

from opd_diag.records.recorded import Recorded
from opd_diag.records.rollout import Rollout, load_rollouts
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read one file of rollouts; those that no step is known of, as the teacher's, are left out.

    Raises
    ------
    RolloutsError
        A line is no rollout.
    """
    rollouts = load_rollouts(file.path)
    kept = [_recorded(r, f"{file.path}, rollout {r.name}") for r in rollouts if r.provenance.step is not None]
    reading.left_out(file.path, len(rollouts) - len(kept), len(rollouts), "no step of a student is known of them")
    return kept


def _recorded(rollout: Rollout, place: str) -> Recorded:
    temperature = rollout.provenance.temperature
    return Recorded(
        place=place,
        step=rollout.provenance.step,
        updates=rollout.provenance.step,
        exactness=rollout.exactness,
        prompt=rollout.prompt_text or None,
        response=rollout.response_text or None,
        prompt_ids=rollout.prompt_ids,
        response_ids=rollout.response_ids,
        generated=rollout.generated,
        sampled_logprobs=rollout.sampled_logprobs,
        stop_reason=rollout.stop_reason,
        temperature=None if math.isnan(temperature) else temperature,
        reward=rollout.reward,
        answer=rollout.answer,
        group=rollout.group,
        prompt_name=rollout.prompt_id,
    )


FORMATS = (
    Format(
        "opd-diag",
        "opd-diag rollouts/*.jsonl",
        "ids",
        re.compile(r"/rollouts/step-(?P<step>\d+)\.jsonl$", re.ASCII),
        read,
        frozenset({"prompt_index", "rollout_index", "response_ids", "provenance"}),
    ),
)
