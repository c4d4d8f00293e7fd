r"""A second pass, at few states: the student at other temperatures, and gradients of states against each other.

Scores keep sums over the vocabulary of one state at a time and of one temperature. Here the logits of some hundred
states are made three times, tile by tile, all states of a tile together:

1. the student's most probable token a, its logits s(a) and t(a), and the teacher's normaliser;
2. for every temperature τ, with x(v) = s(v) - s(a), y(v) = t(v) - t(a) and e_τ(v) = exp(x/τ), the sums Σ e_τ f over
   f = 1, x, y, x² and xy. They give KL(p_τ‖q) = E[x]/τ - E[y] - log Σ e_τ - log q(a), and its derivative by log τ,
   -Cov(x, x/τ - y)/τ. Four exponentials make all seventeen temperatures: halving τ squares e_τ;
3. the reverse-KL gradient g(v) = p(v) (x - y - E[x - y]), and the matrix of all g_t · g_u.

Everything from the logits on is float64; logits are those of the scoring, float32. Memory depends on the number of
states and temperatures, not on the vocabulary.

**The gradient of the output matrix.** G_t = g_t h_tᵀ, h what the head multiplies. A bias changes neither; a scale and
the temperature of the scored distribution multiply all G alike, which drops out of the coherence; behind a soft-cap c,
g(v) is multiplied by 1 - (l(v)/c)², l the capped logit, at every state. A model without a linear head has no G.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opd_diag.inference.head import Head, OwnLogits
from opd_diag.metrics.gradient import RESOLUTION
from opd_diag.records.fits import TEMPERATURES

WIDTH = 1024
"""Ids of a tile."""

ROWS = 16
"""States of a tile that are tempered at a time, which makes one matrix a temperature: 2 MiB in all."""

Heads = tuple[Head | OwnLogits, Head | OwnLogits]


@dataclass(frozen=True)
class SecondPass:
    """What it leaves of n states; all float64, on the CPU."""

    tempered_reverse_kl: Tensor
    """(n, G)."""
    tempered_slope: Tensor
    """(n, G) by log τ."""
    products: Tensor
    """(n, n) ⟨G_t, G_u⟩; NaN in rows and columns of states without a gradient."""
    least_squared_norms: Tensor
    """(n,) ‖G‖² where log-ratios differ by no more than float32 keeps apart (:mod:`opd_diag.metrics.gradient`)."""


@torch.inference_mode()
def second_pass(
    heads: Heads, hidden: tuple[Tensor, Tensor], vocabulary: int, temperatures: tuple[float, float]
) -> SecondPass:
    """Temper the student and multiply gradients, at some hundred states.

    Parameters
    ----------
    heads
        Of student and teacher.
    hidden
        (n, d) last hidden states of both, each of its own d.
    vocabulary
        Ids in common; both distributions are cut to them.
    temperatures
        Of the scored distributions of student and teacher; the student is tempered on top of it.
    """
    tiles = _Tiles(heads, hidden, vocabulary, temperatures)
    best = _first_tokens(tiles)
    sums = _tempered_sums(tiles, best)
    by = torch.tensor(TEMPERATURES, dtype=torch.float64, device=sums.device)
    mass = sums[..., 0]
    x, y, xx, xy = (sums[..., i] / mass for i in range(1, 5))
    log_mass = mass.log()
    value = x / by - y - log_mass - (best.teacher - best.teacher_normaliser).unsqueeze(-1)
    slope = -((xx - x * x) / by - (xy - x * y)) / by
    one = TEMPERATURES.index(1.0)
    products = _products(tiles, best, log_mass[:, one], (x - y)[:, one])
    peak = (-log_mass[:, one]).exp()
    lengths = hidden[0].double().square().sum(-1)
    least = (RESOLUTION * peak.sqrt() * (1 - peak)).square() * lengths
    return SecondPass(value.cpu(), slope.cpu(), products.cpu(), least.cpu())


@dataclass(frozen=True)
class _FirstTokens:
    """The student's most probable token, n times."""

    student: Tensor
    """(n,) its logit."""
    teacher: Tensor
    """(n,) the teacher's logit at it."""
    teacher_normaliser: Tensor
    """(n,) log Σ exp of the teacher's logits."""


