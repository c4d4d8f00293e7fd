"""Every number of a report, computed a second time without opd-diag: plain transformers, then numpy in float64.

``python -I independent.py OUT_DIR RESULT.json`` reads the rollouts and the provenance that a report left in OUT_DIR,
runs ``model(ids).logits`` one sequence at a time, and writes what ``summary`` and ``concentration`` ought to say.
Nothing here may come from the package under test: importing it is made to fail before anything else happens.
"""

import sys


class Refusal:
    """Makes every import of the package under test fail."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opd_diag":
            raise ImportError(f"the independent computation must not import {name}")
        return None


sys.meta_path.insert(0, Refusal())
try:
    import opd_diag  # noqa: F401
except ImportError:
    pass
else:
    raise SystemExit("opd_diag can be imported: this would be no independent computation")

import json  # noqa: E402
import math  # noqa: E402
from collections import Counter  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.stats import t as student_t  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

torch.set_num_threads(1)  # the bundled models are tiny: two threads on busy cores only wait for each other

DIVERSITY = {"distinct_bigram_ratio": 2, "distinct_trigram_ratio": 3, "unigram_entropy": 1}
MOST_STATES = 1024  # looked at for coverage, of either side
NEIGHBOURS = 5
TIES = "near_ties"
CURVE = ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "student_topk_mass", "teacher_topk_mass")


def load(entry):
    base = entry.get("base_model")
    model = AutoModelForCausalLM.from_pretrained(base or entry["path"], dtype=torch.float32)
    if base:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, entry["path"])
    return model.eval()


def slug(entry):
    if entry["step"] is not None:
        return f"step-{entry['step']:06d}"
    return "".join(c if c.isalnum() else "-" for c in entry["label"])


def read_rollouts(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def state_logits(model, prompt, response, vocabulary):
    """(T, V) logits in float64: row i is what the model says before response token i."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0]
    rows = logits[len(prompt) - 1 : len(prompt) - 1 + len(response), :vocabulary]
    return rows.numpy().astype(np.float64)


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


LEAST = 5  # prompts; fewer have no interval


def half_width(moved, shares):
    """Half of a 95 % interval from each prompt's part of the error and its share of what is counted; None below LEAST.

    CR2 where prompts differ by effects u of variance share²: residuals (I - share 1ᵀ) u, each square divided by its own
    variance in units of share²; t with the degrees of freedom of Bell and McCaffrey.
    """
    moved, shares = np.asarray(moved, dtype=float), np.asarray(shares, dtype=float)
    if (shares > 0).sum() < LEAST:
        return None
    residual = np.eye(len(shares)) - np.outer(shares, np.ones(len(shares)))
    covariance = (residual * shares**2) @ residual.T
    with np.errstate(invalid="ignore"):
        factor = np.where(shares > 0, shares / np.sqrt(np.diag(covariance)), 1.0)
    kernel = factor[:, None] * covariance * factor
    degrees = np.trace(kernel) ** 2 / (kernel**2).sum()
    return float(np.sqrt(((factor * moved) ** 2).sum()) * student_t.ppf(0.975, degrees))


def interval(values, prompts, weights=None):
    """Weighted mean of defined values, and its 95 % interval clustered by prompt."""
    values, prompts = np.asarray(values, dtype=float), np.asarray(prompts)
    defined = ~np.isnan(values)
    x, g = values[defined], prompts[defined]
    w = np.ones(len(x)) if weights is None else np.asarray(weights)[defined]
    labels = sorted(set(g.tolist()))
    result = {"value": None, "ci_low": None, "ci_high": None, "n_prompts": len(labels)}
    result |= {"n": len(x), "n_undefined": int((~defined).sum())}
    if len(x) == 0:
        return result
    mean = (w * x).sum() / w.sum()
    result["value"] = float(mean)
    moved = [(w * (x - mean))[g == label].sum() / w.sum() for label in labels]
    half = half_width(moved, [w[g == label].sum() / w.sum() for label in labels])
    return result if half is None else result | {"ci_low": float(mean - half), "ci_high": float(mean + half)}


