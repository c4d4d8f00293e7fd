"""One response, token-exact, and the JSON lines that rollouts are stored in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from opd_diag.errors import RolloutsError
from opd_diag.records.files import ELSEWHERE, write_text
from opd_diag.records.json_lines import json_lines
from opd_diag.records.sampling import Sampling

StopReason = Literal["stop", "length", "unknown"]
Exactness = Literal["ids", "text-with-specials", "text-stripped"]


@dataclass(frozen=True)
class Provenance:
    """Where a rollout comes from: which weights wrote it, and how."""

    origin: Literal["sampled", "recorded"]
    """``sampled``: by opd-diag, now. ``recorded``: by the trainer, then."""
    weights: str
    """Label of the checkpoint that wrote it."""
    weights_key: str
    """Fingerprint of those weights; empty when unknown."""
    step: int | None
    """Optimiser step of those weights; None when unknown."""
    temperature: float
    """Of sampling; NaN when unknown."""
    top_p: float
    """Of sampling; NaN when unknown."""
    seed: int | None
    """Of sampling; None when unknown."""

    @classmethod
    def sampled(cls, sampling: Sampling, *, weights: str, weights_key: str, step: int | None) -> Provenance:
        """Give that of what is sampled now; all but the model follows from how."""
        return cls("sampled", weights, weights_key, step, sampling.temperature, sampling.top_p, sampling.seed)

    @property
    def plain(self) -> bool:
        """Whether it was sampled from the model's own distribution: temperature 1 and top-p 1."""
        return self.temperature == 1.0 and self.top_p == 1.0


@dataclass(frozen=True)
class Rollout:
    """One response to one prompt."""

    prompt_index: int
    """Which prompt, counted from 0; rollouts that share it share a cluster in every interval."""
    rollout_index: int
    """Which response to that prompt, counted from 0."""
    prompt_id: str
    """The user's id of the prompt."""
    group: str | None
    """Data source or kind of task."""
    prompt_ids: tuple[int, ...]
    """Token ids the student saw, exactly."""
    teacher_prompt_ids: tuple[int, ...]
    """Token ids the teacher sees; equal to `prompt_ids` unless a template, system prompt or hint differs."""
    response_ids: tuple[int, ...]
    """Token ids of the response, **including** the stop token, if any."""
    stop_reason: StopReason
    """``stop``: ended by a stop token. ``length``: cut at the limit. ``unknown``: the record does not tell."""
    provenance: Provenance
    generated: tuple[bool, ...] | None = None
    """Which response tokens the student generated (tool output is not a state); None: all."""
    sampled_logprobs: tuple[float, ...] | None = None
    """Log-probability of each response token when it was sampled, in nats, at the sampling temperature and before
    top-p; None when unknown."""
    answer: str | None = None
    """Reference answer of the prompt."""
    is_correct: bool | None = None
    """Whether the response gives the reference answer; None when unknown."""
    reward: float | None = None
    """Reward recorded in training; None when unknown."""
    exactness: Exactness = "ids"
    """How exact the ids are: recorded as ids, re-tokenised from text with special tokens, or from stripped text."""
    prompt_text: str = ""
    """`prompt_ids` as text with special tokens, to be read by people."""
    response_text: str = ""
    """`response_ids` as text with special tokens, to be read by people."""

    def __post_init__(self) -> None:
        n = len(self.response_ids)
        if not self.prompt_ids or not self.teacher_prompt_ids:
            raise RolloutsError(f"Rollout {self.name}: a prompt needs at least one token for student and teacher.")
        for field_name in ("generated", "sampled_logprobs"):
            value = getattr(self, field_name)
            if value is not None and len(value) != n:
                raise RolloutsError(
                    f"Rollout {self.name}: {field_name} has {len(value)} entries, the response {n} tokens."
                )

    @property
    def name(self) -> str:
        """Short name for messages: prompt id and rollout index."""
        return f"{self.prompt_id}/{self.rollout_index}"

    @property
    def truncated(self) -> bool:
        """Whether the response was cut at the length limit."""
        return self.stop_reason == "length"

    @property
    def state_positions(self) -> tuple[int, ...]:
        """Positions of the response tokens that the student generated: its states."""
        if self.generated is None:
            return tuple(range(len(self.response_ids)))
        return tuple(i for i, own in enumerate(self.generated) if own)