class _Tiles:
    """Logits of both models, some ids at a time."""

    def __init__(
        self, heads: Heads, hidden: tuple[Tensor, Tensor], vocabulary: int, temperatures: tuple[float, float]
    ) -> None:
        self.heads, self.hidden, self.temperatures = heads, hidden, temperatures
        self.starts = range(0, vocabulary, WIDTH)
        self.vocabulary, self.n = vocabulary, len(hidden[0])

    def both(self, start: int) -> tuple[Tensor, Tensor]:
        """Give (n, width) logits of student and teacher, in float64."""
        student, teacher = (self._tile(model, start) for model in range(2))
        return student, teacher

    def zeros(self, *shape: int) -> Tensor:
        """Give float64 zeros where the models compute."""
        return torch.zeros(self.n, *shape, dtype=torch.float64, device=self.heads[0].device)

    def _tile(self, model: int, start: int) -> Tensor:
        stop = min(start + WIDTH, self.vocabulary)
        return self.heads[model].tile(self.hidden[model], start, stop).double() / self.temperatures[model]


def _first_tokens(tiles: _Tiles) -> _FirstTokens:
    student, teacher, normaliser = tiles.zeros() - torch.inf, tiles.zeros(), tiles.zeros() - torch.inf
    for start in tiles.starts:
        s, t = tiles.both(start)
        best, index = s.max(-1)
        better = best > student
        student = torch.where(better, best, student)
        teacher = torch.where(better, t.gather(-1, index.unsqueeze(-1)).squeeze(-1), teacher)
        normaliser = torch.logaddexp(normaliser, t.logsumexp(-1))
    return _FirstTokens(student, teacher, normaliser)


def _tempered_sums(tiles: _Tiles, best: _FirstTokens) -> Tensor:
    """Give (n, G, 5) sums of e_τ, e_τ x, e_τ y, e_τ x² and e_τ x y."""
    sums = tiles.zeros(len(TEMPERATURES), 5)
    for start in tiles.starts:
        x, y, possible = _centred(tiles, best, start)
        for row in range(0, tiles.n, ROWS):
            rows = slice(row, row + ROWS)
            features = torch.stack(
                [torch.ones_like(x[rows]), x[rows], y[rows], x[rows].square(), x[rows] * y[rows]], -1
            )
            sums[rows] += _weights(x[rows], possible[rows]) @ features
    return sums


def _weights(x: Tensor, possible: Tensor) -> Tensor:
    """Give (rows, G, width) e_τ, 0 where the student excludes an id."""
    weights = x.new_empty(len(x), len(TEMPERATURES), x.shape[1])
    for i in reversed(range(len(TEMPERATURES))):
        if i + _OCTAVE < len(TEMPERATURES):
            torch.square(weights[:, i + _OCTAVE], out=weights[:, i])
        else:
            torch.exp(x / TEMPERATURES[i], out=weights[:, i]).masked_fill_(~possible, 0.0)
    return weights


_OCTAVE = next(i for i, t in enumerate(TEMPERATURES) if t == 2 * TEMPERATURES[0])


def _products(tiles: _Tiles, best: _FirstTokens, log_mass: Tensor, mean: Tensor) -> Tensor:
    head = tiles.heads[0]
    if isinstance(head, OwnLogits):
        return tiles.zeros(tiles.n) + torch.nan
    products = tiles.zeros(tiles.n)
    for start in tiles.starts:
        x, y, possible = _centred(tiles, best, start)
        g = ((x - y - mean.unsqueeze(-1)) * (x - log_mass.unsqueeze(-1)).exp()).masked_fill_(~possible, 0.0)
        if head.softcap is not None:
            capped = (x + best.student.unsqueeze(-1)) * tiles.temperatures[0]
            g *= 1 - (capped / head.softcap).square()
        products += g @ g.T
    h = tiles.hidden[0].double()
    return products * (h @ h.T)


def _centred(tiles: _Tiles, best: _FirstTokens, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give x and y of a tile, and where the student excludes no id; elsewhere both are 0."""
    s, t = tiles.both(start)
    possible = s > -torch.inf
    x, y = s - best.student.unsqueeze(-1), t - best.teacher.unsqueeze(-1)
    return x.masked_fill_(~possible, 0.0), y.masked_fill_(~possible, 0.0), possible
