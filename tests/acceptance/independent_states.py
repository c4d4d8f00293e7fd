"""Part of the independent computation: every metric of the catalogue, state by state, from dense logits."""

import numpy as np

TIES = "near_ties"
CURVE = ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "student_topk_mass", "teacher_topk_mass")


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def ranking(logits):
    """Ids from most to least probable; of equal logits the lower id first."""
    ids = np.broadcast_to(np.arange(logits.shape[1]), logits.shape)
    return np.lexsort((ids, -logits), axis=1)


def xlogy_sum(weights, terms):
    """Sum of weights times terms, with 0 · anything = 0."""
    return np.where(weights > 0, weights * np.where(weights > 0, terms, 0.0), 0.0).sum(axis=1)


def kept(order, k, vocabulary):
    """(T, V) mask of the k best ids."""
    mask = np.zeros((len(order), vocabulary), dtype=bool)
    np.put_along_axis(mask, order[:, :k], True, axis=1)
    return mask


def advantage(shared, log_p, log_q):
    """Equation 7, state by state: the mean over the shared tokens of p̄ (log q̄ - log p̄), renormalised on them."""
    values = np.full(len(shared), np.nan)
    for row in np.flatnonzero(shared.any(axis=1)):
        at = shared[row]
        p, q = np.exp(log_p[row, at]), np.exp(log_q[row, at])
        p, q = p / p.sum(), q / q.sum()
        positive = p > 0
        values[row] = (p[positive] * np.log(q[positive] / p[positive])).sum() / at.sum()
    return values


RESOLUTION = 1e-2  # nats: shares of the gradient of models that differ by less are undefined
WEIGHT = "gradient_squared_norm"
SHARED = "shared_tokens"


def gradient(log_p, log_q, p, mine, theirs):
    """Shares of the gradient of reverse KL at the student's logits, in both top-k, in one alone and in neither."""
    kl = xlogy_sum(p, log_p - log_q)
    with np.errstate(invalid="ignore"):
        pushes = np.where(p > 0, p * (log_p - log_q - kl[:, None]), 0.0) ** 2
    length = pushes.sum(axis=1)
    best = p.argmax(axis=1)
    rest = np.where(np.arange(p.shape[1]) == best[:, None], 0.0, p).sum(axis=1)
    least = RESOLUTION * np.sqrt(1 - rest) * rest
    total = np.where(length >= least**2, length, np.nan)
    kinds = {"shared": mine & theirs, "student_only": mine & ~theirs, "teacher_only": theirs & ~mine}
    kinds["other"] = ~mine & ~theirs
    columns = {f"{kind}_gradient_ratio": (pushes * of).sum(axis=1) / total for kind, of in kinds.items()}
    return columns | {WEIGHT: length}


def renormalised(log_p, mask):
    """Probabilities on the masked tokens alone, 0 elsewhere; a row of nothing gives NaN."""
    weights = np.where(mask, np.exp(log_p), 0.0)
    with np.errstate(invalid="ignore"):
        return weights / weights.sum(axis=1, keepdims=True)


def divergence(first, second):
    with np.errstate(divide="ignore", invalid="ignore"):
        return xlogy_sum(first, np.log(first) - np.log(second))


def symmetric(first, second):
    middle = (first + second) / 2
    return (divergence(first, middle) + divergence(second, middle)) / 2


def overlaps(log_p, log_q, mine, theirs, orders, depth=32, persistence=0.9):
    """Companions of the overlap ratio and of the masses."""
    p, q, shared, union = np.exp(log_p), np.exp(log_q), mine & theirs, mine | theirs
    own, others = (p * mine).sum(axis=1), (q * theirs).sum(axis=1)
    depth = min(depth, p.shape[1])
    common = [
        (kept(orders[0], d, p.shape[1]) & kept(orders[1], d, p.shape[1])).sum(axis=1) / d for d in range(1, depth + 1)
    ]
    seen = sum((1 - persistence) * persistence**i * agreement for i, agreement in enumerate(common))
    return {
        "rank_biased_overlap": seen + common[-1] * persistence**depth,
        "student_topk_mass": own,
        "teacher_topk_mass": others,
        "student_overlap_mass_ratio": (p * shared).sum(axis=1) / own,
        "teacher_overlap_mass_ratio": (q * shared).sum(axis=1) / others,
        "teachable_mass": (q * mine).sum(axis=1),
        "jensen_shannon": symmetric(p, q),
        "common_mass": np.minimum(p, q).sum(axis=1),
        "bhattacharyya_coefficient": np.sqrt(renormalised(log_p, union) * renormalised(log_q, union)).sum(axis=1),
    }


