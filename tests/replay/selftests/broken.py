"""Models that are broken on purpose: noisy, late by a token, with permuted ids."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch

from opd_diag.inference.model import Model, wrap_model
from opd_diag.inference.precision import Twin


@dataclass(frozen=True)
class Noisy(Twin):
    """A model whose code adds noise when it runs, as dropout does that was left on."""

    size: float = 0.3

    def hidden(self, tokens, **inputs):
        states = super().hidden(tokens, **inputs)
        return states + self.size * torch.randn_like(states)


@dataclass(frozen=True)
class Late(Twin):
    """A model that gives at each token what it should have given `by` tokens before."""

    by: int = 1

    def hidden(self, tokens, **inputs):
        return super().hidden(tokens, **inputs).roll(self.by, dims=1)


def permuted(model: Model) -> Model:
    """The same network with the rows of its embedding and head in another order."""
    hf = copy.deepcopy(model.hf)
    rows = hf.get_input_embeddings().weight
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(5))
    rows.data = rows.data[order]
    made = wrap_model(hf, name=model.name, label=model.label, step=model.step)
    return replace(made, stop_ids=model.stop_ids)
