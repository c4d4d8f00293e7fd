"""The numbers of a report, computed a second time without opd-diag: plain transformers, then numpy in float64.

``python -I independent.py OUT_DIR RESULT.json`` reads the rollouts and the provenance that a report left in OUT_DIR,
runs ``model(ids).logits`` one sequence at a time, and writes what ``summary``, ``differences``, ``split`` and
``concentration`` ought to say, bands apart. Which states have a second pass is read from OUT_DIR too, as they were
drawn at random. Nothing here, nor in the modules beside it that it imports, may come from the package under test:
importing it is made to fail before anything else happens.
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
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from independent_fits import fits, subsample  # noqa: E402
from independent_responses import diversity, outcomes, rewards, scale_of, states_of, stop_places, stops  # noqa: E402
from independent_states import CURVE, SHARED, TIES, WEIGHT, measure, weights_of  # noqa: E402
from independent_statistics import Mean, contrast  # noqa: E402

torch.set_num_threads(1)  # the bundled models are tiny: two threads on busy cores only wait for each other

MOST_STATES = 1024  # looked at for coverage, of either side
NEIGHBOURS = 5


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


def ends_of(model, tokenizer):
    """Ids that end a response, as the model and its tokenizer say."""
    ids = model.generation_config.eos_token_id
    ids = model.config.eos_token_id if ids is None else ids
    return {*(ids if isinstance(ids, list) else [ids]), tokenizer.eos_token_id} - {None}


def replayed(model, prompt, response, vocabulary):
    """(T + 1, V) logits and (T + 1, d) what the head is given, in float64: row i is before response token i."""
    given = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda head, inputs: given.append(inputs[0]))
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0]
    hook.remove()
    rows = slice(len(prompt) - 1, len(prompt) + len(response))
    return logits[rows, :vocabulary].numpy().astype(np.float64), given[0][0, rows].numpy().astype(np.float64)


def is_own(rollout, entry, states, settings):
    """Whether the sampled token was drawn from the very distribution that is scored."""
    source = rollout["provenance"]
    plain = source["temperature"] == 1.0 and source["top_p"] == 1.0 and settings["student_temperature"] == 1.0
    mine = states == "on-policy" or (states == "start" and entry["step"] == 0)
    return plain and source["weights"] == entry["label"] and mine


class Scored:
    """What both models say of the rollouts of one (checkpoint, state set)."""

    def __init__(self, student, teacher, rollouts, entry, states, settings, chosen, stop_ids):
        vocabulary = min(m.get_output_embeddings().weight.shape[0] for m in (student, teacher))
        grid = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k <= vocabulary]
        self.rollouts, self.prompts, self.names, self.stop_probabilities = rollouts, [], [], []
        pieces, curves, of_place = [], [], {}
        for number, rollout in enumerate(rollouts):
            positions, response = states_of(rollout), rollout["response_ids"]
            of_student, hidden = replayed(student, rollout["prompt_ids"], response, vocabulary)
            of_teacher, _ = replayed(teacher, rollout["teacher_prompt_ids"], response, vocabulary)
            logits = of_student / settings["student_temperature"], of_teacher / settings["teacher_temperature"]
            self.stop_probabilities.append([stopping(of, stop_ids) for of in logits])
            of_place |= {(number, i): (logits[0][i], logits[1][i], hidden[i]) for i in positions}
            if not positions:
                continue
            sampled, own = np.array(response)[positions], is_own(rollout, entry, states, settings)
            of_states = [of[positions] for of in logits]
            columns, curve = measure(*of_states, sampled, own, min(settings["k"], vocabulary), grid)
            pieces.append(columns)
            curves.append(curve)
            self.prompts += [rollout["prompt_index"]] * len(positions)
            self.names += [number] * len(positions)
        self.columns = {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}
        self.curve = {k: {name: np.concatenate([c[k][name] for c in curves]) for name in (*CURVE, TIES)} for k in grid}
        self.chosen, self.dense = chosen, [np.stack(of) for of in zip(*map(of_place.get, chosen), strict=True)]
        self.head = student.get_output_embeddings().weight[:vocabulary].detach().numpy().astype(np.float64)
        self.head /= settings["student_temperature"]

    def metrics(self):
        """Means over states, and what follows from a subsample of them."""
        found = {
            name: Mean(values, self.prompts, self.names, weights_of(self.columns, name))
            for name, values in self.columns.items()
            if name not in (WEIGHT, SHARED)
        }
        return found | fits(self.dense[:2], self.dense[2], self.head, self.chosen, self.rollouts)

    def concentration(self, k):
        """Levels of the curve at one k, and at how many states rounding alone decides which token is kept."""
        levels = {name: Mean(self.curve[k][name], self.prompts, self.names).level(name) for name in CURVE}
        return {"k": k, TIES: int(self.curve[k][TIES].sum())} | levels


def stopping(logits, stop_ids):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights[:, sorted(stop_ids)].sum(axis=1) / weights.sum(axis=1)


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
    return Mean(covered, prompts, [row for row, _ in sides[0]])


PARTS = {"on_policy_change": (-1, 0, 1), "policy_change": (-1, 1, 0), "state_change": (0, -1, 1)}


def split(found, metrics, first, label):
    """M_c(S_c) - M_0(S_0), and what of it is M_c(S_0) - M_0(S_0) and M_c(S_c) - M_c(S_0)."""
    places = [(first, "start"), (label, "start"), (label, "on-policy")]
    return [
        {"label": label, "metric": metric, "part": part} | contrast([found[at][metric] for at in places], weights)
        for metric in metrics
        for part, weights in PARTS.items()
    ]


def differences(found, first, label, of_responses):
    """How each quantity differs from the first checkpoint's; what the teacher wrote does not change."""
    return [
        {"label": label, "states": states, "metric": metric} | found[first, states][metric].difference(later, metric)
        for states in ("on-policy", "start", "teacher")
        for metric, later in found[label, states].items()
        if states != "teacher" or metric not in of_responses
    ]


