"""SkyRL's ``dumped_evals/global_step_N_evals/*.jsonl``: responses to evaluation prompts, special tokens kept.

An evaluation filed under N comes after update N, under 0 before the first. ``aggregated_results.jsonl`` beside them
holds means. Source: ``dump_per_dataset_eval_results`` in ``skyrl/train/utils/trainer_utils.py``,
``skyrl/train/evaluate.py`` of 2026-08.
"""

from __future__ import annotations

import re
from typing import Any

from opd_diag.records.recorded import Recorded
from opd_diag.records.rollout import StopReason
from opd_diag.runs.recorded.lines import rows
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile
from opd_diag.runs.recorded.values import finite, named, text

_STOPPED: dict[Any, StopReason] = {"stop": "stop", "length": "length"}


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read the responses to the prompts of one data source.

    Raises
    ------
    RolloutsError
        A line is no record of SkyRL's.
    """
    return [
        Recorded(
            place=place,
            step=file.step,
            updates=file.step,
            exactness="text-with-specials",
            prompt=text(record, "input_prompt", place),
            response=text(record, "output_response", place),
            stop_reason=_STOPPED.get(named(record.get("stop_reason")), "unknown"),
            reward=_score(record.get("score")),
            answer=_answer(record.get("env_extras")),
            group=named(record.get("data_source")),
        )
        for place, record in rows(file.path, reading)
    ]


def _score(value: Any) -> float | None:
    """Give a score; where there is one a token, their sum.

    Examples
    --------
    >>> _score(1), _score([0.0, 0.25, 0.5]), _score("good"), _score([])
    (1.0, 0.75, None, None)
    """
    values = [finite(v) for v in (value if isinstance(value, list) else [value])]
    known = [v for v in values if v is not None]
    return finite(sum(known)) if values and len(known) == len(values) else None


def _answer(extras: Any) -> str | None:
    specification = extras.get("reward_spec") if isinstance(extras, dict) else None
    return named(specification.get("ground_truth")) if isinstance(specification, dict) else None


FORMATS = (
    Format(
        "skyrl-evals",
        "SkyRL dumped_evals/global_step_N_evals/*.jsonl",
        "text-with-specials",
        re.compile(r"/dumped_evals/global_step_(?P<step>\d+)_evals/(?!aggregated_results\.)[^/]+\.jsonl$", re.ASCII),
        read,
        frozenset({"input_prompt", "output_response"}),
        series=2,
    ),
)