def with_tail(log_p, mask):
    """Probabilities on the masked tokens and, last, of all others, at least 1e-7."""
    inside = np.where(mask, np.exp(log_p), 0.0)
    return np.c_[inside, np.maximum(-np.expm1(-1e-7), 1 - inside.sum(axis=1))]


def losses(log_p, log_q, mine, theirs):
    """What trainers compute on k tokens, clamps included."""
    p, q = np.exp(log_p), np.exp(log_q)
    raw = xlogy_sum(p * mine, log_p - log_q)
    low_p, low_q = np.maximum(log_p, -10.0), np.maximum(log_q, -10.0)
    verl = (np.exp(low_q) * (low_q - low_p) * theirs).sum(axis=1)
    low = ((np.minimum(log_p, log_q) < -10.0) & theirs).any(axis=1)
    bar_p, bar_q = renormalised(log_p, mine), renormalised(log_q, mine)
    masses = np.maximum((p * mine).sum(axis=1), (q * mine).sum(axis=1))
    return {
        "topk_reverse_kl": divergence(bar_p, bar_q),
        "raw_topk_reverse_kl": raw,
        "negative_topk_kl_rate": (raw < 0).astype(float),
        "thunlp_topk_reverse_kl": raw / (p * mine).sum(axis=1),
        "verl_topk_forward_kl": np.clip(verl, 0.0, 10.0),
        "verl_negative_rate": (verl < 0).astype(float),
        "verl_clamped_rate": (low | (verl < 0) | (verl > 10)).astype(float),
        "trl_topk_reverse_kl": divergence(with_tail(log_p, mine), with_tail(log_q, mine)),
        "trl_topk_forward_kl": divergence(with_tail(log_q, theirs), with_tail(log_p, theirs)),
        "trl_topk_jensen_shannon": symmetric(bar_p, bar_q),
        "trl_clamped_rate": (masses > np.exp(-1e-7)).astype(float),
    }


def other_advantages(log_p, log_q, mine, theirs):
    """Other readings of the overlap-token advantage; NaN where nothing is shared."""
    shared = mine & theirs
    count = np.where(shared.any(axis=1), shared.sum(axis=1), np.nan)
    low_p, low_q = np.maximum(log_p, -10.0), np.maximum(log_q, -10.0)
    bar_p, bar_q = renormalised(log_p, shared), renormalised(log_q, shared)
    with np.errstate(invalid="ignore"):
        logs = np.log(np.maximum(bar_q, 1e-12)) - np.log(np.maximum(bar_p, 1e-12))
        return {
            "thunlp_overlap_token_advantage": (renormalised(log_p, mine) * (log_q - log_p) * shared).sum(axis=1)
            / count,
            "verl_overlap_token_advantage": (np.exp(low_q) * (low_p - low_q) * shared).sum(axis=1) / count,
            "probe_overlap_token_advantage": (bar_p * logs).sum(axis=1) + 0 * count,
            SHARED: shared.sum(axis=1).astype(float),
        }


def signal_to_noise(log_p, log_q, candidates):
    """Signal and noise of one draw's gradient on the candidates, with the best baseline, in the Fisher metric."""
    p, ratio = renormalised(log_p, candidates), log_p - log_q
    rest = np.where(candidates, 1 - p, 0.0)
    off = ratio - ((rest * ratio).sum(axis=1) / rest.sum(axis=1))[:, None]
    both = (rest * off**2).sum(axis=1)
    signal = (p * (off - (p * off).sum(axis=1)[:, None]) ** 2).sum(axis=1)
    clear = (both >= 1e-6 * rest.sum(axis=1)) & (both - signal > 1e-9 * both)
    return np.where(clear, signal / np.where(clear, both - signal, 1.0), np.nan)


