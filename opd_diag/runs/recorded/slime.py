"""What slime dumps, ``rollout_data/N.pt`` and ``train_data/N.pt``: token-exact, with masks and log-probabilities.

Both hold a dict with ``samples``, one dict a response: ``tokens`` is prompt and response, the response being the last
``response_length``; ``loss_mask`` (over the response; none: all of it) is 0 at tool output. The second has the same
responses under names in the plural and what training made of them; beside the first it is a copy and not listed.
Most files are plain values and tensors and load without running code; others need ``--allow-pickle``.

Rollouts count from 0 and come before the update of their number: N updates, as its checkpoints count rollouts. An
asynchronous run is one staler; ``weight_versions`` count hand-overs since the last start and are no updates. Source:
``save_debug_rollout_data`` and ``save_debug_train_data`` in ``slime/observability/``, ``Sample`` in
``slime/utils/types.py``, ``train.py``, 0.3.1.
"""

from __future__ import annotations

import re
from typing import Any

from opd_diag.errors import RolloutsError
from opd_diag.records.recorded import Recorded
from opd_diag.records.rollout import StopReason
from opd_diag.runs.recorded.pickles import load_pt, tensor_values
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile
from opd_diag.runs.recorded.tokens import with_ids
from opd_diag.runs.recorded.values import Values, logprobs, mask, named, number, refused, token_ids, whole

_STOPPED: dict[Any, StopReason] = {"completed": "stop", "truncated": "length"}


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read one rollout step.

    Raises
    ------
    RolloutsError
        It is no dump of slime's, or needs code to be run (code ``PICKLE_REFUSED``).
    """
    content = load_pt(file.path, allow_pickle=reading.allow_pickle)
    samples = content.get("samples") if isinstance(content, dict) else None
    if not isinstance(samples, list) or not all(isinstance(sample, dict) for sample in samples):
        found = f"a dict with {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise RolloutsError(f"{file.path}: expected slime's dict with 'samples', found {found}. Leave the file out.")
    step = whole(content, "rollout_id", str(file.path), file.step)
    made = [_recorded(s, f"{file.path}, sample {i}", step) for i, s in enumerate(samples, start=1)]
    return reading.kept(file.path, made)


def _recorded(sample: dict[str, Any], place: str, step: int | None) -> Recorded | None:
    values = {_NAMES[name]: tensor_values(value) for name, value in sample.items() if name in _NAMES}
    ids = token_ids(values, "tokens", place)
    length = whole(values, "response_length", place)
    if length is None or length > len(ids):
        raise refused(values, "response_length", f"a whole number up to {len(ids)}, the number of tokens", place)
    start = len(ids) - length
    masked = values.get("loss_mask") is not None
    generated = mask(values, "loss_mask", place) if masked else (True,) * length
    sampled = logprobs(values, "rollout_log_probs", place)
    blank = Recorded(
        place=place,
        step=step,
        updates=step,
        exactness="ids",
        stop_reason=_stop_reason(values),
        reward=None if isinstance(values.get("reward"), dict) else number(values, "reward", place),
        answer=named(values.get("label")),
    )
    _refuse_lengths(place, length, {"loss_mask": generated, "rollout_log_probs": sampled})
    before = (0.0,) * start
    return with_ids(blank, ids, (False,) * start + generated, None if sampled is None else before + sampled, start)


def _refuse_lengths(place: str, length: int, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value is not None and len(value) != length:
            raise RolloutsError(
                f"{place}: response_length is {length}, but {name} has {len(value)} entries. Leave the file out."
            )


def _stop_reason(values: Values) -> StopReason:
    if "status" in values:
        return _STOPPED.get(named(values["status"]), "unknown")
    return "length" if values.get("truncated") == 1 else "unknown"


_NAMES = {name: name for name in ("tokens", "response_length", "loss_mask", "rollout_log_probs")}
_NAMES |= {name: name for name in ("status", "truncated", "reward", "label")}
_NAMES |= {"response_lengths": "response_length", "loss_masks": "loss_mask"}
"""What is read, by its name in either file; the ``rewards`` of ``train_data`` are normalised ones and are not."""

FORMATS = (
    Format(
        "slime",
        "slime rollout_data/N.pt or train_data/N.pt",
        "ids",
        re.compile(r"/(?:rollout_data|train_data)/(?P<step>\d+)\.pt$", re.ASCII),
        read,
    ),
)
