"""What the teacher can do at the ids of which it told nothing: the mildest and the worst of it, exactly.

A teacher told its probabilities q at some ids. At the n others, the unknown ids, it has the mass ρ, and at most the cap
c at each. Whole-vocabulary quantities are sums Σ d(p(v), q(v)), p the student, with a *law* d of the form p f(q / p), f
convex. Over the polytope {0 ≤ q ≤ c, Σ q = ρ}:

- the **least** sum has equal ratios q / p but where the cap forbids it: q = min(c, λ p). So the m most probable ids are
  at the cap, and the others, whose ratio is one, count as one id;
- the **greatest** sum is at an extreme point, which has m = ⌊ρ / c⌋ ids at the cap, one at what is left, and the others
  at 0. As d(p, q) - d(p, 0) falls with p, and faster where q is larger, the m ids are those of smallest p, and the one
  at what is left comes next. (Where d(p, 0) is infinite so is the sum, unless no id can be at 0: the same holds then.)

Both need the student's probabilities at the unknown ids in order, and nothing else of them: one sort and one sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from opd_diag.metrics.tail_mass import TailMass, exp, left_of

GROUPS = 512
"""Ids at the cap are summed in at most so many groups of neighbours. With more of them than that, a group is bounded
(the least by its sums: log-sum inequality; the greatest by the chord over it: convexity in p), which is valid too."""


class Law(NamedTuple):
    """What one id adds to a quantity; convex in (p, q)."""

    of: Callable[[Tensor, Tensor], Tensor]
    """d, of log p and log q: float64 in and out, -inf allowed."""
    least_ratio: float
    """q / p beyond which d rises with q."""
    even_ratio: float
    """q / p beyond which d(p, q) is above d(p, 0)."""


def _reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    weights = student.exp()
    return torch.where(weights > 0, weights * (student - teacher), 0.0)


def _jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    mixture = torch.logaddexp(student, teacher) - math.log(2)
    return (_reverse_kl(student, mixture) + _reverse_kl(teacher, mixture)) / 2


REVERSE_KL = Law(_reverse_kl, math.inf, math.inf)
FORWARD_KL = Law(lambda student, teacher: _reverse_kl(teacher, student), math.exp(-1), 1.0)
JENSEN_SHANNON = Law(_jensen_shannon, 1.0, 3.4034978790622925)
"""Its even ratio t solves t log(2 t / (1 + t)) = log(1 + t)."""
NEGATIVE_COMMON_MASS = Law(lambda student, teacher: -torch.minimum(student, teacher).exp(), math.inf, math.inf)
"""-min(p, q), which is the convex one."""


class Ascending(NamedTuple):
    """Log-probabilities in ascending order; what is not used stands behind them as +inf."""

    logprobs: Tensor
    """(..., W)."""
    sums: Tensor
    """(..., W + 1) float64: at j the sum of the j smallest probabilities, for j up to n."""
    n: Tensor
    """(..., 1) int64, how many are used."""


def ascending(logprobs: Tensor) -> Ascending:
    """Sort log-probabilities of which those that are +inf are not used.

    Examples
    --------
    >>> ascending(torch.tensor([0.0, -torch.inf, torch.inf])).sums[:3]
    tensor([0., 0., 1.], dtype=torch.float64)
    """
    ordered = logprobs.sort(-1).values
    sums = torch.nn.functional.pad(exp(ordered.double()), (1, 0)).cumsum_(-1)
    return Ascending(ordered, sums, (ordered < torch.inf).sum(-1, keepdim=True))


def without(student_logprobs: Tensor, known_ids: Tensor) -> Tensor:
    """Give (..., V + 1) log-probabilities that are +inf at known ids and at the last place; an id of -1 is none.

    Examples
    --------
    >>> without(torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([1, -1]))
    tensor([-1., inf, -3., inf])
    """
    size = student_logprobs.shape[-1]
    spare = student_logprobs.new_full((*student_logprobs.shape[:-1], size + 1), torch.inf)
    spare[..., :size] = student_logprobs
    return spare.scatter_(-1, torch.where(known_ids < 0, size, known_ids), torch.inf)


class Unknown:
    """The student's probabilities at the unknown ids, in ascending order, with their sums.

    Parameters
    ----------
    many, few
        Log-probabilities at two parts of the unknown ids. They are taken as one order without sorting again, so that
        one sort over the vocabulary serves several sets of known ids.
    """

    def __init__(self, many: Ascending, few: Ascending) -> None:
        self._many, self._few = many, few
        own = torch.arange(few.logprobs.shape[-1], device=few.logprobs.device)
        self._few_places = torch.searchsorted(many.logprobs, few.logprobs) + own
        self.n = many.n + few.n

    def logprobs(self, places: Tensor) -> Tensor:
        """Give the log-probabilities, float64, at (..., m) places of the ascending order, each in [0, n)."""
        few = torch.searchsorted(self._few_places, places.contiguous())
        at = few.clamp(max=self._few_places.shape[-1] - 1)
        of_few = (few == at) & (self._few_places.gather(-1, at) == places)
        of_many = self._many.logprobs.gather(-1, (places - few).clamp(0, self._many.logprobs.shape[-1] - 1))
        return torch.where(of_few, self._few.logprobs.gather(-1, at), of_many).double()

    def sums(self, counts: Tensor) -> Tensor:
        """Give the sums of the (..., m) counts smallest probabilities, each count in [0, n]."""
        few = torch.searchsorted(self._few_places, counts)
        return self._many.sums.gather(-1, counts - few) + self._few.sums.gather(-1, few)

    def above(self, logprob: Tensor) -> Tensor:
        """Count the ids above a log-probability, (..., 1)."""
        wanted = logprob.to(self._many.logprobs.dtype)
        below = [torch.searchsorted(part.logprobs, wanted, right=True) for part in (self._many, self._few)]
        return self.n - below[0] - below[1]

    def at_cap(self, mass: Tensor, cap: Tensor) -> Tensor:
        """Count the ids that q = min(c, λ p) has at the cap, where q sums to the mass; all are (..., 1).

        The i-th largest p is at the cap once the mass exceeds c (i + Σ of all smaller p / p), which rises with i.
        """
        low, high = torch.zeros_like(self.n), self.n
        for _ in range(self._many.sums.shape[-1].bit_length() + 1):
            middle = (low + high + 1) // 2
            place = self.n - middle
            smaller = self.sums(place) / self.logprobs(place.clamp(max=(self.n - 1).clamp(min=0))).exp()
            reached = (middle > low) & (middle + smaller < mass / cap)  # of an impossible id 0 / 0: never
            low, high = torch.where(reached, middle, low), torch.where(reached, high, torch.maximum(middle - 1, low))
        return low


def least(law: Law, unknown: Unknown, tail: TailMass) -> Tensor:
    """Give the least Σ d(p, q) over the unknown ids, (..., 1); attained where at most :data:`GROUPS` are at the cap."""
    if math.isinf(law.least_ratio):
        mass = tail.high
    else:
        count = unknown.above(tail.cap.log() - math.log(law.least_ratio))
        wanted = count * tail.cap + law.least_ratio * unknown.sums(unknown.n - count)
        mass = torch.minimum(torch.maximum(wanted, tail.low), tail.high)
    at_cap = unknown.at_cap(mass, tail.cap)
    cuts = _cuts(at_cap)
    of_groups = unknown.sums(unknown.n - cuts).diff(dim=-1).neg()
    grouped = law.of(of_groups.log(), (cuts.diff(dim=-1) * tail.cap).log()).sum(-1, keepdim=True)
    return grouped + law.of(unknown.sums(unknown.n - at_cap).log(), left_of(mass, at_cap, tail.cap).log())


def greatest(law: Law, unknown: Unknown, tail: TailMass) -> Tensor:
    """Give the greatest Σ d(p, q) over the unknown ids, (..., 1); attained where at most :data:`GROUPS` are at the cap.

    Between two multiples of the cap the sum is convex in the mass, and at the multiples it rises while the next p is
    below c / `even_ratio`: so one of three masses has the greatest.
    """
    count = (unknown.n - unknown.above(tail.cap.log() - math.log(law.even_ratio))).double()
    count = torch.minimum(torch.maximum(count, (tail.low / tail.cap).ceil()), (tail.high / tail.cap).floor())
    between = torch.minimum(torch.maximum(count * tail.cap, tail.low), tail.high)
    found = [_at_extreme(law, unknown, mass, tail.cap) for mass in (tail.low, between, tail.high)]
    return torch.stack(found).amax(0)


def _at_extreme(law: Law, unknown: Unknown, mass: Tensor, cap: Tensor) -> Tensor:
    n, nothing = unknown.n, torch.full_like(mass, -torch.inf)
    at_cap = torch.minimum((mass / cap).floor().long(), n)
    cuts = _cuts(at_cap)
    starts, width = cuts[..., :-1], cuts.diff(dim=-1)
    first, last = unknown.logprobs(starts), unknown.logprobs(torch.maximum(cuts[..., 1:] - 1, starts))
    span = last.exp() - first.exp()
    inside = unknown.sums(cuts).diff(dim=-1) - width * first.exp()
    of_last = torch.where(span > 0, inside / span, 0.0).clamp(min=0).minimum(width)
    of_first = width - of_last
    chords = _times(of_first, law.of(first, cap.log())) + _times(of_last, law.of(last, cap.log()))
    next_one = unknown.logprobs(at_cap.minimum(n - 1).clamp(min=0))
    one = torch.where(at_cap < n, law.of(next_one, left_of(mass, at_cap, cap).log()), 0.0)
    others = unknown.sums(n) - unknown.sums(torch.minimum(at_cap + 1, n))
    return chords.sum(-1, keepdim=True) + one + law.of(others.log(), nothing)


def _cuts(count: Tensor) -> Tensor:
    """Cut 0..count, (..., 1), into groups: (..., groups + 1) ends. Single ids, or ever larger groups if there are many.

    Examples
    --------
    >>> _cuts(torch.tensor([[3], [2000]]))[:, [0, 1, 2, 3, 4, 511, 512]].tolist()
    [[0, 1, 2, 3, 3, 3, 3], [0, 0, 0, 0, 0, 1992, 2000]]
    """
    groups = max(1, min(GROUPS, int(count.max()))) if count.numel() else 1
    ends = torch.arange(groups + 1, device=count.device)
    return torch.where(count <= groups, torch.minimum(ends, count), count * ends * ends // groups**2)


def _times(weights: Tensor, values: Tensor) -> Tensor:
    return torch.where(weights > 0, weights * values, 0.0)
