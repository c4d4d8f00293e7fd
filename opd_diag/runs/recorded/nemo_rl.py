"""NeMo-RL's ``train_data_stepN.jsonl``: ids under GRPO, text under distillation; one response a line.

Each value is a list of one entry, a slice of the batch. GRPO has ``token_ids`` padded on the right to the longest,
``input_lengths``, ``token_loss_mask`` (1 where the policy generated) and ``generation_logprobs``, token by token. The
distillation has ``content`` alone: one text a message, of which the first is the templated prompt and the second the
response, decoded without special tokens; what the environment answered follows. Rows with other counts of messages
do not tell which is the prompt and are left out.

Step N counts from 1 and was sampled with N - 1 updates; asynchronous GRPO is staler, which no file tells. Source:
``nemo_rl/algorithms/{distillation,grpo,grpo_sync,ppo}.py``, ``log_batched_dict_as_jsonl`` in
``nemo_rl/utils/logger.py``, ``run_multi_turn_rollout`` in ``nemo_rl/experience/rollouts.py``, main of 2026-08.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from opd_diag.errors import RolloutsError
from opd_diag.records.recorded import Recorded
from opd_diag.records.rollout import Exactness
from opd_diag.runs.recorded.lines import rows
from opd_diag.runs.recorded.recorded_file import NOT_GENERATED, Format, Reading, RecordedFile, updates_before
from opd_diag.runs.recorded.tokens import with_ids
from opd_diag.runs.recorded.values import Values, logprobs, mask, number, refused, text, token_ids, whole


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read the rollouts of one step, with ids where the rows have them.

    Raises
    ------
    RolloutsError
        A line is no record of NeMo-RL's.
    """
    recorded, total, unclear, empty = [], 0, 0, 0
    for place, nested in rows(file.path, reading):
        total += 1
        record = {name: _entry(value) for name, value in nested.items()}
        if "token_ids" in record:
            made = _with_ids(record, place, file)
            empty += made is None
        else:
            made = _with_text(record, place, file)
            unclear += made is None
        if made is not None:
            recorded.append(made)
    reading.left_out(file.path, empty, total, NOT_GENERATED)
    reading.left_out(file.path, unclear, total, "their messages do not tell which is the prompt")
    return recorded


def _entry(value: Any) -> Any:
    """Take a value out of the slice of the batch that it stands in.

    Examples
    --------
    >>> _entry([[5, 6, 7]]), _entry([0.5]), _entry(3)
    ([5, 6, 7], 0.5, 3)
    """
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _blank(record: Values, place: str, file: RecordedFile, exactness: Exactness) -> Recorded:
    reward = "filtered_rewards" if "filtered_rewards" in record else "rewards"
    found = number(record, reward, place) if not isinstance(record.get(reward), list) else None
    return Recorded(place, file.step, updates_before(file.step, file), exactness, reward=found)


def _with_ids(record: Values, place: str, file: RecordedFile) -> Recorded | None:
    ids, generated = token_ids(record, "token_ids", place), mask(record, "token_loss_mask", place)
    length = whole(record, "input_lengths", place)
    length = len(ids) if length is None else length
    if length > len(ids):
        raise RolloutsError(
            f"{place}: input_lengths is {length}, but there are {len(ids)} token ids. Mend it or leave the file out."
        )
    sampled = logprobs(record, "generation_logprobs", place)
    blank = _blank(record, place, file, "ids")
    return with_ids(blank, ids[:length], generated[:length], sampled[:length] if sampled is not None else None)


def _with_text(record: Values, place: str, file: RecordedFile) -> Recorded | None:
    if "content" not in record:
        raise refused(record, "content", "a list of texts", place)
    parts = record["content"]
    if not isinstance(parts, list) or len(parts) not in (2, 3):
        return None
    named = {"prompt": parts[0], "response": parts[1]}
    blank = _blank(record, place, file, "text-stripped")
    return replace(blank, prompt=text(named, "prompt", place), response=text(named, "response", place))


_NAME = re.compile(r"/train_data_step(?P<step>\d+)\.jsonl$", re.ASCII)
FORMATS = (
    Format(
        "nemo-rl",
        "NeMo-RL train_data_stepN.jsonl with token ids",
        "ids",
        _NAME,
        read,
        frozenset({"token_ids", "token_loss_mask"}),
    ),
    Format(
        "nemo-rl-text",
        "NeMo-RL train_data_stepN.jsonl with text",
        "text-stripped",
        _NAME,
        read,
        frozenset({"content", "input_lengths"}),
    ),
)
