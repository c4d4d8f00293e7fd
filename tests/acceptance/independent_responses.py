"""Part of the independent computation: how responses end, vary, repeat themselves, and what they earn."""

import functools
import math
import re
import zlib
from collections import Counter

import numpy as np
from independent_statistics import LEAST, Mean, Pooled

DIVERSITY = {"distinct_bigram_ratio": 2, "distinct_trigram_ratio": 3, "unigram_entropy": 1}
UNDEFINED = math.nan
subsets = functools.cache(math.comb)  # each prompt that is left out asks for much the same large numbers
ENDS = {"stop": "at_stops", "answer": "after_answers", "truncated": "at_truncation"}


def states_of(rollout):
    generated = rollout.get("generated")
    everything = range(len(rollout["response_ids"]))
    return [i for i in everything if generated is None or generated[i]]


def outcomes(rollouts):
    """What is known of each rollout that has states: how it ended, and whether it repeats itself."""
    rollouts = [r for r in rollouts if states_of(r)]
    repeated = [repetition(r) for r in rollouts]
    columns = {
        "accuracy": [UNDEFINED if r["is_correct"] is None else float(r["is_correct"]) for r in rollouts],
        "truncation_rate": [
            UNDEFINED if r["stop_reason"] == "unknown" else float(r["stop_reason"] == "length") for r in rollouts
        ],
        "response_length": [len(states_of(r)) for r in rollouts],
        **{name: [of[name] for of in repeated] for name in ("compression_ratio", "cycle_ratio", "repetition_rate")},
    }
    prompts, sizes = [r["prompt_index"] for r in rollouts], [len(states_of(r)) for r in rollouts]
    return {name: Mean(values, prompts, range(len(rollouts)), sizes=sizes) for name, values in columns.items()}


def repetition(rollout):
    """How far the text compresses, the share of the tokens in an endless block, and whether either is too much."""
    ended, places = rollout["stop_reason"] == "stop", states_of(rollout)
    ids = [rollout["response_ids"][i] for i in places if not (ended and i == len(rollout["response_ids"]) - 1)]
    cycle = UNDEFINED if len(ids) < 20 and not (ended and ids) else tail_cycle(ids) / len(ids)
    text = rollout["response_text"][-10_000:].encode("utf-8", "surrogatepass")
    whole = len(places) == len(rollout["response_ids"])
    compression = len(text) / len(zlib.compress(text)) if whole and len(text) >= 256 else UNDEFINED
    unknown = math.isnan(cycle) and math.isnan(compression)
    repeats = UNDEFINED if unknown else float(cycle >= 0.5 or compression > 10)
    return {"compression_ratio": compression, "cycle_ratio": cycle, "repetition_rate": repeats}


