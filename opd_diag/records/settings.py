"""Every option of a report, with its default; what flags and the manifest may set."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from opd_diag.errors import InputError

STATE_SETS = ("on-policy", "start")
"""The state sets this version scores, in the order pages show them."""

K_KEPT = 32
"""Most probable tokens kept per state and model, so that every k up to this one is free afterwards."""

CURVE_GRID = (1, 2, 4, 8, 16, 32, 64, 128)
"""The k of the concentration curve; it ends where the vocabulary does."""


@dataclass(frozen=True)
class Settings:
    """Options of a report. Paths may be relative; models may be folders or hub ids (``org/name@revision``)."""

    student: str | None = None
    """The initial student, step 0."""
    teacher: str | None = None
    """The teacher."""
    prompts: str | None = None
    """Prompts file."""
    rollouts: str | None = None
    """Recorded rollouts: a JSON lines file of ours, or a folder of them."""
    base_model: str | None = None
    """Model under the adapters; overrides what each adapter names."""
    tokenizer: str | None = None
    """Tokenizer; default: the first checkpoint's, else the student's, else the teacher's."""
    states: tuple[str, ...] = STATE_SETS
    """State sets to score."""
    k: int = 16
    """Tokens compared per state, 1 to 32."""
    rollouts_per_prompt: int = 2
    max_prompts: int = 64
    max_new_tokens: int = 256
    temperature: float = 1.0
    """Of sampling; 0 is greedy."""
    top_p: float = 1.0
    """Of sampling, in (0, 1]."""
    student_temperature: float = 1.0
    """Of the scored student distribution."""
    teacher_temperature: float = 1.0
    """Of the scored teacher distribution."""
    teacher_template: str | None = None
    """File with a chat template (jinja) for what the teacher sees."""
    teacher_system_prompt: str | None = None
    """System message that the teacher sees in place of the prompt's own."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to the chat template, for example ``{"enable_thinking": False}``."""
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    checkpoints: tuple[str, ...] = ()
    """Steps or labels to use of those found; empty: all."""
    layout: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        problems = [
            (not 1 <= self.k <= K_KEPT, f"k must be 1 to {K_KEPT}, found {self.k}"),
            (
                self.rollouts_per_prompt < 1,
                f"rollouts_per_prompt must be at least 1, found {self.rollouts_per_prompt}",
            ),
            (self.max_prompts < 1, f"max_prompts must be at least 1, found {self.max_prompts}"),
            (self.max_new_tokens < 1, f"max_new_tokens must be at least 1, found {self.max_new_tokens}"),
            (
                not 0 <= self.temperature < float("inf"),
                f"temperature must be 0 or more, found {self.temperature}",
            ),
            (not 0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, found {self.top_p}"),
            (
                not self.student_temperature > 0,
                f"student_temperature must be above 0, found {self.student_temperature}",
            ),
            (
                not self.teacher_temperature > 0,
                f"teacher_temperature must be above 0, found {self.teacher_temperature}",
            ),
            (not 0 <= self.seed < 2**32, f"seed must be 0 to 4294967295, found {self.seed}"),
            (self.dtype not in DTYPES, f"dtype must be one of {', '.join(DTYPES)}, found {self.dtype}"),
            (not self.states, "states must name at least one state set"),
        ]
        problems += [
            (s not in STATE_SETS, f"states must be of {', '.join(STATE_SETS)}, found '{s}'") for s in self.states
        ]
        for wrong, message in problems:
            if wrong:
                raise InputError(f"Option {message}.")


DTYPES = ("float32", "bfloat16", "float16")


def settings_from(options: dict[str, Any], manifest: dict[str, Any], manifest_path: Path | None) -> Settings:
    """Merge flags over the manifest over the defaults.

    Parameters
    ----------
    options
        Flags by field name; None means not given.
    manifest
        Settings read from ``opd-diag.toml``, by field name.
    manifest_path
        For the error message.

    Raises
    ------
    InputError
        A name in either that is no setting, or a value out of range.
    """
    known = {f.name for f in fields(Settings)}
    unknown = sorted(set(manifest) - known)
    if unknown:
        raise InputError(f"{manifest_path}: unknown setting {', '.join(unknown)}. Known: {', '.join(sorted(known))}.")
    given = {name: value for name, value in options.items() if value is not None}
    merged = {**manifest, **given}
    for name in ("states", "checkpoints"):
        if isinstance(merged.get(name), str):
            merged[name] = tuple(part.strip() for part in merged[name].split(",") if part.strip())
        elif name in merged:
            merged[name] = tuple(str(part) for part in merged[name])
    return Settings(**merged)
