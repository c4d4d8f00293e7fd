"""ROLL's ``rollout_dump_data.step_N.jsonl``: a whole step as one line of columns, responses without special tokens.

Steps count from 0 and the weights are handed to the sampler first, so that step N is of weights with N updates;
an asynchronous pipeline is staler, which no file tells. Which columns there are depends on the data set. Source:
``dump_rollout_to_specific_path`` in ``roll/pipeline/rlvr/utils.py`` and ``rlvr_pipeline.py`` of 2026-08.
"""

from __future__ import annotations

import json
import re
from typing import Any

from opd_diag.errors import RolloutsError
from opd_diag.records.recorded import Message, Recorded
from opd_diag.runs.recorded.lines import rows
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile
from opd_diag.runs.recorded.values import finite, named, number, text, text_or_messages, whole


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read the rollouts of one step.

    Raises
    ------
    RolloutsError
        The line is no table of ROLL's, or has a prompt neither as ``prompt`` nor as ``messages``.
    """
    recorded = []
    for place, row in rows(file.path, reading, ("responses",)):
        step = whole(row, "global_step", place, file.step)
        recorded.append(
            Recorded(
                place=place,
                step=step,
                updates=step,
                exactness="text-stripped",
                prompt=_prompt(row, place),
                response=text(row, "responses", place),
                reward=number(row, "scores", place),
                answer=named(row.get("ground_truth")),
                group=named(row.get("domain")) or named(row.get("tag")),
                temperature=_temperature(row.get("sampling_params")),
            )
        )
    return recorded


def _prompt(row: dict[str, Any], place: str) -> str | tuple[Message, ...]:
    """Give the prompt: text, or messages, which a data set may hold as JSON."""
    if row.get("prompt") is not None:
        return text_or_messages(row, "prompt", place)
    if row.get("messages") is None:
        raise RolloutsError(
            f"{place}: expected a column 'prompt' or 'messages', found {', '.join(row)}. Keep one of them in the data "
            "set that ROLL reads."
        )
    messages = row["messages"]
    return text_or_messages({"messages": _parsed(messages) or messages}, "messages", place)


def _temperature(value: Any) -> float | None:
    settings = _parsed(value)
    config = settings.get("generation_config") if isinstance(settings, dict) else None
    return finite(config.get("temperature")) if isinstance(config, dict) else None


def _parsed(value: Any) -> Any:
    """Parse what may be JSON as text; None where it is not."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


FORMATS = (
    Format(
        "roll",
        "ROLL rollout_dump_data.step_N.jsonl",
        "text-stripped",
        re.compile(r"/rollout_dump_data\.step_(?P<step>\d+)\.jsonl$", re.ASCII),
        read,
        frozenset({"responses", "global_step"}),
    ),
)
