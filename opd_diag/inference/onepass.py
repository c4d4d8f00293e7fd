r"""One pass over the vocabulary: everything that is summed over it, for both models at once.

**What is computed.** At one state let s(v) and t(v) be the logits of student and teacher, p = softmax(s), q =
softmax(t). Wanted are both entropies, KL in both directions, the squared norm of the reverse-KL gradient g(v) =
p(v) (log p(v) - log q(v) - KL(p‖q)), the Jensen–Shannon divergence, Σ min(p, q), and the most probable tokens
of both, exactly, in float32, without a matrix of (all tokens × vocabulary).

**How.** For a block of states the logits of both heads are made tile by tile (some thousand ids at a time,
while a tile fits the processor's cache) and kept in two buffers of fixed size. Maxima of small groups of ids
are taken on the way; from them follow the exact top tokens (:mod:`opd_diag.metrics.topk`) and both row maxima.
One sweep over the tiles then sums, and a second one, once both normalisers are known, does what needs p and q
themselves.

**Why these sums.** Let a be the student's and b the teacher's most probable token, and

    e(v) = exp(s(v) - s(a)),   f(v) = exp(t(v) - t(b)),   x(v) = (s(v) - t(v)) - (s(a) - t(a)).

The log-ratio x is *centred* at a: x(a) = 0. The first sweep gives, over all v but the models' own first tokens,

    Z₀ = Σ e       E = Σ e (s - s(a))       A = Σ e x       G₀ = Σ e²   G₁ = Σ e² x   G₂ = Σ e² x²
    Y₀ = Σ f       F = Σ f (t - t(b))       B = Σ f x

The first tokens are left out of Z₀ and Y₀ because theirs is a 1 that would swallow the digits of the rest when
p(a) is near 1; they add 0 to E, F, A, G₁ and G₂, and x(b) to B. With z = log(1 + Z₀) and y = log(1 + Y₀), by
``log1p`` in float64,

    H(p) = z - E/(1 + Z₀)                          H(q) = y - F/(1 + Y₀)
    c = log p(a) - log q(a) = -z - (t(a) - t(b) - y)
    KL(p‖q) = c + A/(1 + Z₀)                       KL(q‖p) = -c - (B + x(b))/(1 + Y₀)
    ‖g‖² = (G₂ - 2 k G₁ + k² (G₀ + 1)) / (1 + Z₀)²,   k = A/(1 + Z₀)

The textbook way, Σ p s - Σ p t with the normalisers subtracted after, takes differences of large numbers: it
loses 1e-5 nats and can turn out negative. Here every large part (the offset of the logits, the ratio at a) is
taken out before anything is summed; tiles are summed in float32 and added up in float64.

The second sweep takes p = e/(1 + Z₀), q = f/(1 + Y₀), with m = p + q, and gives Σ min(p, q) and
JS = log 2 - ½ Σ m log m - ½ (H(p) + H(q)).

**What it cannot do.** A logit of minus infinity (a masked id) makes x undefined. Such states come out as NaN
here and are computed again, a few at a time, by the functions of :mod:`opd_diag.metrics`, which are also what
tests hold this against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_diag.inference.head import Head, OwnLogits
from opd_diag.metrics.topk import BLOCK, block_maxima, topk_of_blocks

BUFFER_BYTES = 33 * 2**20
"""Of the logits of one model, one block of states; there are two. Above 32 MiB the C library gives memory back at
once."""

ROWS = {"cpu": 256, "cuda": 2048}
"""Most states of a block: more would not make the matrix products faster."""

TILE_ELEMENTS = 2**18
"""Logits of one tile: 1 MiB."""

_TINY = 1.2e-38
"""Keeps the logarithm of 0 away; the smallest number that is not denormal in float32."""


@dataclass(frozen=True)
class Top:
    """The most probable tokens of one model, best first."""

    logits: Tensor
    """(m, K) its own, float32."""
    ids: Tensor
    """(m, K)."""
    others: Tensor
    """(m, K) the other model's logits at these ids."""
    tied: Tensor
    """(m,) whether the last one is as probable as one that was left out."""


