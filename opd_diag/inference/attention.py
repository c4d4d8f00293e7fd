"""Attention span by span: each response of a pack sees its prompt and itself, in a model of transformers.

transformers lets any function take the place of a model's attention. Ours knows where the spans of the row are; what it
does not know (soft-caps, sinks, masks of a model's own) makes it refuse, and the model then runs one sequence at a
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

ATTENTION = "opd-diag-packed"
"""Name under which transformers knows :func:`attend`."""

MASK_ELEMENTS = 2**22
"""Largest mask that is made for one response."""


@dataclass(frozen=True)
class Span:
    """A response in a pack, and the prompt that it follows; both from their first token to past their last."""

    prompt: tuple[int, int]
    own: tuple[int, int]


class Unpackable(Exception):
    """An architecture whose attention does more than :func:`attend` knows; never leaves this room."""


@dataclass
class Layout:
    """The spans of the pack that is being forwarded, and how often its attention was asked for."""

    spans: tuple[Span, ...]
    calls: int = 0


_LAYOUT: ContextVar[Layout] = ContextVar("layout of the pack that is being forwarded")


def current_spans() -> tuple[Span, ...] | None:
    """Give the spans of the pack that is being forwarded; None where none is."""
    layout = _LAYOUT.get(None)
    return None if layout is None else layout.spans


@contextmanager
def span_attention(hf: Any, spans: tuple[Span, ...]) -> Iterator[Layout]:
    """Let the model compute attention span by span."""
    before = hf.config._attn_implementation
    layout = Layout(spans)
    token = _LAYOUT.set(layout)
    try:
        hf.set_attn_implementation(ATTENTION)
        yield layout
    finally:
        _LAYOUT.reset(token)
        hf.set_attn_implementation(before)


_HARMLESS = frozenset({
    "position_ids", "cache_position", "past_key_values", "cache", "use_cache", "is_causal", "output_attentions",
    "training",
})  # fmt: skip
"""Arguments of attention that change nothing here; any other that is set makes an architecture unpackable."""


def attend(
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
        raise Unpackable(", ".join(sorted(odd)) or "mask")
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


transformers.AttentionInterface.register(ATTENTION, attend)