def average(columns, prompts, rollouts):
    """Means with intervals and counts of every column."""
    rollouts = np.asarray(rollouts)
    averaged = {}
    for name, values in columns.items():
        if name in (WEIGHT, SHARED):
            continue
        estimate = interval(values, prompts, weights_of(columns, name))
        estimate["n_states"] = estimate.pop("n")
        estimate["n_rollouts"] = len(set(rollouts[~np.isnan(values)].tolist()))
        averaged[name] = estimate
    return averaged


def outcomes(rollouts):
    """Means over rollouts, with the states behind them counted."""
    prompts = [r["prompt_index"] for r in rollouts]
    lengths = [len(states_of(r)) for r in rollouts]
    undefined = float("nan")
    columns = {
        "accuracy": [undefined if r["is_correct"] is None else float(r["is_correct"]) for r in rollouts],
        "truncation_rate": [
            undefined if r["stop_reason"] == "unknown" else float(r["stop_reason"] == "length") for r in rollouts
        ],
        "response_length": [float(n) for n in lengths],
    }
    averaged = {}
    for name, values in columns.items():
        estimate = interval(values, prompts)
        estimate["n_rollouts"] = estimate.pop("n")
        estimate["n_states"] = sum(n for n, v in zip(lengths, values, strict=True) if not np.isnan(v))
        averaged[name] = estimate
    return averaged


def states_of(rollout):
    generated = rollout.get("generated")
    everything = range(len(rollout["response_ids"]))
    return [i for i in everything if generated is None or generated[i]]


def is_own(rollout, entry, states, settings):
    """Whether the sampled token was drawn from the very distribution that is scored."""
    source = rollout["provenance"]
    plain = source["temperature"] == 1.0 and source["top_p"] == 1.0 and settings["student_temperature"] == 1.0
    mine = states == "on-policy" or (states == "start" and entry["step"] == 0)
    return plain and source["weights"] == entry["label"] and mine


def score_set(student, teacher, rollouts, entry, states, settings):
    """Columns over all states of one (checkpoint, state set), the curve's columns, and whose states they are."""
    vocabulary = min(m.get_output_embeddings().weight.shape[0] for m in (student, teacher))
    grid = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k <= vocabulary]
    pieces, curves, prompts, names = [], [], [], []
    for number, rollout in enumerate(rollouts):
        positions, response = states_of(rollout), rollout["response_ids"]
        if not positions:
            continue
        logits = [
            state_logits(model, prompt, response, vocabulary)[positions] / temperature
            for model, prompt, temperature in (
                (student, rollout["prompt_ids"], settings["student_temperature"]),
                (teacher, rollout["teacher_prompt_ids"], settings["teacher_temperature"]),
            )
        ]
        sampled = np.array(response)[positions]
        own = is_own(rollout, entry, states, settings)
        columns, curve = measure(*logits, sampled, own, min(settings["k"], vocabulary), grid)
        pieces.append(columns)
        curves.append(curve)
        prompts += [rollout["prompt_index"]] * len(positions)
        names += [number] * len(positions)
    columns = {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}
    curve = {k: {name: np.concatenate([c[k][name] for c in curves]) for name in (*CURVE, TIES)} for k in grid}
    return columns, curve, prompts, names


def ngrams(rollouts, n):
    """By prompt, how often each n-gram of consecutive states occurs; and how many rollouts have one."""
    counts, having = {}, 0
    for rollout in rollouts:
        positions, ids = states_of(rollout), rollout["response_ids"]
        found = [tuple(ids[i - n + 1 : i + 1]) for i in positions if all(i - j in positions for j in range(n))]
        having += bool(found)
        if found:
            counts.setdefault(rollout["prompt_index"], Counter()).update(found)
    return counts, having


def distinct_ratio(counter, size):
    """Expected number of distinct n-grams among `size` drawn without replacement, divided by `size`."""
    total = sum(counter.values())
    if total < size:
        return math.nan
    every = math.comb(total, size)
    missed = {c: math.comb(total - c, size) / every for c in set(counter.values())}
    return sum(1 - missed[c] for c in counter.values()) / size


