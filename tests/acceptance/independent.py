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
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.stats import t as student_t  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

torch.set_num_threads(1)  # the bundled models are tiny: two threads on busy cores only wait for each other

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


def measure(student_logits, teacher_logits, sampled, own, k, grid):
    """All metrics of the states of one rollout, as columns by name."""
    log_p, log_q = log_softmax(student_logits), log_softmax(teacher_logits)
    p, q = np.exp(log_p), np.exp(log_q)
    student_order, teacher_order = ranking(student_logits), ranking(teacher_logits)
    vocabulary, rows = p.shape[1], np.arange(len(p))
    student_entropy, teacher_entropy = -xlogy_sum(p, log_p), -xlogy_sum(q, log_q)
    shared = kept(student_order, k, vocabulary) & kept(teacher_order, k, vocabulary)
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
    }
    curve = {}
    for size in grid:
        mine, theirs = kept(student_order, size, vocabulary), kept(teacher_order, size, vocabulary)
        both = mine & theirs
        curve[size] = {
            "overlap_ratio": both.sum(axis=1) / size,
            "student_overlap_mass": (p * both).sum(axis=1),
            "teacher_overlap_mass": (q * both).sum(axis=1),
            "student_topk_mass": (p * mine).sum(axis=1),
            "teacher_topk_mass": (q * theirs).sum(axis=1),
        }
    return columns, curve


def interval(values, prompts):
    """Mean over defined values, and its 95 % interval: cluster-robust (CR1) variance by prompt, t with G - 1."""
    values, prompts = np.asarray(values, dtype=float), np.asarray(prompts)
    defined = ~np.isnan(values)
    x, g = values[defined], prompts[defined]
    labels = sorted(set(g.tolist()))
    result = {"value": None, "ci_low": None, "ci_high": None, "n_prompts": len(labels)}
    result |= {"n": len(x), "n_undefined": int((~defined).sum())}
    if len(x) == 0:
        return result
    mean = x.sum() / len(x)
    result["value"] = float(mean)
    if len(labels) > 1:
        total = 0.0
        for label in labels:
            inside = x[g == label]
            total += (inside.sum() - mean * len(inside)) ** 2
        error = np.sqrt(len(labels) / (len(labels) - 1) * total) / len(x)
        half = float(student_t.ppf(0.975, len(labels) - 1)) * error
        result |= {"ci_low": float(mean - half), "ci_high": float(mean + half)}
    return result


def average(columns, prompts, rollouts):
    """Means with intervals and counts of every column."""
    rollouts = np.asarray(rollouts)
    averaged = {}
    for name, values in columns.items():
        estimate = interval(values, prompts)
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
    return plain and source["weights"] == entry["label"] and (states == "on-policy" or entry["step"] == 0)


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
    curve = {k: {name: np.concatenate([c[k][name] for c in curves]) for name in CURVE} for k in grid}
    return columns, curve, prompts, names


def main(out_dir, result_path):
    report = json.loads((out_dir / "report.json").read_text(encoding="utf-8"))
    provenance = report["provenance"]
    settings = provenance["settings"]
    teacher = load(next(m for m in provenance["models"] if m["role"] == "teacher"))
    summary, concentration = [], []
    for entry in (m for m in provenance["models"] if m["role"] == "student"):
        student = load(entry)
        for states in settings["states"]:
            name = "start" if states == "start" else slug(entry)
            rollouts = read_rollouts(out_dir / "rollouts" / f"{name}.jsonl")
            columns, curve, prompts, names = score_set(student, teacher, rollouts, entry, states, settings)
            identity = {"step": entry["step"], "label": entry["label"], "states": states}
            averages = average(columns, prompts, names)
            if states == "on-policy":
                averages |= outcomes(rollouts)
            summary += [identity | {"metric": metric} | values for metric, values in averages.items()]
            for k, at_k in curve.items():
                averages = average(at_k, prompts, names)
                concentration.append(identity | {"k": k} | averages)
    if any(module.split(".")[0] == "opd_diag" for module in sys.modules):
        raise SystemExit("opd_diag was imported after all")
    result_path.write_text(json.dumps({"summary": summary, "concentration": concentration}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
