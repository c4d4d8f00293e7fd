"""One response, token-exact, and the JSON lines that rollouts are stored in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from opd_diag.errors import RolloutsError
from opd_diag.records.files import write_text
from opd_diag.records.prompt import json_lines

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


def save_rollouts(path: Path, rollouts: Iterable[Rollout]) -> None:
    """Write rollouts as JSON lines, the whole file or nothing; NaN is written as null."""
    lines = (json.dumps(_nan_to_none(asdict(r)), ensure_ascii=False, allow_nan=False) for r in rollouts)
    write_text(path, "".join(line + "\n" for line in lines))


def load_rollouts(path: str | Path) -> list[Rollout]:
    """Read rollouts from JSON lines as :func:`save_rollouts` writes them.

    Raises
    ------
    RolloutsError
        The file is missing, empty, or a line is no rollout; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise RolloutsError(f"Rollouts file {path} does not exist or is no file.")
    rollouts = [_rollout(record, f"{path}, line {number}") for number, record in json_lines(path, RolloutsError)]
    if not rollouts:
        raise RolloutsError(f"{path} holds no rollout. Expected JSON lines as opd-diag writes them to rollouts/.")
    return rollouts


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _nan_to_none(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nan_to_none(v) for v in value]
    return value


_TUPLES = ("prompt_ids", "teacher_prompt_ids", "response_ids", "generated", "sampled_logprobs")
_REQUIRED = tuple(f.name for f in fields(Rollout))[:9]


def _rollout(record: dict[str, Any], where: str) -> Rollout:
    missing = [name for name in _REQUIRED if name not in record and name != "teacher_prompt_ids"]
    unknown = sorted(set(record) - {f.name for f in fields(Rollout)})
    if missing or unknown:
        found = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise RolloutsError(f"{where}: {found}. Expected a rollout as opd-diag writes it to rollouts/.")
    values = dict(record)
    values.setdefault("teacher_prompt_ids", values["prompt_ids"])
    for name in _TUPLES:
        if values.get(name) is not None:
            values[name] = _tuple(values[name], name, where)
    try:
        source = {
            k: math.nan if v is None and k in ("temperature", "top_p") else v for k, v in record["provenance"].items()
        }
        values["provenance"] = Provenance(**source)
        return Rollout(**values)
    except (TypeError, AttributeError) as error:
        raise RolloutsError(f"{where}: {error}. Expected a rollout as opd-diag writes it to rollouts/.") from error


def _tuple(value: Any, name: str, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise RolloutsError(f"{where}: expected '{name}' as a list, found {type(value).__name__}.")
    if name.endswith("_ids") and not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in value):
        raise RolloutsError(f"{where}: '{name}' must hold token ids (whole numbers from 0).")
    if name == "sampled_logprobs":
        return tuple(math.nan if v is None else float(v) for v in value)
    return tuple(value)


def states_of(rollouts: Sequence[Rollout]) -> int:
    """Count the states of `rollouts`: response tokens that the student generated."""
    return sum(len(r.state_positions) for r in rollouts)