def unigram_entropy(counter, most):
    """Plug-in entropy of pooled tokens with the correction of Miller and Madow."""
    total = sum(counter.values())
    entropy = -sum(c / total * math.log(c / total) for c in counter.values())
    return min(entropy + (len(counter) - 1) / (2 * total), most)


def diversity(rollouts, sizes, most):
    """Rows on how varied the responses are: value, and the interval of the delete-one-prompt jackknife."""
    n_states, rows = sum(len(states_of(r)) for r in rollouts), {}
    for metric, n in DIVERSITY.items():
        counts, having = ngrams(rollouts, n)
        pooled = sum(counts.values(), Counter())

        def statistic(counter, metric=metric, n=n):
            return unigram_entropy(counter, most) if metric == "unigram_entropy" else distinct_ratio(counter, sizes[n])

        value, without = statistic(pooled), [statistic(pooled - counts[prompt]) for prompt in sorted(counts)]
        groups = len(without)
        error = math.sqrt((groups - 1) / groups * sum((w - sum(without) / groups) ** 2 for w in without))
        half = float(student_t.ppf(0.975, groups - 1)) * error if groups >= LEAST else math.nan
        total = sum(pooled.values())
        rows[metric] = {
            "value": value, "ci_low": value - half, "ci_high": value + half, "n_states": total, "n_rollouts": having,
            "n_prompts": groups, "n_undefined": n_states - total,
        }  # fmt: skip
    return rows


def first_states(rollouts):
    """States of first responses, then of second ones, until there are enough."""
    places = []
    for index in sorted({r["rollout_index"] for r in rollouts}):
        if len(places) < MOST_STATES:
            chosen = [(row, r) for row, r in enumerate(rollouts) if r["rollout_index"] == index]
            places += [(row, i) for row, r in chosen for i in states_of(r)]
    return places


def hidden_vectors(teacher, rollouts, places):
    """The teacher's last hidden state before each place, one sequence at a time."""
    vectors = {}
    for row in sorted({row for row, _ in places}):
        prompt, response = rollouts[row]["teacher_prompt_ids"], rollouts[row]["response_ids"]
        with torch.no_grad():
            hidden = teacher.base_model(torch.tensor([prompt + response])).last_hidden_state[0].double().numpy()
        vectors |= {(row, i): hidden[len(prompt) + i - 1] for r, i in places if r == row}
    return np.stack([vectors[place] for place in places])


def coverage(teacher, theirs, own):
    """Whether each of the teacher's states has one of the student's in its neighbourhood, other prompts only."""
    sides = [first_states(theirs), first_states(own)]
    n = min(MOST_STATES, *map(len, sides))
    sides = [[side[round(i)] for i in np.linspace(0, len(side) - 1, n)] for side in sides]
    a, b = hidden_vectors(teacher, theirs, sides[0]), hidden_vectors(teacher, own, sides[1])
    prompts = [theirs[row]["prompt_index"] for row, _ in sides[0]]
    others = np.array([own[row]["prompt_index"] for row, _ in sides[1]])
    covered = []
    for vector, prompt in zip(a, prompts, strict=True):
        among = np.linalg.norm(a[np.array(prompts) != prompt] - vector, axis=1)
        nearest = np.linalg.norm(b[others != prompt] - vector, axis=1).min()
        covered.append(float(nearest <= np.sort(among)[NEIGHBOURS - 1]))
    return covered, prompts, [row for row, _ in sides[0]]


