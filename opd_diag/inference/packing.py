"""Many sequences in one row without padding: a prompt stands once before all of its responses.

A pack is ``prompt, response, response, …, prompt, response, …``. Everything in a transformer but attention
treats tokens one by one, so a pack costs exactly its tokens. Attention is computed span by span: a response
attends to its prompt and to itself, in the same positions as if it stood alone. Whether an architecture takes
this is not believed but measured: :func:`takes_packs` runs a pack and its sequences, and where the two differ,
sequences run one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor

if TYPE_CHECKING:
    from opd_diag.inference.model import Model

TOKENS_PER_PACK = {"cpu": 1024, "cuda": 16384, "mps": 4096}
"""Tokens forwarded at once; bounds the memory of the body whatever the number of rollouts."""

ATTENTION = "opd-diag-packed"
"""Name under which transformers knows :func:`_attend`."""

MASK_ELEMENTS = 2**22
"""Largest mask that is made for one response."""

TOLERANCE = 1e-4
"""Of the hidden states of a pack, relative to the largest, in float32; 16-bit bodies differ by their own rounding."""

Ids = Sequence[int]


@dataclass(frozen=True)
class Span:
    """A response in a pack, and the prompt that it follows; both from their first token to past their last."""

    prompt: tuple[int, int]
    own: tuple[int, int]


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
    try:
        found = _in_one_row(model, pack, places).float()
    except (_Unpackable, ValueError, KeyError):
        return False
    expected = _one_by_one(model, pack, places).float()
    tolerance = TOLERANCE if model.dtype == torch.float32 else 100 * torch.finfo(model.dtype).eps
    difference = float((found - expected).abs().max())
    return difference <= tolerance * max(1.0, float(expected.abs().max()))


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
    with _attention(model.hf, pack.spans) as calls:
        states = model.hidden(ids, position_ids=positions)[0]
    if not calls:
        raise _Unpackable("its attention cannot be replaced")
    return states[[pack.before(*place) for place in places]]


class _Unpackable(Exception):
    """An architecture whose attention does more than :func:`_attend` knows; never leaves this module."""


@dataclass
class _Layout:
    spans: tuple[Span, ...]
    calls: int = 0

    def __bool__(self) -> bool:
        return self.calls > 0


_LAYOUT: ContextVar[_Layout] = ContextVar("layout of the pack that is being forwarded")


@contextmanager
def _attention(hf: Any, spans: tuple[Span, ...]) -> Iterator[_Layout]:
    """Let the model compute attention span by span."""
    before = hf.config._attn_implementation
    layout = _Layout(spans)
    token = _LAYOUT.set(layout)
    try:
        hf.set_attn_implementation(ATTENTION)
        yield layout
    finally:
        _LAYOUT.reset(token)
        hf.set_attn_implementation(before)


_HARMLESS = frozenset(
    ("position_ids", "cache_position", "past_key_values", "use_cache", "is_causal", "output_attentions", "training")
)
"""Arguments of attention that change nothing here; any other that is set makes an architecture unpackable."""


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute attention span by span; shapes (1, heads, tokens, d), the result (1, tokens, heads, d)."""
    odd = {n for n, v in others.items() if n not in _HARMLESS and v is not None and v is not False}
    if attention_mask is not None or odd or not getattr(module, "is_causal", True):
        raise _Unpackable(", ".join(sorted(odd)) or "mask")
    layout = _LAYOUT.get()
    layout.calls += 1
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for own, before in _attended(layout.spans):
        attended = _causal(query, key, value, before, own, scaling, sliding_window)
        out[0, slice(*own)] = attended[0].transpose(0, 1)
    return out, None


def _attended(spans: tuple[Span, ...]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Give each stretch of tokens with what stands before it: prompts with nothing, responses with their prompt."""
    done: tuple[int, int] | None = None
    for span in spans:
        if span.prompt != done:
            yield span.prompt, (span.prompt[0], span.prompt[0])
        yield span.own, span.prompt
        done = span.prompt


def _causal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    before: tuple[int, int],
    own: tuple[int, int],
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """Let the tokens of `own` attend to those of `before` and to themselves."""
    n, m = before[1] - before[0], own[1] - own[0]
    if not m:
        return query[:, :, :0, : value.shape[3]]
    k, v = (_joined(x, before, own) for x in (key, value))
    options: dict[str, Any] = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    attention = torch.nn.functional.scaled_dot_product_attention
    windowed = window is not None and n + m > window
    if windowed or (n and m <= 3 * n and m * (n + m) <= MASK_ELEMENTS):
        mask = torch.ones(m, n + m, dtype=torch.bool, device=query.device).tril_(n)
        if windowed and window is not None:
            mask.triu_(n - window + 1)
        return attention(query[:, :, slice(*own)], k, v, attn_mask=mask, **options)
    # The rows of the prompt are computed again and thrown away: cheaper than a mask, which no kernel can skip.
    return attention(_joined(query, before, own), k, v, is_causal=True, **options)[:, :, n:]


def _joined(x: Tensor, before: tuple[int, int], own: tuple[int, int]) -> Tensor:
    if before[0] == before[1]:
        return x[:, :, slice(*own)]
    if before[1] == own[0]:
        return x[:, :, before[0] : own[1]]
    return torch.cat([x[:, :, slice(*before)], x[:, :, slice(*own)]], dim=2)


transformers.AttentionInterface.register(ATTENTION, _attend)