def main(out_dir, result_path):
    report = json.loads((out_dir / "report.json").read_text(encoding="utf-8"))
    provenance = report["provenance"]
    settings = provenance["settings"]
    tokenizer = AutoTokenizer.from_pretrained(provenance["tokenizer"]["source"])
    models = {role: [m for m in provenance["models"] if m["role"] == role] for role in ("student", "teacher")}
    teacher, labels = load(models["teacher"][0]), [m["label"] for m in models["student"]]
    teacher_ends = ends_of(teacher, AutoTokenizer.from_pretrained(models["teacher"][0]["path"]))
    written = {m["label"]: read_rollouts(out_dir / "rollouts" / f"{slug(m)}.jsonl") for m in models["student"]}
    written |= {name: read_rollouts(out_dir / "rollouts" / f"{name}.jsonl") for name in ("start", "teacher")}
    scale = scale_of([written[label] for label in (*labels, "teacher")])
    of_responses = {
        label: outcomes(written[label]) | diversity(written[label], *scale) for label in (*labels, "teacher")
    }
    summary, concentration, found, metrics = [], [], {}, ()
    for entry in models["student"]:
        student = load(entry)
        stop_ids = ends_of(student, tokenizer) | teacher_ends
        for states in settings["states"]:
            writer = entry["label"] if states == "on-policy" else states
            chosen = subsample(out_dir / "fits" / f"{slug(entry)}.{states}.safetensors", written[writer])
            scored = Scored(student, teacher, written[writer], entry, states, settings, chosen, stop_ids)
            metrics = [name for name in scored.columns if name not in (WEIGHT, SHARED)]
            of_set = scored.metrics()
            if states != "start":
                places = stop_places(written[writer], tokenizer, stop_ids)
                of_set |= of_responses[writer] | stops(written[writer], places, scored.stop_probabilities)
            if states == "on-policy":
                log_ratios = scored.columns["sampled_reverse_kl"]
                of_set |= rewards(log_ratios, scored.prompts, scored.names, written[writer])
                of_set["teacher_state_coverage"] = coverage(teacher, written["teacher"], written[writer])
            identity = {"step": entry["step"], "label": entry["label"], "states": states}
            summary += [identity | {"metric": metric} | of.level(metric) for metric, of in of_set.items()]
            concentration += [identity | scored.concentration(k) for k in scored.curve]
            found[entry["label"], states] = of_set
    if any(module.split(".")[0] == "opd_diag" for module in sys.modules):
        raise SystemExit("opd_diag was imported after all")
    result = {
        "summary": summary,
        "concentration": concentration,
        "split": [row for label in labels[1:] for row in split(found, metrics, labels[0], label)],
        "differences": [
            row for label in labels[1:] for row in differences(found, labels[0], label, of_responses["teacher"])
        ],
    }
    result_path.write_text(json.dumps(result, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
