"""The key–value cache of responses that grow side by side, in which places become free and are taken again.

All rows end in the same column, the newest token's; a shorter one begins later, and the columns before it are masked.
So a row that joins is written up to the column that the others have reached, whatever its length, and the columns that
are read are as many as the longest row has tokens. Keys and values lie in memory with some room to spare: a new token
is written into it, a row that stops is overwritten by the last one, and nothing else is moved.

That holds for caches that are keys and values of all tokens and nothing else. Sliding windows, linear attention or a
state in place of keys know no columns: there (:class:`Leaving`) rows leave, and new ones begin when all have left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from opd_diag.inference.batches import length_sorted_batches, right_padded
from opd_diag.inference.model import Model

if TYPE_CHECKING:
    from opd_diag.inference.leading import Ranks

SPARE = 64
"""Columns beyond those that the longest row may need; whenever they are used up, all rows are moved to the front."""

PREFILLED_TOKENS = 2048
"""Padded tokens of prompts that are forwarded at once."""

Prompt = tuple[int, ...]


class Places:
    """Rows that grow in places of one cache; those that stop leave theirs to others."""

    takes_more = True

    def __init__(self, model: Model, places: int, longest: int) -> None:
        self.model = model
        self.lengths: list[int] = []
        self.cache = _empty_cache(model)
        self.layers = [_Layer(places, longest + SPARE) for _ in self.cache.layers]
        self.cache.layers = list(self.layers)

    def join(self, prompts: Sequence[Prompt], copies: Sequence[int]) -> Tensor:
        """Add rows, so many a prompt, longest prompts first; give the (prompts, d) last hidden states."""
        hidden: list[Tensor] = []
        for part in length_sorted_batches([len(p) for p in prompts], PREFILLED_TOKENS):
            cache, ends = _empty_cache(self.model), [len(prompts[i]) for i in part]
            states = _forward(self.model, right_padded([prompts[i] for i in part], self.model.device), cache)
            hidden.append(states[range(len(part)), [end - 1 for end in ends]])
            for layer, filled in zip(self.layers, cache.layers, strict=True):
                layer.widen(len(prompts[0]), like=filled)
                for row, i in enumerate(part):
                    layer.put(filled, row, ends[row], copies[i])
        self.lengths += [len(p) for p, n in zip(prompts, copies, strict=True) for _ in range(n)]
        return torch.cat(hidden)

    def advance(self, tokens: Sequence[int]) -> Tensor:
        """Append a token to each row; give the (rows, d) hidden states after it."""
        self.lengths = [length + 1 for length in self.lengths]
        lengths = torch.tensor(self.lengths, device=self.model.device).unsqueeze(-1)
        width = max(self.lengths)
        mask = torch.arange(width, device=self.model.device) >= width - lengths
        return _append(self.model, tokens, self.cache, mask.long(), lengths - 1)

    def keep(self, stay: Sequence[int]) -> None:
        """Let all other rows leave; row `stay[i]` becomes row i."""
        self.lengths = [self.lengths[i] for i in stay]
        for layer in self.layers:
            layer.keep(stay, max(self.lengths, default=0))


class Leaving:
    """Rows that grow in a cache of any kind, which they leave when they stop; none joins those that grow."""

    takes_more = False

    def __init__(self, model: Model) -> None:
        self.model = model

    def join(self, prompts: Sequence[Prompt], copies: Sequence[int]) -> Tensor:
        """Begin anew with so many rows a prompt; give the (prompts, d) last hidden states."""
        tokens, self.mask = _left_padded(prompts, self.model.device)
        self.cache = _empty_cache(self.model)
        self.positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        hidden = _forward(self.model, tokens, self.cache, attention_mask=self.mask, position_ids=self.positions)
        self.keep([i for i, n in enumerate(copies) for _ in range(n)])
        return hidden[:, -1]

    def advance(self, tokens: Sequence[int]) -> Tensor:
        """Append a token to each row; give the (rows, d) hidden states after it."""
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        self.positions = self.positions[:, -1:] + 1
        return _append(self.model, tokens, self.cache, self.mask, self.positions)

    def keep(self, stay: Sequence[int]) -> None:
        """Let all other rows leave; row `stay[i]` becomes row i."""
        if list(stay) == list(range(len(self.mask))):
            return
        rows = torch.tensor(stay, device=self.model.device, dtype=torch.long)
        self.cache.reorder_cache(rows)  # batch_select_indices is not there for layers with linear attention
        self.mask, self.positions = self.mask[rows], self.positions[rows]


class Followed:
    """Places of a cache in shards: every rank has some heads of it, and does the same to them."""

    def __init__(self, ranks: Ranks, own: Places | Leaving) -> None:
        self.ranks, self.own = ranks, own
        self.takes_more = own.takes_more

    def join(self, prompts: Sequence[Prompt], copies: Sequence[int]) -> Tensor:
        """As of :class:`Places`."""
        with self.ranks.together("places", "join", prompts, copies):
            return self.own.join(prompts, copies)

    def advance(self, tokens: Sequence[int]) -> Tensor:
        """As of :class:`Places`."""
        with self.ranks.together("places", "advance", tokens):
            return self.own.advance(tokens)

    def keep(self, stay: Sequence[int]) -> None:
        """As of :class:`Places`."""
        with self.ranks.together("places", "keep", stay):
            self.own.keep(stay)


Opened = Places | Leaving | Followed


def open_places(model: Model, places: int, longest: int) -> Opened:
    """Give a cache for so many rows of at most `longest` tokens: one that takes more of them, if its layers allow."""
    if model.ranks is None:
        return _own_places(model, places, longest)
    with model.ranks.together("open", places, longest, model.other_dtype):
        return Followed(model.ranks, _own_places(model, places, longest))


def _own_places(model: Model, places: int, longest: int) -> Places | Leaving:
    layers = _empty_cache(model).layers
    takes_more = layers and all(type(layer) is DynamicLayer for layer in layers)
    return Places(model, places, longest) if takes_more else Leaving(model)


class _Layer(DynamicLayer):
    """Keys and values of one layer, (places, heads, columns, d) of either.

    In use are the first `rows`, and the `width` columns up to `end`; whatever is in use was written.
    """

    def __init__(self, places: int, columns: int) -> None:
        super().__init__()
        self.places, self.columns = places, columns
        self.rows = self.width = self.end = 0
        self.stored: list[Tensor] = []

    def get_seq_length(self) -> int:
        """Give the columns in use, which the model's mask must cover."""
        return self.width

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the newest column; give all that are in use."""
        self._move_if_needed(self.width, 1)
        self.width, self.end = self.width + 1, self.end + 1
        for stored, new in zip(self.stored, (key_states, value_states), strict=True):
            stored[: self.rows, :, self.end - 1 : self.end] = new
        self.keys, self.values = (s[: self.rows, :, self.end - self.width : self.end] for s in self.stored)
        return self.keys, self.values

    def widen(self, width: int, like: Any) -> None:
        """Take at least `width` columns into use; `like` is a layer of the same kind with something in it."""
        if not self.stored and like.keys is not None:
            states = (like.keys, like.values)
            self.stored = [x.new_empty(self.places, x.shape[1], self.columns, x.shape[3]) for x in states]
        width = max(width, self.width)
        self._move_if_needed(width, 0)
        for stored in self.stored:  # what is masked must still be a number
            stored[: self.rows, :, self.end - width : self.end - self.width] = 0.0
        self.width = width

    def put(self, filled: Any, row: int, length: int, copies: int) -> None:
        """Add copies of a row of another cache, of which the first `length` columns count."""
        for stored, source in zip(self.stored, (filled.keys, filled.values), strict=bool(self.stored)):
            rows = stored[self.rows : self.rows + copies]
            rows[:, :, self.end - self.width : self.end - length] = 0.0
            rows[:, :, self.end - length : self.end] = source[row, :, :length]
        self.rows += copies

    def keep(self, stay: Sequence[int], width: int) -> None:
        """Put row `stay[i]`, which is i or none that stays in its place, in place i; `width` columns remain in use."""
        self.rows, self.width = len(stay), width
        to = [i for i, old in enumerate(stay) if i != old]
        for stored in self.stored if to else []:
            used = stored[:, :, self.end - width : self.end]
            used[to] = used[[stay[i] for i in to]]

    def _move_if_needed(self, width: int, more: int) -> None:
        """Move the columns in use so that `width` of them end where they end, and `more` fit behind."""
        if width <= self.end <= self.columns - more:
            return
        for stored in self.stored:
            used = stored[: self.rows, :, self.end - self.width : self.end].clone()
            stored[: self.rows, :, width - self.width : width] = used
        self.end = width


def _empty_cache(model: Model) -> Any:
    return transformers.DynamicCache(config=model.hf.config.get_text_config())


def _append(model: Model, tokens: Sequence[int], cache: Any, mask: Tensor, positions: Tensor) -> Tensor:
    column = torch.tensor(tokens, device=model.device).unsqueeze(-1)
    return _forward(model, column, cache, attention_mask=mask, position_ids=positions)[:, -1]


def _forward(model: Model, tokens: Tensor, cache: Any, **where: Tensor) -> Tensor:
    if not model.takes_positions:
        where.pop("position_ids", None)
    return model.hidden(tokens, **{str(model.cache_argument): cache}, use_cache=True, **where)


def _left_padded(sequences: Sequence[Prompt], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(s) for s in sequences)
    tokens = [[s[0]] * (width - len(s)) + list(s) for s in sequences]
    mask = [[0] * (width - len(s)) + [1] * len(s) for s in sequences]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
