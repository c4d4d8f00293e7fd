"""Small scored rollouts with every distribution known in full, and the plain computations tables are held against."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import stats as scipy_stats
from student_intervals import defined_clusters, error_of, influences_of, interval_of

from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.scores import Scores
from opd_diag.stats import Resampling
from opd_diag.tables.bands import DRAWS, SEED

from .conftest import scores_from
from .formulas import formulas

VOCABULARY = 40
WEIGHTED_BY = {"gradient_ratio": "gradient_squared_norm", "thunlp_overlap_token_advantage": "shared_tokens"}


@dataclass(frozen=True)
class Scored:
    """Scores, what they are of, and the two distributions at every state (terminal ones included)."""

    scores: Scores
    rollouts: list[Rollout]
    p: np.ndarray
    q: np.ndarray

    @property
    def pair(self):
        return self.scores, self.rollouts


def rollout(prompt=0, index=0, length=3, *, label="step 10", key="", plain=True, **options):
    temperature, top_p = (1.0, 1.0) if plain else (0.7, 1.0)
    source = options.pop("provenance", None) or Provenance("sampled", label, key, None, temperature, top_p, 0)
    made_up = tuple((7 * prompt + 3 * index + 5 * i) % VOCABULARY for i in range(length))
    return Rollout(
        prompt_index=prompt,
        rollout_index=index,
        prompt_id=f"p{prompt}",
        group=options.pop("group", None),
        prompt_ids=(1, 2),
        teacher_prompt_ids=(1, 2),
        response_ids=options.pop("response_ids", made_up),
        stop_reason=options.pop("stop_reason", "stop"),
        provenance=source,
        **options,
    )


def scored(rollouts, *, step=10, label="step 10", states="on-policy", seed=0, vocabulary=VOCABULARY, **about):
    """Score `rollouts` under two made-up models; truncated ones get their terminal state."""
    places = [
        (row, position)
        for row, r in enumerate(rollouts)
        for position in (*r.state_positions, *([len(r.response_ids)] if r.truncated else []))
    ]
    generator = torch.Generator().manual_seed(seed)
    student = 2.0 * torch.randn(len(places), vocabulary, generator=generator, dtype=torch.float64)
    teacher = student + torch.randn(len(places), vocabulary, generator=generator, dtype=torch.float64)
    terminal = np.array([position == len(rollouts[row].response_ids) for row, position in places])
    sampled = [0 if end else rollouts[row].response_ids[p] for (row, p), end in zip(places, terminal, strict=True)]
    return of_distributions(
        rollouts, places, terminal, student.log_softmax(-1), teacher.log_softmax(-1), sampled,
        step=step, label=label, states=states, about=about,
    )  # fmt: skip


def of_distributions(
    rollouts, places, terminal, student, teacher, sampled, *, step, label, states, about=None, dtype=torch.float32
):
    """Scores of known log-probabilities; `about` changes the provenance."""
    made = scores_from(student.to(dtype), teacher.to(dtype), torch.tensor(sampled))
    nan_at_end = {
        name: np.where(terminal, np.nan, getattr(made, name))
        for name in ("student_sampled_logprobs", "teacher_sampled_logprobs")
    }
    changes = about or {}
    provenance = {
        "states": states,
        "student": {"name": label, "label": label, "step": step, "key": ""},
        "teacher": {"name": "big", "key": ""},
        "student_temperature": 1.0,
        "teacher_temperature": 1.0,
    }
    student_changes = provenance["student"] | changes.get("student", {})
    scores = replace(
        made,
        rollout=np.array([row for row, _ in places], dtype=np.int32),
        position=np.array([position for _, position in places], dtype=np.int32),
        terminal=terminal,
        sampled_ids=np.where(terminal, -1, made.sampled_ids).astype(np.int32),
        provenance=provenance | changes | {"student": student_changes},
        **nan_at_end,
    )
    return Scored(scores, list(rollouts), student.exp().numpy(), teacher.exp().numpy())


def a_run(steps=(10, 20), prompts=6, *, on_start=True, on_teacher=False, back=False):
    """State sets of some checkpoints: two rollouts a prompt, lengths differ, some are cut."""
    parts, start = [], None
    teachers = [
        rollout(p, i, 3 + (p + i) % 4, label="teacher", is_correct=p > 0) for p in range(prompts) for i in (0, 1)
    ]
    for i, step in enumerate(steps):
        label = f"checkpoint {i}" if step is None else f"step {step}"
        own = [
            rollout(
                prompt, index, 2 + (prompt + 2 * index + i) % 4, label=label,
                stop_reason="length" if (prompt + i) % 3 == 0 else "stop", is_correct=(prompt + index + i) % 2 == 0,
            )
            for prompt in range(prompts)
            for index in range(2)
        ]  # fmt: skip
        start = own if start is None else start
        parts.append(scored(own, step=step, label=label, seed=2 * i))
        if on_start:
            parts.append(scored(start, step=step, label=label, states="start", seed=2 * i + 1))
        if on_teacher:
            parts.append(scored(teachers, step=step, label=label, states="teacher", seed=30 + i))
        if back:
            parts.append(scored_back(own, parts[0], step=step, label=label, seed=50 + i))
    return parts


def scored_back(own, first, *, step, label, seed):
    """Score a checkpoint's `own` rollouts with the student of `first`; the rows are listed under the checkpoint."""
    student = first.scores.provenance["student"]
    under = {"checkpoint": {"label": label, "step": step}}
    return scored(own, step=student["step"], label=student["label"], states="back", seed=seed, **under)


