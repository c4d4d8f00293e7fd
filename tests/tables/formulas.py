"""Every metric of the catalogue at one state by its `formula`, in plain Python from two whole distributions."""

from __future__ import annotations

import math

PERSISTENCE, KEPT = 0.9, 32


def formulas(p, q, sampled, k, kept=KEPT):
    """Give every metric; `p`, `q` are lists of probabilities above 0, `sampled` an id or None, `kept` as in Scores."""
    ids = range(len(p))
    rankings = [sorted(ids, key=lambda v: (-x[v], v)) for x in (p, q)]
    tops = [ranking[:k] for ranking in rankings]
    kl = sum(p[v] * math.log(p[v] / q[v]) for v in ids)
    entropies = [-sum(x[v] * math.log(x[v]) for v in ids) for x in (p, q)]
    return {
        **of_overlap(p, q, tops, [ranking[:kept] for ranking in rankings]),
        "entropy_gap": abs(entropies[1] - entropies[0]),
        "entropy_difference": entropies[0] - entropies[1],
        "student_entropy": entropies[0],
        "teacher_entropy": entropies[1],
        "reverse_kl": kl,
        "forward_kl": sum(q[v] * math.log(q[v] / p[v]) for v in ids),
        "jensen_shannon": jensen_shannon(p, q),
        "common_mass": sum(min(p[v], q[v]) for v in ids),
        **of_losses(p, q, tops),
        **of_advantages(p, q, tops),
        **of_gradient(p, q, tops, kl),
        "signal_to_noise": signal_to_noise(p, q, {*tops[0], *tops[1]} | ({sampled} - {None})),
        "sampled_reverse_kl": math.nan if sampled is None else math.log(p[sampled] / q[sampled]),
        "tail_sampled_reverse_kl": math.nan if sampled is None else tail_sampled(p, q, sampled, rankings[1][:kept]),
        "near_zero_advantage_rate": math.nan
        if sampled is None
        else float(abs(math.log(q[sampled] / p[sampled])) < 1e-4),
    }


def tail_sampled(p, q, y, known):
    return sum(p[v] * math.log(p[v] / q[v]) for v in known) + (y not in known) * math.log(p[y] / q[y])


def of_overlap(p, q, tops, rankings):
    shared, union, k = set(tops[0]) & set(tops[1]), set(tops[0]) | set(tops[1]), len(tops[0])
    p_shared, q_shared = sum(p[v] for v in shared), sum(q[v] for v in shared)
    p_top, q_top = sum(p[v] for v in tops[0]), sum(q[v] for v in tops[1])
    p_union, q_union = sum(p[v] for v in union), sum(q[v] for v in union)
    return {
        "overlap_ratio": len(shared) / k,
        "rank_biased_overlap": rank_biased_overlap(*rankings),
        "top1_agreement": float(tops[0][0] == tops[1][0]),
        "student_overlap_mass": p_shared,
        "teacher_overlap_mass": q_shared,
        "student_topk_mass": p_top,
        "teacher_topk_mass": q_top,
        "student_overlap_mass_ratio": p_shared / p_top,
        "teacher_overlap_mass_ratio": q_shared / q_top,
        "teachable_mass": sum(q[v] for v in tops[0]),
        "bhattacharyya_coefficient": sum(math.sqrt(p[v] / p_union * q[v] / q_union) for v in union),
    }


def rank_biased_overlap(first, second):
    agreements = [len(set(first[:d]) & set(second[:d])) / d for d in range(1, len(first) + 1)]
    seen = sum(a * (1 - PERSISTENCE) * PERSISTENCE**d for d, a in enumerate(agreements))
    return seen + agreements[-1] * PERSISTENCE ** len(first)


def jensen_shannon(p, q):
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return sum(x * math.log(x / m) for of in (p, q) for x, m in zip(of, middle, strict=True)) / 2


