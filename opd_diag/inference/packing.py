"""Many sequences in one row without padding: a prompt stands once before all of its responses.

A pack is ``prompt, response, response, …, prompt, response, …``. Everything in a transformer but attention
treats tokens one by one, so a pack costs exactly its tokens. Attention is computed span by span: a response
attends to its prompt and to itself, in the same positions as if it stood alone. Whether an architecture takes
this is not believed but measured: :func:`takes_packs` runs a pack and its sequences, and where the two differ,
sequences run one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from opd_diag.errors import ModelError
from opd_diag.inference.attention import Span, Unpackable, span_attention

if TYPE_CHECKING:
    from opd_diag.inference.model import Model

TOKENS_PER_PACK = {"cpu": 1024, "cuda": 16384}
"""Tokens forwarded at once; bounds the memory of the body whatever the number of rollouts."""

TOLERANCE = 1e-4
"""Of the hidden states of a pack, relative to the largest, in float32."""

Ids = Sequence[int]


@dataclass(frozen=True)
class Pack:
    """One row of tokens."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    """Of each token, as if its sequence stood alone."""
    spans: tuple[Span, ...]
    """One a sequence, in their order."""

    @classmethod
    def of(cls, sequences: Sequence[tuple[Ids, Ids]]) -> Pack:
        """Pack (prompt, response) pairs; neighbours with an equal prompt share it.

        Examples
        --------
        >>> pack = Pack.of([([5, 6], [7]), ([5, 6], [8, 9])])
        >>> pack.ids, pack.positions
        ((5, 6, 7, 8, 9), (0, 1, 2, 2, 3))
        >>> pack.spans[1]
        Span(prompt=(0, 2), own=(3, 5))
        """
        ids: list[int] = []
        positions: list[int] = []
        spans: list[Span] = []
        before: tuple[int, ...] | None = None
        where = (0, 0)
        for prompt, response in sequences:
            if before != tuple(prompt):
                before, where = tuple(prompt), (len(ids), len(ids) + len(prompt))
                ids += prompt
                positions += range(len(prompt))
            spans.append(Span(where, (len(ids), len(ids) + len(response))))
            ids += response
            positions += range(len(prompt), len(prompt) + len(response))
        return cls(tuple(ids), tuple(positions), tuple(spans))

    def before(self, sequence: int, position: int) -> int:
        """Give the place of the token that precedes a response token; one past the last is allowed."""
        span = self.spans[sequence]
        return span.own[0] + position - 1 if position else span.prompt[1] - 1


def packs(prompts: Sequence[object], lengths: Sequence[tuple[int, int]], tokens: int) -> list[list[int]]:
    """Say which sequences are packed together: a pure function of prompts and lengths.

    Parameters
    ----------
    prompts
        What tells each sequence's prompt from others.
    lengths
        (prompt, response) tokens of each sequence.
    tokens
        Most tokens of a pack; a sequence that is longer is packed alone.

    Returns
    -------
    list of list of int
        Indices of the sequences; those of one prompt follow each other, and are parted only where they do not fit.

    Examples
    --------
    >>> packs(["a", "b", "a"], [(4, 2), (4, 3), (4, 3)], tokens=12)
    [[0, 2], [1]]
    """
    groups: dict[object, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(index)
    found: list[list[int]] = []
    room = 0
    for group in groups.values():
        prompt = lengths[group[0]][0]
        if not found or prompt + sum(lengths[i][1] for i in group) > room:
            found.append([])
            room = tokens
        room -= prompt
        for index in group:
            if found[-1] and lengths[index][1] > room:
                found.append([])
                room = tokens - prompt
            found[-1].append(index)
            room -= lengths[index][1]
    return found


def states_before(model: Model, pack: Pack, places: Sequence[tuple[int, int]]) -> Tensor:
    """Give the (places, d) last hidden states before response tokens, of the model's own dtype.

    Parameters
    ----------
    model
        The model.
    pack
        What it runs.
    places
        (sequence of the pack, position in its response) of each token; one past the last is allowed.
    """
    return (_in_one_row if model.takes_packs else _one_by_one)(model, pack, places)


@torch.inference_mode()
def takes_packs(model: Model) -> bool:
    """Measure whether a model gives for a pack what it gives for each of its sequences."""
    config = model.hf.config.get_text_config()
    if not model.takes_positions or _depends_on_length(config):
        return False
    vocabulary = model.hf.get_input_embeddings().weight.shape[0]
    ids = [(7 * i + 3) % vocabulary for i in range(24)]
    pack = Pack.of([(ids[:7], ids[7:10]), (ids[:7], ids[10:19]), (ids[19:22], ids[22:])])
    places = [(i, p) for i, span in enumerate(pack.spans) for p in range(span.own[1] - span.own[0] + 1)]
    precise = _in_float32(model)
    try:
        found, expected = (run(precise, pack, places) for run in (_in_one_row, _one_by_one))
    except (Unpackable, ModelError, *_NOT_AS_EXPECTED):
        return False
    return float((found - expected).abs().max()) <= TOLERANCE * max(1.0, float(expected.abs().max()))


def _in_float32(model: Model) -> Model:
    """Give the model as it computes in float32: rounding to 16 bits hides what a pack does wrong."""
    from opd_diag.inference.precision import OtherPrecision  # which builds on models, and they on this

    if model.dtype == torch.float32:
        return model
    return replace(OtherPrecision.of(model, packs=False, body_dtype=torch.float32), forwarded=model.forwarded)


def _depends_on_length(config: Any) -> bool:
    """Tell whether a token's state depends on how long the row is: then a row must be one sequence."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [rope, *(r for r in rope.values() if isinstance(r, dict))] if isinstance(rope, dict) else []
    by_length = any(kind.get("rope_type", kind.get("type")) in ("dynamic", "longrope") for kind in kinds)
    return by_length or getattr(config, "attention_chunk_size", None) is not None


def _one_by_one(model: Model, pack: Pack, places: Sequence[tuple[int, int]]) -> Tensor:
    states: Tensor | None = None
    ids = torch.tensor(pack.ids, device=model.device)
    for number, span in enumerate(pack.spans):
        sequence = torch.cat([ids[slice(*span.prompt)], ids[slice(*span.own)]])
        hidden = model.hidden(sequence.unsqueeze(0))[0]
        if states is None:
            states = hidden.new_empty(len(places), hidden.shape[-1])
        rows = [row for row, (which, _) in enumerate(places) if which == number]
        states[rows] = hidden[[span.prompt[1] - span.prompt[0] + places[row][1] - 1 for row in rows]]
    assert states is not None
    return states


def _in_one_row(model: Model, pack: Pack, places: Sequence[tuple[int, int]]) -> Tensor:
    ids, positions = (torch.tensor([x], device=model.device) for x in (pack.ids, pack.positions))
    with span_attention(model.hf, pack.spans) as layout:
        states = model.hidden(ids, position_ids=positions)[0]
    if not layout.calls:
        raise Unpackable("its attention cannot be replaced")
    return states[[pack.before(*place) for place in places]]


_NOT_AS_EXPECTED = (TypeError, ValueError, LookupError, AttributeError, RuntimeError)
"""What code raises that looks for the mask it is used to, or for positions in one row."""
