"""Hidden states and heads of two models, whose logits are hard on sums in one way or another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_diag.inference.head import Head


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass
class Pair:
    """Hidden states and heads of both models."""

    hidden: tuple[Tensor, Tensor]
    heads: tuple[Head, Head]

    def logits64(self, temperatures=(1.0, 1.0), vocabulary=None):
        """What the heads are in float64."""
        return [
            _head64(head, hidden)[:, :vocabulary] / t
            for head, hidden, t in zip(self.heads, self.hidden, temperatures, strict=True)
        ]


def _head64(head, hidden):
    logits = hidden.double() @ head.weight.double().T
    logits = head.scale * (logits if head.bias is None else logits + head.bias.double())
    return logits if head.softcap is None else head.softcap * (logits / head.softcap).tanh()


def pair(kind="ordinary", *, states=40, vocabulary=1000, seed=0, bias=True, **traits) -> Pair:
    """Make heads of two widths whose logits resemble each other; `traits` are scale and softcap."""
    name, _, size = kind.partition(" ")
    size = float(size or 0)
    spread = {"wide": 6.0, "flat": 1e-3}.get(name, 1.0)
    hidden, weight = normal(states, 24, seed=seed), normal(vocabulary, 24, seed=seed + 1) * 2 * spread / math.sqrt(24)
    more, noise = normal(states, 8, seed=seed + 2), normal(vocabulary, 8, seed=seed + 3) * spread / math.sqrt(8)
    noise *= {"noise": size, "identical": 0.0}.get(name, 1.0)
    biases = [torch.zeros(vocabulary) for _ in range(2)]
    if name in ("offset", "peaked-offset"):
        biases[0] += size
        biases[1] -= size
    if name in ("peaked", "peaked-offset", "opposed"):
        height = 20 if name == "peaked-offset" else size
        biases[0][5 % vocabulary] += height
        biases[1][(5 if name != "opposed" else 9) % vocabulary] += height - 3
    traits = {"scale": 1.0, "softcap": None} | traits
    heads = (weight, biases[0]), (torch.cat([weight, noise], 1), biases[1])
    student, teacher = (Head(w, b if bias else None, **traits) for w, b in heads)
    return Pair((hidden, torch.cat([hidden, more], 1)), (student, teacher))