def weights_of(columns, name):
    """What each state counts in a mean of column `name`: 1, the length of its gradient squared, or shared tokens."""
    if name == "thunlp_overlap_token_advantage":
        return columns[SHARED]
    return columns[WEIGHT] if name.endswith("gradient_ratio") else np.ones(len(columns[name]))


def measure(student_logits, teacher_logits, sampled, own, k, grid):
    """All metrics of the states of one rollout, as columns by name."""
    log_p, log_q = log_softmax(student_logits), log_softmax(teacher_logits)
    p, q = np.exp(log_p), np.exp(log_q)
    student_order, teacher_order = ranking(student_logits), ranking(teacher_logits)
    vocabulary, rows = p.shape[1], np.arange(len(p))
    student_entropy, teacher_entropy = -xlogy_sum(p, log_p), -xlogy_sum(q, log_q)
    mine, theirs = kept(student_order, k, vocabulary), kept(teacher_order, k, vocabulary)
    shared = mine & theirs
    columns = {
        "overlap_ratio": shared.sum(axis=1) / k,
        "student_overlap_mass": (p * shared).sum(axis=1),
        "teacher_overlap_mass": (q * shared).sum(axis=1),
        "overlap_token_advantage": advantage(shared, log_p, log_q),
        "entropy_gap": np.abs(teacher_entropy - student_entropy),
        "entropy_difference": student_entropy - teacher_entropy,
        "student_entropy": student_entropy,
        "teacher_entropy": teacher_entropy,
        "reverse_kl": xlogy_sum(p, log_p - log_q),
        "forward_kl": xlogy_sum(q, log_q - log_p),
        "sampled_reverse_kl": np.where(own, log_p[rows, sampled] - log_q[rows, sampled], np.nan),
        "top1_agreement": (student_order[:, 0] == teacher_order[:, 0]).astype(float),
        **gradient(log_p, log_q, p, mine, theirs),
        **overlaps(log_p, log_q, mine, theirs, (student_order, teacher_order)),
        **losses(log_p, log_q, mine, theirs),
        **other_advantages(log_p, log_q, mine, theirs),
        "signal_to_noise": signal_to_noise(log_p, log_q, mine | theirs | (np.arange(vocabulary) == sampled[:, None])),
    }
    agreed = np.abs(log_q[rows, sampled] - log_p[rows, sampled]) < 1e-4
    columns["near_zero_advantage_rate"] = np.where(own, agreed.astype(float), np.nan)
    known = kept(teacher_order, 32, vocabulary)
    of_known = np.where(known, p * (log_p - log_q), 0.0).sum(axis=1)
    of_tail = np.where(known[rows, sampled], 0.0, log_p[rows, sampled] - log_q[rows, sampled])
    columns["tail_sampled_reverse_kl"] = np.where(own, of_known + of_tail, np.nan)
    curve = {}
    for size in grid:
        of_student, of_teacher = kept(student_order, size, vocabulary), kept(teacher_order, size, vocabulary)
        both = of_student & of_teacher
        curve[size] = {
            "overlap_ratio": both.sum(axis=1) / size,
            "student_overlap_mass": (p * both).sum(axis=1),
            "teacher_overlap_mass": (q * both).sum(axis=1),
            "student_topk_mass": (p * of_student).sum(axis=1),
            "teacher_topk_mass": (q * of_teacher).sum(axis=1),
            TIES: near_tie(log_p, student_order, size) | near_tie(log_q, teacher_order, size),
        }
    return columns, curve


def near_tie(logprobs, order, k):
    """Whether the last of the k best is as good as the next but for float32 rounding: then either may be kept."""
    best = np.take_along_axis(logprobs, order[:, : k + 1], axis=1)
    return best[:, -2] - best[:, -1] < 2e-6 if best.shape[1] > k else np.zeros(len(best), dtype=bool)
