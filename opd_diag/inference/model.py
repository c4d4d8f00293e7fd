"""A causal language model as this room takes it: its body, its head, and what is known of it."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from opd_diag.inference.attention import current_spans
from opd_diag.inference.head import Head, OwnLogits, read_head
from opd_diag.inference.hooks import has_hooks, runs_on
from opd_diag.inference.linear import fast_linear
from opd_diag.inference.packing import takes_packs

if TYPE_CHECKING:
    from opd_diag.inference.leading import Ranks


@dataclass
class Forwarded:
    """Counts what went through the body of a model."""

    tokens: int = 0
    """Tokens, padding included."""
    requests: int = 0
    """Requests that were answered, of a model behind a server."""
    received: int = 0
    """Bytes of the answers that say log-probabilities."""


@dataclass(frozen=True)
class Model:
    """A causal language model: its body, its head, and what must be known to sample from and to score with it."""

    name: str
    """As tables and messages call it."""
    hf: Any
    """The transformers model, in evaluation mode."""
    head: Head | OwnLogits
    stop_ids: tuple[int, ...]
    """Ids that end a response, from its generation settings and tokenizer."""
    context: int | None
    """Most tokens it takes; None when it does not say."""
    label: str = ""
    """Label of the checkpoint; empty for a teacher."""
    step: int | None = None
    """Optimiser step of the checkpoint; None when unknown."""
    key: str = ""
    """Fingerprint of the weights; equal weights, equal key."""
    forwarded: Forwarded = field(default_factory=Forwarded)
    """What it cost so far."""
    ranks: Ranks | None = None
    """The processes that hold the other shards of it; None where it is whole."""

    @property
    def vocabulary(self) -> int:
        """Rows of the head, padding rows included."""
        return self.head.vocabulary

    @property
    def device(self) -> torch.device:
        """Where its head computes, and its hidden states come out."""
        return self.head.device

    @cached_property
    def enters_at(self) -> torch.device:
        """Where its embeddings take ids: another device than the head's only where a model is spread over several."""
        return runs_on(self.hf.get_input_embeddings()) if has_hooks(self.hf) else self.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the body; the head always computes in float32."""
        dtype: torch.dtype = self.hf.dtype
        return dtype

    @property
    def other_dtype(self) -> torch.dtype | None:
        """What its body runs in, where that is not the precision of its weights."""
        return None

    def hidden(self, tokens: Tensor, **inputs: Any) -> Tensor:
        """Give the (batch, length, d) last hidden states of (batch, length) tokens: the one way to run a model.

        They are what the head takes: of a model without a linear head, its logits.
        No mask is passed: under causal attention no token sees the padding behind it.

        Parameters
        ----------
        tokens
            Right-padded, or not padded.
        inputs
            What else transformers takes: ``position_ids``, ``past_key_values``, …; tensors on any device.
        """
        self.forwarded.tokens += tokens.numel()
        tokens = tokens.to(self.enters_at)
        inputs = {name: x.to(self.enters_at) if isinstance(x, Tensor) else x for name, x in inputs.items()}
        with self._by_all("hidden", tokens, inputs, self.other_dtype, current_spans()), fast_linear():
            if isinstance(self.head, OwnLogits):
                states: Tensor = self.hf(input_ids=tokens, **{"use_cache": False, **inputs}).logits
            else:
                states = self.hf.base_model(input_ids=tokens, **{"use_cache": False, **inputs}).last_hidden_state
        return states.to(self.device)

    def own_logits(self, tokens: Tensor) -> Tensor:
        """Give the (batch, length, V) logits of (batch, length) tokens as the model itself makes them."""
        with self._by_all("own_logits", tokens):
            logits: Tensor = self.hf(input_ids=tokens.to(self.enters_at), use_cache=False).logits
        return logits.to(self.device)

    def _by_all(self, what: str, *args: Any) -> AbstractContextManager[None]:
        """Let the ranks that hold other shards do the same."""
        return nullcontext() if self.ranks is None else self.ranks.together(what, *args)

    @cached_property
    def takes_packs(self) -> bool:
        """Whether many sequences can run in one row (:mod:`opd_diag.inference.packing`)."""
        return takes_packs(self)

    @property
    def takes_positions(self) -> bool:
        """Whether the body takes position ids; where it does not, it derives positions from the mask."""
        return "position_ids" in self._arguments

    @property
    def takes_cache(self) -> bool:
        """Whether the body takes the key–value cache that sampling needs."""
        return self.cache_argument is not None

    @property
    def cache_argument(self) -> str | None:
        """What the body calls its key–value cache: transformers 5.24 gave it another name; None where it takes none."""
        return next((name for name in ("past_key_values", "cache") if name in self._arguments), None)

    @cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.hf.base_model.forward).parameters)


def wrap_model(hf_model: Any, *, name: str, stop_ids: tuple[int, ...] | None = None, **known: Any) -> Model:
    """Make a :class:`Model` of a transformers causal language model that is already loaded.

    Parameters
    ----------
    hf_model
        The model; it is put into evaluation mode.
    name
        As tables and messages call it.
    stop_ids
        Ids that end a response; default: those of its generation settings.
    known
        `label`, `step`, `key`, `ranks`, where known.
    """
    hf_model.eval()
    config = hf_model.config.get_text_config()
    return Model(
        name=name,
        hf=hf_model,
        head=read_head(hf_model),
        stop_ids=own_stop_ids(hf_model) if stop_ids is None else tuple(sorted(set(stop_ids))),
        context=getattr(config, "max_position_embeddings", None),
        **known,
    )


def own_stop_ids(model: Any) -> tuple[int, ...]:
    """Give the ids that end a response, as a transformers model says itself: its generation settings, or its config."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    if ids is None:
        ids = getattr(model.config.get_text_config(), "eos_token_id", None)
    if ids is None:
        return ()
    return tuple(sorted(set(ids if isinstance(ids, list) else [ids])))
