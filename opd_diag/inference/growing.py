"""Responses that grow side by side, token by token, until each stops or is full.

A fixed number of places is kept busy: rows that stop leave, and when enough places are free the next rows, whose
prompts are read in one pass, go on beside those that still grow. Who joins when depends on the tokens drawn and on
nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from opd_diag.errors import ModelError
from opd_diag.inference.drawing import draw, tempered_logprobs
from opd_diag.inference.model import Model
from opd_diag.inference.places import open_places
from opd_diag.records.sampling import Sampling
from opd_diag.tokenization import EncodedPrompt

CHECKED_TOKENS = 32
"""Tokens of a response that are scored again in one pass."""

FREE_BEFORE_JOINING = 1 / 8
"""Part of the places that must be free before others join: reading prompts pays in one go, empty places do not."""


@dataclass
class Row:
    """One response while it grows."""

    prompt: EncodedPrompt
    seen: tuple[int, ...]
    """The prompt as the writer sees it."""
    rollout_index: int
    uniforms: np.ndarray
    """One number a token."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False

    @property
    def finished(self) -> bool:
        """Whether it stopped or is full."""
        return self.stopped or len(self.ids) == len(self.uniforms)


@dataclass(frozen=True)
class Rules:
    """How tokens are drawn, and which end a response."""

    sampling: Sampling
    stop_ids: tuple[int, ...]
    vocabulary: int | None
    """Only ids below it are drawn; None: all."""


def grow(model: Model, rows: Sequence[Row], rules: Rules, places: int) -> Iterator[int]:
    """Extend every row until it is finished, and give how many are after each token.

    Parameters
    ----------
    model
        The model.
    rows
        Longest prompts first, rows of one prompt beside each other; they are filled in place.
    rules
        How tokens are drawn.
    places
        Most rows that grow at a time.

    Raises
    ------
    ModelError
        The model gives NaN or infinite logits.
    """
    longest = max(len(row.seen) + len(row.uniforms) for row in rows)
    cache = open_places(model, min(places, len(rows)), longest)
    waiting = deque(_groups(rows, max(1, places // 4)))
    growing: list[Row] = []
    finished = 0
    while waiting or growing:
        hidden = [cache.advance([row.ids[-1] for row in growing])] if growing else []
        which = list(range(len(growing)))
        joining = _joining(waiting, places - len(growing), places, alone=not growing, takes_more=cache.takes_more)
        if joining:
            together = _by_prompt(joining)
            copies = [len(of_one) for of_one in together.values()]
            hidden.append(cache.join(list(together), copies))
            which += [len(growing) + i for i, n in enumerate(copies) for _ in range(n)]
            growing += [row for of_one in together.values() for row in of_one]
        _draw(model, torch.cat(hidden), which, growing, rules)
        stay = _closed_up([not row.finished for row in growing])
        finished += len(growing) - len(stay)
        growing = [growing[i] for i in stay]
        cache.keep(stay)
        yield finished


def check_grown(model: Model, rows: Sequence[Row], rules: Rules) -> None:
    """Hold what was sampled token by token, cached and beside others, against one pass over the whole of it.

    Looked at are the first tokens of the row that joined last and the last ones of that which grew longest: the one
    began beside others, beside the other others began.

    Without it an architecture that keeps its state elsewhere would write nonsense, and nobody would be told.

    Raises
    ------
    ModelError
        The log-probabilities differ by more than rounding.
    """
    longest = max(rows, key=lambda row: len(row.ids))
    for row, first in ((rows[-1], 0), (longest, max(0, len(longest.ids) - CHECKED_TOKENS))):
        ids = row.ids[first : first + CHECKED_TOKENS]
        sequence = torch.tensor([[*row.seen, *row.ids[: first + len(ids)]]], device=model.device)
        logits = model.head.logits(model.hidden(sequence)[0, -len(ids) - 1 : -1])[:, : rules.vocabulary]
        whole = tempered_logprobs(logits, rules.sampling.temperature)
        whole = whole.gather(-1, torch.tensor(ids, device=model.device).unsqueeze(-1)).squeeze(-1)
        drawn = torch.tensor(row.logprobs[first : first + len(ids)])
        difference = (whole.cpu() - drawn).abs().mean().item()
        if not difference <= (1e-3 if model.dtype == torch.float32 else 0.25):
            raise ModelError(
                f"{model.name} gives other log-probabilities token by token than in one pass (by {difference:.2g} "
                f"nats on average over {len(ids)} tokens). {elsewhere(model)}"
            )


def elsewhere(model: Model) -> str:
    """Say what to do with a model that cannot be sampled from."""
    return (
        f"This architecture ({type(model.hf).__name__}) cannot be sampled from here: sample with the tool that "
        "trained it and give the responses with --rollouts."
    )


def _groups(rows: Sequence[Row], most: int) -> Iterator[list[Row]]:
    """Put rows of one prompt together, which join together so that the prompt is read once; at most so many."""
    group: list[Row] = []
    for row in rows:
        if group and (row.seen != group[0].seen or len(group) == most):
            yield group
            group = []
        group.append(row)
    yield group


def _joining(waiting: deque[list[Row]], free: int, places: int, *, alone: bool, takes_more: bool) -> list[Row]:
    """Take the rows that go on from here: as many groups as there is place for, once that is enough."""
    joining: list[Row] = []
    if alone or (takes_more and free >= places * FREE_BEFORE_JOINING):
        while waiting and len(joining) + len(waiting[0]) <= free:
            joining += waiting.popleft()
    return joining


def _by_prompt(rows: Sequence[Row]) -> dict[tuple[int, ...], list[Row]]:
    together: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        together.setdefault(row.seen, []).append(row)
    return together


def _draw(model: Model, hidden: Tensor, which: list[int], rows: Sequence[Row], rules: Rules) -> None:
    """Draw the next token of each row, whose hidden state is `hidden[which[row]]`."""
    logits = model.head.logits(hidden)[:, : rules.vocabulary]
    if which != list(range(len(hidden))):
        logits = logits[which]
    uniforms = torch.tensor([row.uniforms[len(row.ids)] for row in rows], device=model.device)
    ids, logprobs = draw(logits, uniforms, rules.sampling.temperature, rules.sampling.top_p)
    if logprobs.isnan().any():
        raise ModelError(f"{model.name} gives NaN or infinite logits while sampling. Its weights are damaged.")
    for row, token, logprob in zip(rows, ids.tolist(), logprobs.tolist(), strict=True):
        row.ids.append(token)
        row.logprobs.append(logprob)
        row.stopped = token in rules.stop_ids


def _closed_up(stays: list[bool]) -> list[int]:
    """Give which row is in each place after some have left: the last ones fill the gaps, no other moves.

    Examples
    --------
    >>> _closed_up([True, False, True, False, True])
    [0, 4, 2]
    """
    n = sum(stays)
    last = iter([i for i in reversed(range(n, len(stays))) if stays[i]])
    return [i if stays[i] else next(last) for i in range(n)]
