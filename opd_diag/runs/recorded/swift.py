"""What ms-swift logs, ``completions.jsonl``: each line one flush, a dict of columns; under Ray one response a line.

Prompts are templated text with special tokens, completions are what the sampler returned, without them as a rule.

======================  =====================================================================================
GRPO, ``step`` N        the last generation batch before the log of step N: N - 1 updates
GKD, ``step`` N         all since the last flush: N - 1 updates where that was at N - 1, else nothing tells
``gen_step`` g          Megatron and Ray: sampled before update g + 1, with g updates
======================  =====================================================================================

Source: ``log`` in ``swift/rlhf_trainers/{gkd,grpo}_trainer.py``, ``_build_log_table`` in
``swift/megatron/trainers/rollout_mixin.py``, ``_maybe_log_completions`` in ``swift/ray/megatron/base_trainer.py``,
main of 2026-08.
"""

from __future__ import annotations

import re
from typing import Any

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded.lines import is_columns, json_objects, unfolded
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile
from opd_diag.runs.recorded.trl import reward_column
from opd_diag.runs.recorded.values import named, number, text, whole


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read all flushes of one run.

    Raises
    ------
    RolloutsError
        A line is neither a flush nor a response.
    """
    recorded: list[Recorded] = []
    last = 0
    for line, record in json_objects(file.path, reading):
        place = f"{file.path}, line {line}"
        if not is_columns(record):
            recorded.append(_recorded(record, place, last, "reward"))
            continue
        found = unfolded(record, ("prompt", "completion"), place)
        reward = reward_column(found)
        flush = [_recorded(row, f"{place}, row {index}", last, reward) for index, row in enumerate(found, start=1)]
        last = max([last, *(r.step for r in flush if r.step is not None)])
        recorded += flush
    return recorded


def _recorded(row: dict[str, Any], place: str, last: int, reward: str | None) -> Recorded:
    step = whole(row, "step", place)
    return Recorded(
        place=place,
        step=whole(row, "gen_step", place) if step is None else step,
        updates=_updates(row, place, last),
        exactness="text-stripped",
        prompt=text(row, "prompt", place),
        response=text(row, "completion", place),
        reward=number(row, reward, place) if reward else None,
        answer=named(row.get("solution")),
    )


def _updates(row: dict[str, Any], place: str, last: int) -> int | None:
    """Give the updates behind the weights, as the table in the module's docstring has them; `last`: flush before."""
    step = whole(row, "step", place)
    if step is None:
        return whole(row, "gen_step", place)
    before = max(step - 1, 0)
    return before if "advantages" in row or before == last else None


FORMATS = (
    Format(
        "ms-swift",
        "ms-swift completions.jsonl",
        "text-stripped",
        re.compile(r"/completions\.jsonl$", re.ASCII),
        read,
        frozenset({"prompt", "completion"}),
    ),
)
