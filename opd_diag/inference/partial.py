"""What a server said of some states, made into the fields of the scores: all of them, or those that it decides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opd_diag import metrics
from opd_diag.inference.block import BlockPlan, at_ids, by_definition, kept_fields
from opd_diag.inference.onepass import Top
from opd_diag.inference.outline import DRAWN, ENDS
from opd_diag.metrics.topk import block_maxima, topk_of_blocks

BOUNDED = ("teacher_entropy", "reverse_kl", "forward_kl", "jensen_shannon", "common_mass")
"""Fields whose bounds are kept for every k of a sweep."""

UNBOUNDED = {"gradient_squared_norm": 0.0, "centred_reverse_kl": -math.inf}
"""Fields of which nothing is known without the whole distribution but the least that they can be."""


@dataclass(frozen=True)
class PartialPlan(BlockPlan):
    """What is the same for every block of states of which a server says something."""

    ks: tuple[int, ...]
    """Of the sweep of bounds; empty where whole distributions come back."""
    slack: float
    """How far the sum of returned probabilities may be off by rounding."""


@dataclass(frozen=True)
class Rows:
    """What a server said of m states, and what was sampled there."""

    topk_ids: npt.NDArray[Any]
    topk_logprobs: npt.NDArray[Any]
    sampled: npt.NDArray[np.int64]
    sampled_logprobs: npt.NDArray[Any]
    at_ids: npt.NDArray[np.int64] | None = None
    """Ids that it was asked for, -1 in unused places."""
    at_logprobs: npt.NDArray[Any] | None = None
    drawn_ids: npt.NDArray[np.int64] | None = None
    """(m,) ids that were drawn from the student, each among `at_ids` or the top K."""

    def beyond(self) -> tuple[Tensor, Tensor]:
        """Give ids outside the top K whose log-probabilities are known too, -1 in unused places: sampled, and asked."""
        ids, logprobs = self.sampled[:, None], self.sampled_logprobs[:, None]
        if self.at_ids is not None and self.at_logprobs is not None:
            ids = np.concatenate([ids, self.at_ids], axis=-1)
            logprobs = np.concatenate([logprobs, self.at_logprobs], axis=-1)
        again = repeated(np.concatenate([self.topk_ids, ids], axis=-1))[:, self.topk_ids.shape[1] :]
        unused = again | (ids < 0)
        return torch.from_numpy(np.where(unused, -1, ids)), torch.from_numpy(np.where(unused, 0.0, logprobs))


def repeated(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell which ids of a row stand in an earlier place of it too."""
    order = np.argsort(ids, axis=-1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=-1)
    again = np.zeros(ids.shape, dtype=bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    found = np.zeros(ids.shape, dtype=bool)
    np.put_along_axis(found, order, again, axis=-1)
    return found


def whole_fields(p: Tensor, teacher: Rows, plan: PartialPlan) -> dict[str, Tensor]:
    """Give all fields of m states whose distributions are known in full."""
    width = max(plan.vocabulary, int(teacher.topk_ids.max()) + 1)
    q = torch.full((len(p), width), -math.inf, dtype=torch.float64)
    q.scatter_(-1, torch.from_numpy(teacher.topk_ids.astype(np.int64)), torch.from_numpy(teacher.topk_logprobs))
    common = q[:, : plan.vocabulary]
    norm = common.logsumexp(-1, keepdim=True)
    sampled = torch.from_numpy(teacher.sampled)
    fields = by_definition(p, common - norm, sampled, plan)
    cut_mass = 1 - (norm.squeeze(-1) - q.logsumexp(-1)).exp()
    return _typed(fields | _of_sampled(sampled) | {"teacher_cut_mass": cut_mass.clamp(0, 1)})


def partial_fields(p: Tensor, teacher: Rows, plan: PartialPlan) -> dict[str, Tensor]:
    """Give what is known of m states, and the bounds of what is not."""
    sampled, top_ids = torch.from_numpy(teacher.sampled), torch.from_numpy(teacher.topk_ids.astype(np.int64))
    top_logprobs, (extra_ids, extra) = torch.from_numpy(teacher.topk_logprobs), teacher.beyond()
    known_ids, known = torch.cat([top_ids, extra_ids], dim=-1), torch.cat([top_logprobs, extra], dim=-1)
    values, ids, tied = topk_of_blocks(p, block_maxima(p), plan.k_found)
    ours = Top(values, ids, metrics.known_at(known_ids, known, ids), tied)
    first = top_ids[:, : plan.k_found]
    theirs = Top(top_logprobs[:, : plan.k_found], first, p.gather(-1, first), torch.zeros_like(tied))
    fields = {
        "student_sampled_logprobs": at_ids(p, sampled),
        "teacher_sampled_logprobs": torch.from_numpy(teacher.sampled_logprobs),
        "student_entropy": metrics.entropy(p),
        "student_stop_logprobs": metrics.stop_logprobs(p, plan.stop_ids),
        **kept_fields(ours, theirs, plan.k_kept, plan.grid),
    }
    nested = metrics.nested_bounds(p, top_ids, top_logprobs, extra_ids, extra, plan.ks, slack=plan.slack)
    ends = {
        name: torch.stack([torch.stack([of.low, of.high], -1) for of in (getattr(nested[k], name) for k in plan.ks)], 1)
        for name in BOUNDED
    }
    ends["teacher_stop_logprobs"] = _stop_ends(top_logprobs, known_ids, known, plan)
    unknown = torch.full_like(p[:, 0], math.nan)
    for name, low in UNBOUNDED.items():
        ends[name] = torch.tensor([low, math.inf]).expand(len(p), len(plan.ks), 2)
    last = {name: of[:, -1] for name, of in ends.items()}
    fields |= {name: torch.where(of[:, 0] == of[:, 1], of[:, 0], unknown) for name, of in last.items()}
    bounds = {f"{ENDS}{name}": of.float() for name, of in ends.items()}
    fields |= _of_sampled(sampled) | {"teacher_cut_mass": unknown}
    if teacher.drawn_ids is not None:
        fields |= _of_drawn(torch.from_numpy(teacher.drawn_ids), p, known_ids, known)
    return _typed(fields) | bounds


def _stop_ends(top: Tensor, known_ids: Tensor, known: Tensor, plan: PartialPlan) -> Tensor:
    """Give (m, J, 2) bounds of the teacher's log-probability of stopping: exact where all stop ids are known."""
    stops = torch.tensor(plan.stop_ids, dtype=torch.long)
    at = metrics.known_at(known_ids, known, stops.expand(len(top), len(stops)))
    exact = at.logsumexp(-1).clamp(max=0) if len(stops) else torch.full_like(top[:, 0], -math.inf)
    mass = metrics.teacher_mass_bounds(known_ids, known, top[:, -1], stops, plan.vocabulary, slack=plan.slack)
    all_known = ~at.isnan().any(-1)
    low, high = (torch.where(all_known, exact, of.log()) for of in (mass.low, mass.high))
    return torch.stack([low, high], -1).unsqueeze(1).expand(len(top), len(plan.ks), 2)


def _of_drawn(drawn: Tensor, p: Tensor, known_ids: Tensor, known: Tensor) -> dict[str, Tensor]:
    theirs = metrics.known_at(known_ids, known, drawn.unsqueeze(-1)).squeeze(-1)
    of = {"ids": drawn.int(), "student_logprobs": at_ids(p, drawn), "teacher_logprobs": theirs}
    return {f"{DRAWN}{name}": values for name, values in of.items()}


def _of_sampled(sampled: Tensor) -> dict[str, Tensor]:
    return {"sampled_ids": sampled.int(), "terminal": sampled < 0}


_DOUBLE = ("gradient_squared_norm", "centred_reverse_kl")


def _typed(fields: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give fields in the types that scores have."""
    return {n: v.float() if v.is_floating_point() and n not in _DOUBLE else v for n, v in fields.items()}
