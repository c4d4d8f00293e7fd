"""SkyRL's ``dumped_data/global_step_N_training_input.pkl``: the batch of one step, token-exact.

A pickled dict of padded tensors: ``attention_mask`` tells the tokens of ``sequences``, of which those of
``response_mask`` are the last ones; ``loss_mask`` is 0 at tool output and ``rollout_logprobs`` stand beside it. Rows
that only fill the batch up are left out, and so are responses that overlong filtering masked whole: nothing tells
which of their tokens were generated. SkyRL need not be installed; the file is read with ``--allow-pickle`` only.

Step N counts from 1 and was sampled with N - 1 updates; the fully asynchronous trainer is staler, which no file tells.
Source: ``convert_to_training_input`` and ``dump_data`` in ``skyrl/train/trainer.py``, ``TensorBatch`` in
``skyrl/backends/skyrl_train/training_batch.py``, ``skyrl/train/dataset/preprocess.py`` of 2026-08.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from opd_diag.errors import RolloutsError
from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded.pickles import load_pickle, tensor_values
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile, updates_before
from opd_diag.runs.recorded.tokens import with_ids
from opd_diag.runs.recorded.values import logprobs, mask, refused, token_ids

_T = TypeVar("_T")

_NEEDED = ("sequences", "attention_mask", "response_mask", "loss_mask")


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read the batch of one step.

    Raises
    ------
    RolloutsError
        It is no batch of SkyRL's, or pickles are not allowed (code ``PICKLE_REFUSED``).
    """
    batch = load_pickle(file.path, STAND_INS, allow_pickle=reading.allow_pickle)
    if not isinstance(batch, dict) or any(name not in batch for name in _NEEDED):
        found = ", ".join(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        raise RolloutsError(
            f"{file.path}: expected SkyRL's batch with {', '.join(_NEEDED)}, found {found}. Leave the file out."
        )
    names = (*_NEEDED, "rollout_logprobs", "rewards")
    columns = {name: _table(batch, name, str(file.path)) for name in names if batch.get(name) is not None}
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise RolloutsError(f"{file.path}: expected tables of one length, found {lengths}. Leave the file out.")
    count = len(columns["sequences"])
    padding = (getattr(batch, "metadata", None) or {}).get("pad_size", 0)
    if type(padding) is not int or not 0 <= padding <= count:
        raise RolloutsError(f"{file.path}: pad_size must be 0 to {count}, found {padding!r}. Leave the file out.")
    rows = [{name: column[i] for name, column in columns.items()} for i in range(count - padding)]
    made = [_recorded(row, f"{file.path}, row {i}", file) for i, row in enumerate(rows, start=1)]
    return reading.kept(file.path, made)


def _table(batch: dict[str, Any], name: str, place: str) -> list[list[Any]]:
    values = tensor_values(batch[name])
    if not isinstance(values, list) or not all(isinstance(row, list) for row in values):
        raise refused(batch, name, "a table of numbers", place)
    return values


def _recorded(row: dict[str, list[Any]], place: str, file: RecordedFile) -> Recorded | None:
    row = row | {"sequences": [int(v) if isinstance(v, float) and v.is_integer() else v for v in row["sequences"]]}
    ids = _real(token_ids(row, "sequences", place), mask(row, "attention_mask", place), "sequences", place)
    of_response = mask(row, "response_mask", place)
    start = len(ids) - sum(of_response)
    generated = _real(mask(row, "loss_mask", place), of_response, "loss_mask", place)
    sampled = logprobs(row, "rollout_logprobs", place)
    kept = None if sampled is None else _real(sampled, of_response, "rollout_logprobs", place)
    rewards = row.get("rewards")
    blank = Recorded(
        place=place,
        step=file.step,
        updates=updates_before(file.step, file),
        exactness="ids",
        reward=float(sum(rewards)) if rewards else None,
    )
    before = max(start, 0)
    return with_ids(blank, ids, [False] * before + generated, None if kept is None else [0.0] * before + kept, start)


def _real(values: Sequence[_T], flags: Sequence[bool], name: str, place: str) -> list[_T]:
    """Keep the values that are no padding."""
    if len(values) != len(flags):
        raise RolloutsError(f"{place}: {name} has {len(values)} columns, its mask {len(flags)}. Leave the file out.")
    return [value for value, real in zip(values, flags, strict=True) if real]


class _Batch(dict[str, Any]):
    """What a batch of SkyRL's unpickles to: its tensors by name, and its metadata."""

    metadata: dict[str, Any] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state.get("batch_dict") or {})
        self.metadata = state.get("metadata")


def _rebuilt(kind: type, state: dict[str, Any]) -> _Batch:
    """Stand for SkyRL's function of the same purpose: a batch made of its state."""
    batch = _Batch()
    batch.__setstate__(state)
    return batch


_CLASSES = {"TrainingInputBatch": _Batch, "TensorBatch": _Batch, "_rebuild_tensor_batch": _rebuilt}
STAND_INS = {"skyrl": _CLASSES, "skyrl_train": _CLASSES}
"""Package to name to what stands for it; the second is what the package was called before 0.3."""

FORMATS = (
    Format(
        "skyrl-batches",
        "SkyRL dumped_data/global_step_N_training_input.pkl",
        "ids",
        re.compile(r"/dumped_data/global_step_(?P<step>\d+)_training_input\.pkl$", re.ASCII),
        read,
    ),
)