def in_training(step: int) -> str:
    """Give the label of weights as they were in training after `step` updates, whether or not they were saved.

    Examples
    --------
    >>> in_training(40)
    'training at step 40'
    """
    return f"training at step {step}"


def save_rollouts(path: Path, rollouts: Iterable[Rollout], way_out: str = ELSEWHERE) -> None:
    """Write rollouts as JSON lines, the whole file or nothing; NaN is written as null.

    Raises
    ------
    StoreError
        It cannot be written; `way_out` says what to do.
    """
    write_text(path, "".join(_line(rollout) + "\n" for rollout in rollouts), way_out)


def _line(rollout: Rollout) -> str:
    record = {name: _nan_to_none(getattr(rollout, name)) for name in _FIELDS}
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def load_rollouts(path: str | Path) -> list[Rollout]:
    """Read rollouts from JSON lines as :func:`save_rollouts` writes them.

    Raises
    ------
    RolloutsError
        The file is missing, empty, or a line is no rollout; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise RolloutsError(f"Rollouts file {path} does not exist or is no file. Name one with --rollouts.")
    rollouts = [_rollout(record, f"{path}, line {number}") for number, record in json_lines(path, RolloutsError)]
    if not rollouts:
        raise RolloutsError(f"{path} holds no rollout. Expected JSON lines as opd-diag writes them to rollouts/.")
    return rollouts


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Provenance):
        return {f.name: _nan_to_none(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple) and any(isinstance(v, float) for v in value):  # ids and flags hold none
        return [_nan_to_none(v) for v in value]
    return value


_FIELDS = tuple(f.name for f in fields(Rollout))
_TUPLES = ("prompt_ids", "teacher_prompt_ids", "response_ids", "generated", "sampled_logprobs")
_REQUIRED = _FIELDS[:9]


def _rollout(record: dict[str, Any], where: str) -> Rollout:
    missing = [name for name in _REQUIRED if name not in record and name != "teacher_prompt_ids"]
    unknown = sorted(set(record) - set(_FIELDS))
    if missing or unknown:
        found = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise RolloutsError(f"{where}: {found}. {_EXPECTED}")
    values = {"teacher_prompt_ids": record["prompt_ids"], **record}
    for name, (fits, words) in _VALUES.items():
        if name in values and not fits(values[name]):
            raise RolloutsError(f"{where}: {name} must be {words}, found {values[name]!r:.80}. {_EXPECTED}")
    for name in _TUPLES:
        if values.get(name) is not None:
            values[name] = tuple(math.nan if v is None else v for v in values[name])
    try:
        source: dict[str, Any] = dict(record["provenance"])
        unknown_as_nan = {k: math.nan for k in ("temperature", "top_p") if source.get(k, 0) is None}
        values["provenance"] = Provenance(**{**source, **unknown_as_nan})
        return Rollout(**values)
    except (TypeError, RolloutsError) as error:
        raise RolloutsError(f"{where}: {str(error).rstrip('.')}. {_EXPECTED}") from error


_EXPECTED = "Expected a rollout as opd-diag writes it to rollouts/."


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(_is_count(i) for i in value)


def _is_flags(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(v, bool) for v in value))


def _is_logprobs(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(v is None or _is_number(v) for v in value))


_TOKEN_IDS = (_is_ids, "a list of token ids (whole numbers from 0)")
_COUNT = (_is_count, "a whole number from 0")
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "prompt_index": _COUNT,
    "rollout_index": _COUNT,
    "prompt_ids": _TOKEN_IDS,
    "teacher_prompt_ids": _TOKEN_IDS,
    "response_ids": _TOKEN_IDS,
    "generated": (_is_flags, "a list of true and false, or null"),
    "sampled_logprobs": (_is_logprobs, "a list of numbers and nulls, or null"),
    "stop_reason": (lambda value: value in get_args(StopReason), f"one of {', '.join(get_args(StopReason))}"),
    "exactness": (lambda value: value in get_args(Exactness), f"one of {', '.join(get_args(Exactness))}"),
    "is_correct": (lambda value: value is None or isinstance(value, bool), "true, false or null"),
    "reward": (lambda value: value is None or _is_number(value), "a number or null"),
    "provenance": (lambda value: isinstance(value, dict), "an object"),
}
"""What a hand-written file most likely gets wrong, and what would change numbers without a word."""