@dataclass(frozen=True)
class Sums:
    """What the pass leaves of m states; all (m,) float64."""

    student_normaliser: Tensor
    """log Σ exp(s)."""
    teacher_normaliser: Tensor
    student_entropy: Tensor
    teacher_entropy: Tensor
    reverse_kl: Tensor
    forward_kl: Tensor
    jensen_shannon: Tensor
    common_mass: Tensor
    gradient_squared_norm: Tensor
    centred_reverse_kl: Tensor
    """Reverse KL without the log-ratio at the student's most probable token: k in the module's words."""


class OnePass:
    """The buffers of the pass, and the pass itself.

    Parameters
    ----------
    student, teacher
        The heads.
    vocabulary
        Ids in common; both distributions are cut to them.
    temperatures
        Of student and teacher; logits are divided by them.
    k
        Most probable tokens to find.
    """

    def __init__(
        self,
        student: Head | OwnLogits,
        teacher: Head | OwnLogits,
        vocabulary: int,
        temperatures: tuple[float, float] = (1.0, 1.0),
        k: int = 1,
    ) -> None:
        self.heads, self.vocabulary, self.temperatures, self.k = (student, teacher), vocabulary, temperatures, k
        self.rows = max(1, min(ROWS[student.device.type], BUFFER_BYTES // (4 * vocabulary)))
        self.width = max(BLOCK, TILE_ELEMENTS // self.rows // BLOCK * BLOCK)
        self._logits: list[Tensor] = []
        self._scratch: list[Tensor] = []

    def release(self) -> None:
        """Let go of the buffers; :meth:`load` makes them again."""
        self._logits, self._scratch = [], []

    def load(self, student_hidden: Tensor, teacher_hidden: Tensor) -> tuple[Top, Top]:
        """Compute the logits of at most `rows` states, and give both models' most probable tokens.

        Parameters
        ----------
        student_hidden, teacher_hidden
            (m, d), each of its own d.
        """
        if not self._logits:
            device, width = student_hidden.device, min(self.width, self.vocabulary)
            self._logits = [torch.empty(self.rows, self.vocabulary, device=device) for _ in range(2)]
            self._scratch = [torch.empty(self.rows, width, device=device) for _ in range(3)]
        self._m = len(student_hidden)
        maxima = [self._fill(i, hidden) for i, hidden in enumerate((student_hidden, teacher_hidden))]
        s, t = self._both
        found = [topk_of_blocks(x, of, self.k) for x, of in zip((s, t), maxima, strict=True)]
        student, teacher = (
            Top(values, ids, other.gather(-1, ids), tied)
            for (values, ids, tied), other in zip(found, (t, s), strict=True)
        )
        self._tops = student, teacher
        return self._tops

    def at(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Give both models' logits at ids (m, n); only between :meth:`load` and :meth:`sums`."""
        s, t = self._both
        return s.gather(-1, ids), t.gather(-1, ids)

    def sums(self) -> Sums:
        """Sweep over the logits that were loaded; they are used up."""
        student, teacher = self._tops
        first = self._first_sweep(student, teacher)
        (z0, e, a, g0, g1, g2), (y0, f, b) = first[:6], first[6:]
        y0, z0 = y0 + 1, z0 + 1
        z, y = (z0 - 1).log1p(), (y0 - 1).log1p()
        s_a, t_a = student.logits[:, 0].double(), student.others[:, 0].double()
        t_b, s_b = teacher.logits[:, 0].double(), teacher.others[:, 0].double()
        c = -z - (t_a - t_b - y)
        k = a / z0
        x_b = (s_b - t_b) - (s_a - t_a)
        entropies = z - e / z0, y - f / y0
        common, jensen_shannon = self._second_sweep(z0, y0, *entropies)
        return Sums(
            student_normaliser=s_a + z,
            teacher_normaliser=t_b + y,
            student_entropy=entropies[0].clamp(min=0),
            teacher_entropy=entropies[1].clamp(min=0),
            reverse_kl=(c + k).clamp(min=0),
            forward_kl=(-c - (b + x_b) / y0).clamp(min=0),
            jensen_shannon=jensen_shannon.clamp(0, math.log(2)),
            common_mass=common.clamp(0, 1),
            gradient_squared_norm=((g2 - 2 * k * g1 + k * k * (g0 + 1)) / (z0 * z0)).clamp(min=0),
            centred_reverse_kl=k,
        )

    @property
    def _both(self) -> tuple[Tensor, Tensor]:
        return self._logits[0][: self._m], self._logits[1][: self._m]

    def _tiles(self) -> list[tuple[int, int]]:
        return [(a, min(a + self.width, self.vocabulary)) for a in range(0, self.vocabulary, self.width)]

    def _fill(self, model: int, hidden: Tensor) -> Tensor:
        """Write the logits of one model into its buffer; give the maxima of its groups of ids."""
        head, temperature, logits = self.heads[model], self.temperatures[model], self._both[model]
        maxima, hidden = [], hidden.to(head.device)  # once, and not for every tile
        for start, stop in self._tiles():
            tile = head.tile(hidden, start, stop)
            if temperature != 1.0:
                tile.div_(temperature)
            maxima.append(block_maxima(tile))
            logits[:, start:stop] = tile
        return torch.cat(maxima, dim=-1).to(logits.device)

    def _first_sweep(self, student: Top, teacher: Top) -> list[Tensor]:
        """Give Z₀, E, A, G₀, G₁, G₂, Y₀, F and B; the buffers then hold e and f."""
        s_a, t_a, t_b = student.logits[:, :1], student.others[:, :1], teacher.logits[:, :1]
        ends = self._ends(student), self._ends(teacher)
        totals = [torch.zeros(self._m, dtype=torch.float64, device=s_a.device) for _ in range(9)]
        for start, stop in self._tiles():
            s, t = (logits[:, start:stop] for logits in self._both)
            x, shifted, spare = (buffer[: self._m, : stop - start] for buffer in self._scratch)
            torch.sub(s, s_a, out=shifted)
            torch.sub(shifted, torch.sub(t, t_a, out=x), out=x)
            e = _without(torch.exp(shifted, out=s), ends[0], start)
            ex = torch.mul(e, x, out=spare)
            sums = [e.sum(-1), shifted.mul_(e).sum(-1), ex.sum(-1)]
            sums += [_squares(e), torch.mul(ex, e, out=shifted).sum(-1), _squares(ex)]
            torch.sub(t, t_b, out=shifted)
            f = _without(torch.exp(shifted, out=t), ends[1], start)
            sums += [f.sum(-1), shifted.mul_(f).sum(-1), x.mul_(f).sum(-1)]
            for total, part in zip(totals, sums, strict=True):
                total += part
        for logits, top in zip(self._both, (student, teacher), strict=True):
            logits.scatter_(-1, top.ids[:, :1], 1.0)
        return totals

    def _second_sweep(self, z0: Tensor, y0: Tensor, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Give Σ min(p, q) and, with both entropies, the Jensen–Shannon divergence."""
        scales = [(1 / norm).float().unsqueeze(-1) for norm in (z0, y0)]
        common, mixed = (torch.zeros_like(z0) for _ in range(2))
        for start, stop in self._tiles():
            p, q, spare = (buffer[: self._m, : stop - start] for buffer in self._scratch)
            for out, logits, scale in zip((p, q), self._both, scales, strict=True):
                torch.mul(logits[:, start:stop], scale, out=out)
            common += torch.minimum(p, q, out=spare).sum(-1)
            m = p.add_(q).add_(_TINY)
            mixed += torch.log(m, out=spare).mul_(m).sum(-1)
        divergence = -0.5 * mixed
        for norm, scale, entropy in zip((z0, y0), scales, (student, teacher), strict=True):
            mass = scale.squeeze(-1).double() * norm  # 1 but for the rounding of the scale, which m has too
            divergence += 0.5 * mass * (math.log(2) + mass.log() - entropy)
        return common, divergence

    def _ends(self, top: Top) -> dict[int, tuple[Tensor, Tensor]]:
        """Give, by the start of its tile, the rows and columns of the first tokens."""
        first = top.ids[:, 0]
        tile = first // self.width
        rows = {int(n): (tile == n).nonzero().squeeze(-1) for n in tile.unique().tolist()}
        return {n * self.width: (where, first[where] - n * self.width) for n, where in rows.items()}


def _without(tile: Tensor, ends: dict[int, tuple[Tensor, Tensor]], start: int) -> Tensor:
    """Take the first tokens out of a tile."""
    if start in ends:
        tile[ends[start]] = 0.0
    return tile


def _squares(tile: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tile, dim=-1).double().square_()
