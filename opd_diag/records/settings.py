"""Every option of a report, with its default; what flags and the manifest may set."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from opd_diag.errors import InputError
from opd_diag.records.sampling import Sampling

STATE_SETS = ("on-policy", "start", "teacher", "back", "near-on-policy")
"""The state sets, in the order pages show them: each checkpoint's own; the initial student's; the teacher's; with the
initial student scoring instead of the checkpoint, each checkpoint's own again; and those that a trainer recorded, of
weights at or shortly after the checkpoint."""

NEAR_ON_POLICY = STATE_SETS[4]
"""The recorded ones. They tell of other prompts at every checkpoint, so that no verdict rests on them."""

DEFAULT_STATES = STATE_SETS[:3]
"""Those that are scored unless others are named."""

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
    """The teacher; or a server that has it, as ``vllm=http://127.0.0.1:8000`` or ``sglang=http://127.0.0.1:30000``.
    What holds for it alone may stand behind it, and goes before the next three: ``#NAME,top=K,tokenizer=T``."""
    teacher_model: str | None = None
    """What the server calls it; default: the one model that it has."""
    teacher_top: int | None = None
    """Most probable ids that the server is asked for at each state, -1 for the whole vocabulary; default: 128, or as
    many as it allows."""
    teacher_tokenizer: str | None = None
    """Tokenizer of a teacher behind a server; default: that of the folder the server names, where it is here."""
    requests: int = 16
    """Requests that a server is given at once."""
    prompts: str | None = None
    """Prompts file."""
    rollouts: str | None = None
    """Recorded rollouts: a file of ours or of a trainer, or a folder of them."""
    max_staleness: int | None = None
    """Most updates from a checkpoint to the weights that wrote recorded rollouts which it scores; default: less than
    the smallest distance of two checkpoints."""
    allow_pickle: bool = False
    """Read files of recorded rollouts that may run code when they are read, and pickled weights under torch before
    2.10, whose check of them has a hole."""
    base_model: str | None = None
    """Model under the adapters; overrides what each adapter names."""
    tokenizer: str | None = None
    """Tokenizer; default: the last checkpoint's that has one, else the base model's, else the teacher's."""
    states: tuple[str, ...] = DEFAULT_STATES
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
    device_map: str | None = None
    """To spread models over devices, in place of `device`: ``auto``, ``balanced``, ``sequential``, JSON of
    {module: device}, for each of the two models as {"student": …, "teacher": …}, or a file of it."""
    tensor_parallel: int | None = None
    """In how many shards the teacher is loaded, each in a process with a GPU of its own where there are any."""
    dtype: str = "float32"
    checkpoints: tuple[str, ...] = ()
    """Steps or labels to use of those found; empty: all."""
    layout: str | None = None
    """How the run is laid out; default: the first layout that finds anything."""
    steps: tuple[str, ...] = ()
    """``STEP=FOLDER`` of each checkpoint, in place of looking for them; empty: they are looked for."""
    step_base: int | None = None
    """What the trainer numbers the first update, 0 or 1; default: as the layout has it."""
    trust_remote_code: bool = False
    logs: str | None = None
    """The trainer's log, or a folder of logs; default: those in the run folder."""
    beta: float | None = None
    """Of the trainer's loss, 0 to 1, so that its curve has a name: 1 is reverse KL; default: as the log tells."""
    store: str | None = None
    """Folder in which rollouts and scores are also kept, and found again by other reports; changes no number."""
    sampler: str = "local"
    """Who samples responses: ``local``, this process, or ``vllm``, in a process of its own for each model; they draw
    other responses."""
    engine: str = "local"
    """Where models run: ``local``, in this process, or ``ray``, in workers on any machines; changes no number."""
    workers: int | None = None
    """How many workers; default: as many as the cluster has room for."""
    cpus_per_worker: int = 1
    """CPUs of a worker, and threads that it computes with."""
    gpus_per_worker: float | None = None
    """GPUs of a worker, which may be a part of one; default: 1 where the cluster has any, else 0."""

    def __post_init__(self) -> None:
        problems = [
            (not 1 <= self.k <= K_KEPT, f"k must be 1 to {K_KEPT}, found {self.k}"),
            (
                self.teacher_top is not None and self.teacher_top != -1 and self.teacher_top < 1,
                f"teacher_top must be at least 1, or -1 for the whole vocabulary, found {self.teacher_top}",
            ),
            (self.requests < 1, f"requests must be at least 1, found {self.requests}"),
            (self.max_prompts < 1, f"max_prompts must be at least 1, found {self.max_prompts}"),
            (
                self.max_staleness is not None and self.max_staleness < 0,
                f"max_staleness must be 0 or more, found {self.max_staleness}",
            ),
            (
                not 0 < self.student_temperature < float("inf"),
                f"student_temperature must be above 0, found {self.student_temperature}",
            ),
            (
                not 0 < self.teacher_temperature < float("inf"),
                f"teacher_temperature must be above 0, found {self.teacher_temperature}",
            ),
            (self.beta is not None and not 0 <= self.beta <= 1, f"beta must be 0 to 1, found {self.beta}"),
            (self.dtype not in DTYPES, f"dtype must be one of {', '.join(DTYPES)}, found {self.dtype}"),
            (self.step_base not in (None, 0, 1), f"step_base must be 0 or 1, found {self.step_base}"),
            (not self.states, "states must name at least one state set"),
            (self.sampler not in SAMPLERS, f"sampler must be one of {', '.join(SAMPLERS)}, found {self.sampler}"),
            (self.engine not in ENGINES, f"engine must be one of {', '.join(ENGINES)}, found {self.engine}"),
            (
                self.workers is not None and self.workers < 1,
                f"workers must be at least 1, found {self.workers}",
            ),
            (
                self.tensor_parallel is not None and self.tensor_parallel < 2,
                f"tensor_parallel must be at least 2, found {self.tensor_parallel}",
            ),
            (self.cpus_per_worker < 1, f"cpus_per_worker must be at least 1, found {self.cpus_per_worker}"),
            (
                self.gpus_per_worker is not None and not _is_share(self.gpus_per_worker),
                f"gpus_per_worker must be 0 to 1, or a whole number, found {self.gpus_per_worker}",
            ),
        ]
        problems += [
            (s not in STATE_SETS, f"states must be of {', '.join(STATE_SETS)}, found '{s}'") for s in self.states
        ]
        for wrong, message in problems:
            if wrong:
                raise InputError(f"Option {message}.")
        _ = self.sampling  # which refuses what is out of its own ranges

    @property
    def sampling(self) -> Sampling:
        """The part of it that says how responses are sampled."""
        return Sampling(**{f.name: getattr(self, f.name) for f in fields(Sampling)})