def contrast(samples, weights):
    """Weighted sum of the samples' means over the prompts defined in all of them, with its clustered interval."""
    sides = [(np.asarray(v, dtype=float), np.asarray(p), np.asarray(w)) for v, p, w in samples]
    shared = sorted(set.intersection(*(set(p[~np.isnan(v)].tolist()) for v, p, _ in sides)))
    result = {"value": None, "ci_low": None, "ci_high": None, "n_prompts": len(shared)}
    if not shared:
        return result
    value, moved, counted = 0.0, np.zeros(len(shared)), np.zeros(len(shared))
    for (values, prompts, counts), weight in zip(sides, weights, strict=True):
        kept_rows = np.isin(prompts, shared) & ~np.isnan(values)
        x, g, w = values[kept_rows], prompts[kept_rows], counts[kept_rows]
        mean = (w * x).sum() / w.sum()
        value += weight * mean
        moved += [weight * (w * (x - mean))[g == prompt].sum() / w.sum() for prompt in shared]
        counted += [abs(weight) * w[g == prompt].sum() / w.sum() for prompt in shared]
    half = half_width(moved, counted / sum(map(abs, weights)))
    ends = {} if half is None else {"ci_low": value - half, "ci_high": value + half}
    return result | {"value": value} | ends


PARTS = {"on_policy_change": (-1, 0, 1), "policy_change": (-1, 1, 0), "state_change": (0, -1, 1)}


def split(columns, first, entry):
    """M_c(S_c) - M_0(S_0), and what of it is M_c(S_0) - M_0(S_0) and M_c(S_c) - M_c(S_0)."""
    places = [(first["label"], "start"), (entry["label"], "start"), (entry["label"], "on-policy")]
    rows = []
    for metric in columns[places[0]][0]:
        if metric in (WEIGHT, SHARED):
            continue
        samples = [
            (columns[place][0][metric], columns[place][1], weights_of(columns[place][0], metric)) for place in places
        ]
        for part, weights in PARTS.items():
            rows.append({"label": entry["label"], "metric": metric, "part": part} | contrast(samples, weights))
    return rows


def main(out_dir, result_path):
    report = json.loads((out_dir / "report.json").read_text(encoding="utf-8"))
    provenance = report["provenance"]
    settings = provenance["settings"]
    teacher = load(next(m for m in provenance["models"] if m["role"] == "teacher"))
    students = [m for m in provenance["models"] if m["role"] == "student"]
    responses = {m["label"]: read_rollouts(out_dir / "rollouts" / f"{slug(m)}.jsonl") for m in students}
    responses |= {name: read_rollouts(out_dir / "rollouts" / f"{name}.jsonl") for name in ("start", "teacher")}
    described = [responses[m["label"]] for m in students] + [responses["teacher"]]
    totals = {n: [sum(sum(c.values()) for c in ngrams(r, n)[0].values()) for r in described] for n in (1, 2, 3)}
    sizes = {n: min(t for t in totals[n] if t >= 20) // 2 for n in totals}
    most = math.log(1 + max(i for rollouts in described for r in rollouts for i in r["response_ids"]))
    summary, concentration, splits, all_columns = [], [], [], {}
    for entry in students:
        student = load(entry)
        for states in settings["states"]:
            rollouts = responses[entry["label"] if states == "on-policy" else states]
            columns, curve, prompts, names = score_set(student, teacher, rollouts, entry, states, settings)
            all_columns[entry["label"], states] = columns, prompts
            identity = {"step": entry["step"], "label": entry["label"], "states": states}
            averages = average(columns, prompts, names)
            if states != "start":
                averages |= outcomes(rollouts) | diversity(rollouts, sizes, most)
            if states == "on-policy":
                covered, of_prompts, of_rollouts = coverage(teacher, responses["teacher"], rollouts)
                averages |= average({"teacher_state_coverage": np.array(covered)}, of_prompts, of_rollouts)
            summary += [identity | {"metric": metric} | values for metric, values in averages.items()]
            for k, at_k in curve.items():
                ties = int(at_k.pop(TIES).sum())
                averages = average(at_k, prompts, names)
                concentration.append(identity | {"k": k, TIES: ties} | averages)
        if entry is not students[0]:
            splits += split(all_columns, students[0], entry)
    if any(module.split(".")[0] == "opd_diag" for module in sys.modules):
        raise SystemExit("opd_diag was imported after all")
    result = {"summary": summary, "concentration": concentration, "split": splits}
    result_path.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
