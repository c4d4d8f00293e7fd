"""KDFlow's ``rollout_data/N.jsonl``: the templated prompt, and the text of the response without special tokens.

Step N counts from 1 and goes up before the rollout, so that its responses are of weights with N - 1 updates (rounds,
as its checkpoints count them). The server decodes without special tokens unless told otherwise, so that the text
counts as stripped. Source: ``rollout`` and ``fit`` in ``kdflow/trainer/on_policy_kd_trainer.py`` of 2026-04.
"""

from __future__ import annotations

import re

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded.lines import rows
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile, updates_before
from opd_diag.runs.recorded.values import finite, text


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read the rollouts of one step.

    Raises
    ------
    RolloutsError
        A line is no record of KDFlow's.
    """
    return [
        Recorded(
            place=place,
            step=file.step,
            updates=updates_before(file.step, file),
            exactness="text-stripped",
            prompt=text(record, "prompt", place),
            response=text(record, "output", place),
            reward=finite(record.get("reward_result")),  # what else a reward function returned is its own
        )
        for place, record in rows(file.path, reading)
    ]


FORMATS = (
    Format(
        "kdflow",
        "KDFlow rollout_data/N.jsonl",
        "text-stripped",
        re.compile(r"/rollout_data/(?P<step>\d+)\.jsonl$", re.ASCII),
        read,
        frozenset({"prompt", "output"}),
    ),
)