DTYPES = ("float32", "bfloat16", "float16")
ENGINES = ("local", "ray")
SAMPLERS = ("local", "vllm")


def _is_share(gpus: float) -> bool:
    """Whether a worker can have so many GPUs: part of one, or whole ones."""
    return 0 <= gpus <= 1 or (gpus > 1 and gpus % 1 == 0)


_KINDS = {
    name: get_args(hint)[0] if isinstance(hint, UnionType) else get_origin(hint) or hint
    for name, hint in get_type_hints(Settings).items()
}
"""The bare type of each setting: ``str`` for ``str | None``, ``tuple`` for ``tuple[str, ...]``."""

_ACCEPTED: dict[type, tuple[str, tuple[type, ...]]] = {
    str: ("text", (str, os.PathLike)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    bool: ("true or false", (bool,)),
    dict: ("a table of names and values", (dict,)),
    tuple: ("names separated by commas, or a list of them", (str, list, tuple)),
}

SETTING_NAMES = tuple(_KINDS)
"""What flags and the manifest may set, in the order of the fields."""


def type_problem(name: str, value: Any) -> str | None:
    """Say what is wrong with the type of `value` for the setting `name`; None when nothing is.

    Examples
    --------
    >>> type_problem("k", "sixteen")
    "k must be a whole number, found 'sixteen' (str)"
    >>> type_problem("k", 16)
    """
    kind = _KINDS[name]
    words, types = _ACCEPTED[kind]
    fits = isinstance(value, types) and (kind is bool or not isinstance(value, bool))
    if fits and isinstance(value, (list, tuple)):
        fits = all(isinstance(part, (str, int)) and not isinstance(part, bool) for part in value)
    return None if fits else f"{name} must be {words}, found {value!r} ({type(value).__name__})"


def settings_from(options: dict[str, Any], manifest: dict[str, Any], manifest_path: Path | None) -> Settings:
    """Merge flags over the manifest over the defaults.

    Parameters
    ----------
    options
        Flags by field name; None means not given. `states` and `checkpoints` are lists, or text with commas.
    manifest
        Settings read from ``opd-diag.toml``, by field name.
    manifest_path
        For the error message.

    Raises
    ------
    InputError
        A name in either that is no setting, or a value of the wrong type or out of range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted({*given, *manifest} - set(SETTING_NAMES))
    if unknown:
        where = "" if unknown[0] in given else f"{manifest_path}: "
        raise InputError(f"{where}unknown setting {', '.join(unknown)}. Known: {', '.join(sorted(SETTING_NAMES))}.")
    merged = {**manifest, **given}
    for name, value in merged.items():
        problem = type_problem(name, value)
        if problem:
            raise InputError(f"{'' if name in given else f'{manifest_path}: '}Option {problem}.")
    return Settings(**{name: _plain(_KINDS[name], value) for name, value in merged.items()})


def _plain(kind: type, value: Any) -> Any:
    """Give `value` in the one form that equal settings share, as stored scores are found again by them."""
    if kind is tuple:
        parts = value.split(",") if isinstance(value, str) else map(str, value)
        return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    return kind(value) if kind in (str, float) else value