def shared_at(p, q, k):
    """Ids among the k most probable of both, for one state."""
    return sorted(set(np.argsort(-p, kind="stable")[:k]) & set(np.argsort(-q, kind="stable")[:k]))


def naive_gradient(p, q):
    """g(v)² of all tokens at one state, the gradient of reverse KL at the student's logits."""
    ratio = np.log(p / q)
    return (p * (ratio - (p * ratio).sum())) ** 2


def naive_gradient_ratios(p, q, k):
    """Shares of the four kinds of token at one state."""
    pushes, student, teacher = naive_gradient(p, q), np.zeros(len(p), dtype=bool), np.zeros(len(p), dtype=bool)
    student[np.argsort(-p, kind="stable")[:k]] = True
    teacher[np.argsort(-q, kind="stable")[:k]] = True
    kinds = {"shared": student & teacher, "student_only": student & ~teacher, "teacher_only": teacher & ~student}
    kinds["other"] = ~student & ~teacher
    return {f"{kind}_gradient_ratio": pushes[of].sum() / pushes.sum() for kind, of in kinds.items()}


def naive_metrics(p, q, sampled_id, k, kept=32):
    """Every metric of the catalogue at one state, from the whole distributions; the first ones again with numpy."""
    shared = shared_at(p, q, k)
    entropy_p, entropy_q = -(p * np.log(p)).sum(), -(q * np.log(q)).sum()
    bar_p, bar_q = p[shared] / p[shared].sum(), q[shared] / q[shared].sum()
    advantage = (bar_p * np.log(bar_q / bar_p)).sum() / len(shared) if shared else np.nan
    return formulas(p.tolist(), q.tolist(), int(sampled_id), k, kept) | {
        "overlap_ratio": len(shared) / k,
        "student_overlap_mass": p[shared].sum(),
        "teacher_overlap_mass": q[shared].sum(),
        "overlap_token_advantage": advantage,
        "entropy_gap": abs(entropy_p - entropy_q),
        "entropy_difference": entropy_p - entropy_q,
        "student_entropy": entropy_p,
        "teacher_entropy": entropy_q,
        "reverse_kl": (p * np.log(p / q)).sum(),
        "forward_kl": (q * np.log(q / p)).sum(),
        "sampled_reverse_kl": np.log(p[sampled_id] / q[sampled_id]),
        "top1_agreement": float(p.argmax() == q.argmax()),
        **naive_gradient_ratios(p, q, k),
    }


def weights_of(states, metric):
    """What each state counts in a mean of `metric`."""
    column = WEIGHTED_BY.get("gradient_ratio" if metric.endswith("gradient_ratio") else metric)
    return np.ones(len(states)) if column is None else states[column]


def naive_mean(values, clusters, weights=None):
    """Weighted mean and its interval clustered by prompt, term by term and with matrices; NaN is left out."""
    values, clusters = list(values), list(clusters)
    names = defined_clusters(values, clusters)
    if not names:
        return np.nan, np.nan, np.nan
    return interval_of(*influences_of(values, clusters, names, weights))


def naive_band(places, prompts):
    """(low, high) at each place of one curve, by the definition of a sup-t band, draw by draw.

    `places` are (values, clusters) of each; `prompts` all clusters of the run, whose weights follow from their names.
    """
    names = sorted({*prompts})
    weights = Resampling(names, draws=DRAWS, seed=SEED).weights.astype(float)
    largest, points = np.zeros(DRAWS), []
    for values, clusters in places:
        values, clusters = np.asarray(values, dtype=float), np.asarray(clusters)
        mean, moved, shares = influences_of(values, clusters, defined_clusters(values, clusters))
        points.append((mean, *error_of(moved, shares)))
        if np.isfinite(points[-1][1]):
            counted = weights[:, [names.index(c) for c in clusters]]
            resampled = (counted * values).sum(1) / counted.sum(1)
            largest = np.maximum(largest, np.abs(resampled - resampled.mean()) / resampled.std())
    covered = scipy_stats.norm.cdf(max(np.quantile(largest, 0.95), scipy_stats.norm.ppf(0.975)))
    halves = [error * scipy_stats.t.ppf(covered, degrees) for _, error, degrees in points]
    means = np.array([mean for mean, _, _ in points])
    return means - halves, means + halves