def of_losses(p, q, tops):
    student, teacher = tops
    p_mass, q_mass = sum(p[v] for v in student), sum(q[v] for v in student)
    bar_p, bar_q = [p[v] / p_mass for v in student], [q[v] / q_mass for v in student]
    raw = sum(p[v] * math.log(p[v] / q[v]) for v in student)
    clamped = [(max(math.log(p[v]), -10.0), max(math.log(q[v]), -10.0)) for v in teacher]
    verl = sum(math.exp(b) * (b - a) for a, b in clamped)
    touched = any(math.log(min(p[v], q[v])) < -10 for v in teacher) or not 0 <= verl <= 10
    return {
        "topk_reverse_kl": sum(a * math.log(a / b) for a, b in zip(bar_p, bar_q, strict=True)),
        "raw_topk_reverse_kl": raw,
        "negative_topk_kl_rate": float(raw < 0),
        "thunlp_topk_reverse_kl": raw / p_mass,
        "verl_topk_forward_kl": min(max(verl, 0.0), 10.0),
        "verl_negative_rate": float(verl < 0),
        "verl_clamped_rate": float(touched),
        "trl_topk_reverse_kl": with_tail(p, q, student),
        "trl_topk_forward_kl": with_tail(q, p, teacher),
        "trl_topk_jensen_shannon": jensen_shannon(bar_p, bar_q),
        "trl_clamped_rate": float(max(p_mass, q_mass) > math.exp(-1e-7)),
    }


def with_tail(first, second, support):
    left = [max(1 - sum(x[v] for v in support), -math.expm1(-1e-7)) for x in (first, second)]
    return sum(first[v] * math.log(first[v] / second[v]) for v in support) + left[0] * math.log(left[0] / left[1])


def of_advantages(p, q, tops):
    shared = set(tops[0]) & set(tops[1])
    if not shared:
        names = ("", "thunlp_", "verl_", "probe_")
        return dict.fromkeys([f"{owner}overlap_token_advantage" for owner in names], math.nan)
    p_shared, q_shared, p_top = (sum(x[v] for v in of) for x, of in ((p, shared), (q, shared), (p, tops[0])))
    kl = sum(p[v] / p_shared * math.log((p[v] / p_shared) / (q[v] / q_shared)) for v in shared)
    floor = math.exp(-10)
    thunlp = sum(p[v] / p_top * math.log(q[v] / p[v]) for v in shared)
    verl = sum(max(q[v], floor) * math.log(max(p[v], floor) / max(q[v], floor)) for v in shared)
    return {
        "overlap_token_advantage": -kl / len(shared),
        "thunlp_overlap_token_advantage": thunlp / len(shared),
        "verl_overlap_token_advantage": verl / len(shared),
        "probe_overlap_token_advantage": -kl,
    }


def of_gradient(p, q, tops, kl):
    ids, shared = set(range(len(p))), set(tops[0]) & set(tops[1])
    pushes = [(p[v] * (math.log(p[v] / q[v]) - kl)) ** 2 for v in range(len(p))]
    only = [set(top) - shared for top in tops]
    kinds = {"shared": shared, "student_only": only[0], "teacher_only": only[1]}
    kinds["other"] = ids - shared - only[0] - only[1]
    return {f"{kind}_gradient_ratio": sum(pushes[v] for v in of) / sum(pushes) for kind, of in kinds.items()}


def signal_to_noise(p, q, candidates):
    """By enumerating the draws: every candidate's gradient (ρ - b)(e - p̄), and lengths in the Fisher metric."""
    ids = sorted(candidates)
    mass = sum(p[v] for v in ids)
    bar = [p[v] / mass for v in ids]
    ratio = [math.log(p[v] / q[v]) for v in ids]
    baseline = sum((1 - a) * r for a, r in zip(bar, ratio, strict=True)) / (len(ids) - 1) if len(ids) > 1 else 0.0
    gradients = [[(r - baseline) * ((i == j) - bar[j]) for j in range(len(ids))] for i, r in enumerate(ratio)]
    mean = [sum(bar[i] * gradients[i][j] for i in range(len(ids))) for j in range(len(ids))]

    def squared(vector):  # the Fisher matrix is diag(p̄) - p̄ p̄ᵀ; vectors that sum to 0 need its diagonal alone
        return sum(x * x / a for x, a in zip(vector, bar, strict=True))

    signal = squared(mean)
    noise = sum(bar[i] * squared(gradients[i]) for i in range(len(ids))) - signal
    return signal / noise if len(ids) > 2 else math.nan
