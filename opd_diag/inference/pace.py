"""How fast this machine is with models of given sizes: the very code that samples and scores, timed for a moment.

What runs is a model like the one in question with random weights, fewer layers and a smaller vocabulary where it is
large; layers and vocabulary are then scaled up. There are enough layers that their weights do not fit the caches of a
processor, as those of the whole model would not. No table of machines or models is needed, and when the code becomes
faster, so does the prediction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from opd_diag.inference.drawing import draw
from opd_diag.inference.growing import Row, Rules, grow
from opd_diag.inference.model import Model, wrap_model
from opd_diag.inference.scoring import score
from opd_diag.inference.size import ModelSize, with_layers
from opd_diag.records.prompt import Prompt
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.tokenization import EncodedPrompt

LAYER_BYTES = 64 * 2**20
"""Weights of the layers that are timed: more than the caches of a processor hold."""

HEAD_BYTES = 128 * 2**20
"""Most weights of the head that is timed."""

BODY_FLOP, HEAD_FLOP = 30e9, 20e9
"""Work of one timing: a moment on a slow processor, and still large enough to be typical."""

MOST_TOKENS = 1024
"""Tokens of one timing at most: what is forwarded at once when states are scored."""

STEPS = 4
"""Tokens that are sampled in each place."""


@dataclass(frozen=True)
class Pace:
    """Seconds that things take, and bytes that they leave."""

    student_token: float
    """One token through the student's body, among many."""
    teacher_token: float
    student_drawn: float
    """One token sampled by the student, beside as many others as there is place for."""
    teacher_drawn: float
    state: float
    """One state scored: both heads and all that is made of their logits."""
    state_bytes: float
    """One state in a file of scores."""


@dataclass(frozen=True)
class _Likeness:
    """A small model that stands for a large one."""

    size: ModelSize
    model: Model
    layers: int
    vocabulary: int

    @property
    def layer_scale(self) -> float:
        """How many times as many layers the large one has."""
        return self.size.layers / self.layers

    @property
    def vocabulary_scale(self) -> float:
        return self.size.vocabulary / self.vocabulary


@torch.inference_mode()
def measured_pace(
    student: ModelSize, teacher: ModelSize, *, dtype: torch.dtype, device: torch.device, places: int, seen: int
) -> Pace:
    """Time both models for a second or two.

    Parameters
    ----------
    student, teacher
        From :func:`~opd_diag.inference.size.model_size`.
    dtype, device
        Of the bodies.
    places
        Responses that grow side by side when sampling.
    seen
        Tokens before the one that is sampled, on average.
    """
    common = min(student.vocabulary, teacher.vocabulary)
    vocabulary = min(common, max(256, HEAD_BYTES // (4 * max(student.width, teacher.width))))
    ours = _likeness(student, vocabulary, dtype, device)
    theirs = ours if _alike(student, teacher) else _likeness(teacher, vocabulary, dtype, device)
    both = [ours] if theirs is ours else [ours, theirs]
    body = [_body_seconds(like) for like in both]
    drawn = [_drawn_seconds(like, places, seen) for like in both]
    state, state_bytes = _state_seconds(ours, theirs, body[0], body[-1])
    return Pace(
        student_token=body[0] * ours.layer_scale,
        teacher_token=body[-1] * theirs.layer_scale,
        student_drawn=drawn[0],
        teacher_drawn=drawn[-1],
        state=state * common / vocabulary,
        state_bytes=state_bytes,
    )


def _alike(student: ModelSize, teacher: ModelSize) -> bool:
    same = ("layers", "width", "body", "attention")
    return all(getattr(student, name) == getattr(teacher, name) for name in same)


def _likeness(size: ModelSize, vocabulary: int, dtype: torch.dtype, device: torch.device) -> _Likeness:
    bytes_per_layer = max(1, size.body // size.layers) * dtype.itemsize
    layers = max(size.fewest_layers, min(size.layers, -(-LAYER_BYTES // bytes_per_layer)))
    hf = with_layers(size, layers, vocabulary, dtype, device)
    return _Likeness(size, wrap_model(hf, name="likeness", stop_ids=()), layers, vocabulary)


def _body_seconds(like: _Likeness) -> float:
    """Give the seconds of one token through the layers of a likeness."""
    flop = 2 * like.size.body / like.layer_scale
    n = int(min(MOST_TOKENS, max(64, BODY_FLOP // max(1.0, flop)), like.model.context or MOST_TOKENS))
    rows = max(1, MOST_TOKENS // n) if flop * MOST_TOKENS < BODY_FLOP else 1
    tokens = torch.arange(rows * n, device=like.model.device).remainder(like.vocabulary).view(rows, n)
    return _seconds(lambda: like.model.hidden(tokens), like.model.device) / tokens.numel()


def _drawn_seconds(like: _Likeness, places: int, seen: int) -> float:
    """Give the seconds of one sampled token, all layers and tokens of the vocabulary counted."""
    model, device = like.model, like.model.device
    seen = max(1, min(seen, (model.context or seen + STEPS) - STEPS - 1))
    ids = tuple(i % like.vocabulary for i in range(seen))
    prompt = EncodedPrompt(0, Prompt("", ""), ids, ids)

    def sampled(steps: int) -> None:
        sampling = Sampling(rollouts_per_prompt=places, max_new_tokens=steps)
        rows = [Row(prompt, ids, r, np.full(steps, 0.5)) for r in range(places)]
        for _ in grow(model, rows, Rules(sampling, (), None), places):
            pass

    first = _seconds(lambda: sampled(1), device)
    step = max(0.0, _seconds(lambda: sampled(1 + STEPS), device) - first) / STEPS
    hidden, halves = torch.ones(places, like.size.width, device=device), torch.full((places,), 0.5, device=device)
    head = min(step, _seconds(lambda: draw(model.head.logits(hidden), halves, 1.0, 1.0), device))
    return ((step - head) * like.layer_scale + head * like.vocabulary_scale) / places


def _state_seconds(student: _Likeness, teacher: _Likeness, *bodies: float) -> tuple[float, float]:
    """Give the seconds of one state at the vocabulary of the likenesses, and the bytes that it leaves."""
    flop = 2.0 * student.vocabulary * (student.size.width + teacher.size.width)
    contexts = [like.model.context or MOST_TOKENS for like in (student, teacher)]
    length = int(max(1, min(64, *(context - 1 for context in contexts))))
    rows = int(max(1, min(MOST_TOKENS, HEAD_FLOP // flop) // length))
    source = Provenance("recorded", "", "", None, 1.0, 1.0, 0)
    ids = tuple(i % student.vocabulary for i in range(length))
    rollouts = [Rollout(i, 0, str(i), None, ids[:1], ids[:1], ids, "unknown", source) for i in range(rows)]
    kept = []
    seconds = _seconds(lambda: kept.append(score(student.model, teacher.model, rollouts)), student.model.device)
    tokens = rows * (length + 1)
    arrays = [value for value in vars(kept[0]).values() if hasattr(value, "nbytes")]
    return max(0.0, seconds - tokens * sum(bodies)) / (rows * length), sum(a.nbytes for a in arrays) / len(kept[0])


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Give the shortest of two runs; the first one also pays for what is done only once."""
    taken = []
    for _ in range(2):
        _wait(device)
        begin = time.perf_counter()
        call()
        _wait(device)
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