def tail_cycle(ids):
    """Tokens of the longest end, of 20 or more, that is one block three times over or more; every period is tried."""
    for start in range(len(ids) - 19):
        tail = ids[start:]
        if any(tail[period:] == tail[:-period] for period in range(1, len(tail) // 3 + 1)):
            return len(tail)
    return 0


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
    every = subsets(total, size)
    missed = {c: subsets(total - c, size) / every for c in set(counter.values())}
    return sum(1 - missed[c] for c in counter.values()) / size


def unigram_entropy(counter, most):
    """Plug-in entropy of pooled tokens with the correction of Miller and Madow."""
    total = sum(counter.values())
    entropy = -sum(c / total * math.log(c / total) for c in counter.values())
    return min(entropy + (len(counter) - 1) / (2 * total), most)


def scale_of(described):
    """Sizes at which the variety of sets of rollouts is compared, by n, and the log of the number of ids in use."""
    totals = {n: [sum(sum(c.values()) for c in ngrams(r, n)[0].values()) for r in described] for n in (1, 2, 3)}
    sizes = {n: min(t for t in totals[n] if t >= 20) // 2 for n in totals}
    return sizes, math.log(1 + max(i for rollouts in described for r in rollouts for i in r["response_ids"]))


def diversity(rollouts, sizes, most):
    """How varied the responses are."""
    n_states, found = sum(len(states_of(r)) for r in rollouts), {}
    for metric, n in DIVERSITY.items():
        counts, having = ngrams(rollouts, n)

        def statistic(prompts, metric=metric, n=n, counts=counts):
            pooled = Counter()
            for prompt in prompts:
                pooled.update(counts[prompt])
            return unigram_entropy(pooled, most) if metric == "unigram_entropy" else distinct_ratio(pooled, sizes[n])

        total = sum(sum(of.values()) for of in counts.values())
        about = {"n_states": total, "n_rollouts": having, "n_undefined": n_states - total}
        found[metric] = Pooled(statistic, sorted(counts), about)
    return found


def rewards(log_ratios, prompts, names, rollouts):
    """How the sampled advantage is spread over the checkpoint's own tokens, and between right and wrong responses."""
    gains, prompts, names = -np.asarray(log_ratios), np.asarray(prompts), np.asarray(names)
    return {"top_advantage_share": top_share(gains, prompts, names), "reward_auroc": auroc(gains, names, rollouts)}


def top_share(gains, prompts, names):
    known = ~np.isnan(gains)

    def statistic(chosen):
        sizes = np.sort(np.abs(gains[known & np.isin(prompts, chosen)]))[::-1]
        if len(sizes) < 100 or not sizes.any():
            return math.nan
        counted = np.clip(len(sizes) / 100 - np.arange(len(sizes)), 0, 1)  # the last of the top 1 % in part
        return float((counted * sizes).sum() / sizes.sum())

    n, having = int(known.sum()), len(set(names[known].tolist()))
    counts = {"n_states": n, "n_rollouts": having, "n_undefined": len(gains) - n}
    return Pooled(statistic, sorted(set(prompts[known].tolist())), counts)


def auroc(gains, names, rollouts):
    graded = []  # (prompt, mean gain, whether it is right, its states) of each response of which all is known
    for number in sorted(set(names.tolist())):
        gain, rollout = gains[names == number].mean(), rollouts[number]
        if not math.isnan(gain) and rollout["is_correct"] is not None:
            graded.append((rollout["prompt_index"], gain, rollout["is_correct"], len(states_of(rollout))))
    prompts, gain, is_right, sizes = (np.array(of) for of in zip(*graded, strict=True))

    def statistic(chosen):
        inside = np.isin(prompts, chosen)
        right, wrong = gain[inside & is_right], gain[inside & ~is_right]
        if not len(right) or not len(wrong):
            return math.nan
        return float(((right[:, None] > wrong) + (right[:, None] == wrong) / 2).mean())

    def told(chosen):
        inside = np.isin(prompts, chosen)
        both = [len(set(prompts[inside & of].tolist())) >= LEAST for of in (is_right, ~is_right)]
        return all(both) and 0 < statistic(chosen) < 1

    undefined = len(set(names.tolist())) - len(graded)
    counts = {"n_states": int(sizes.sum()), "n_rollouts": len(graded), "n_undefined": undefined}
    return Pooled(statistic, sorted(set(prompts.tolist())), counts, told)


def answer_end(text):
    """Characters up to where the number that follows the last "answer" is complete; None where it may be cut short."""
    if "####" in text or "boxed" in text:
        raise SystemExit(f"the models of the bundled runs are not known to write {text!r}")
    for said in text.split("answer")[:0:-1]:
        number = re.search(r"\d+(,\d{3})*(\.\d+)?(/[1-9]\d*)?", said)
        if number:
            end = text.rindex("answer" + said) + len("answer") + number.end()
            return end if end < len(text) else None
    return None


def stop_places(rollouts, tokenizer, stop_ids):
    """(number of the rollout, position or None, kind) of the places where stopping matters."""
    places = []
    for number, rollout in enumerate(rollouts):
        ids, text = rollout["response_ids"], rollout["response_text"]
        if rollout["stop_reason"] == "stop":
            places.append((number, len(ids) - 1 if ids and ids[-1] in stop_ids else None, "stop"))
        begins = [len(tokenizer.decode(ids[:i], clean_up_tokenization_spaces=False)) for i in range(len(ids) + 1)]
        if begins[-1] != len(text):
            raise SystemExit(f"{text!r} is not what its ids say")
        end = answer_end(text)
        after = None if end is None else next(i for i, begin in enumerate(begins) if begin >= end)
        own = after is not None and after - 1 in states_of(rollout)
        places.append((number, after if own else None, "answer"))
        if rollout["stop_reason"] == "length":
            places.append((number, len(ids), "truncated"))
    return places


def stops(rollouts, places, probabilities):
    """Probability that each model stops at such places; `probabilities` by rollout, (2, T + 1)."""
    found = {}
    for kind, end in ENDS.items():
        of_kind = [(number, position) for number, position, of in places if of == kind]
        prompts = [rollouts[number]["prompt_index"] for number, _ in of_kind]
        for model, name in enumerate(("student", "teacher")):
            values = [
                probabilities[number][model][position] if is_scored(rollouts[number], position) else UNDEFINED
                for number, position in of_kind
            ]
            numbers = [number for number, _ in of_kind]
            found[f"{name}_stop_probability_{end}"] = Mean(values, prompts, numbers)
    return found


def is_scored(rollout, position):
    """Whether a position is a state, or the terminal one of a rollout that was cut."""
    cut = rollout["stop_reason"] == "length"
    return position in states_of(rollout) or (cut and position == len(rollout["response_ids"]))
