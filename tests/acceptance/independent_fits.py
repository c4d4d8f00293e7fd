"""Part of the independent computation: the student at other temperatures, and gradients by automatic differentiation.

Both are of the states of a subsample, in plain float64 matrices of states by vocabulary.
"""

import math
from functools import cache

import numpy as np
import torch
from independent_responses import states_of
from independent_states import log_softmax
from independent_statistics import Pooled
from numpy.polynomial import Chebyshev
from numpy.polynomial.chebyshev import chebpts1
from safetensors.numpy import load_file

DEGREE = 48  # of the polynomial in log τ: exact to 1e-6 of the temperature at the bundled runs
REACH = math.log(4)  # temperatures from 1/4 to 4
FLAT = 1e-6  # nats
RESOLUTION = 1e-2  # nats: gradients of models that differ by less are rounding
MOST_ROLLOUTS, MOST_STATES = 64, 512


def subsample(path, rollouts):
    """(number of the rollout, position) of the states that a report says it took, held against how it says it does."""
    saved = load_file(path)
    number_of = {(r["prompt_index"], r["rollout_index"]): i for i, r in enumerate(rollouts)}
    keys = list(zip(saved["prompt_index"].tolist(), saved["rollout_index"].tolist(), strict=True))
    places = [(number_of[key], position) for key, position in zip(keys, saved["position"].tolist(), strict=True)]
    prompts = {r["prompt_index"] for r in rollouts if states_of(r)}
    numbers = list(dict.fromkeys(number for number, _ in places))
    everything = [(number, position) for number in numbers for position in states_of(rollouts[number])]
    gaps = np.diff([everything.index(place) for place in places])
    every = max(1.0, len(everything) / MOST_STATES)
    one_a_prompt = len({rollouts[number]["prompt_index"] for number in numbers}) == len(numbers)
    if not (
        one_a_prompt
        and len(numbers) == min(MOST_ROLLOUTS, len(prompts))
        and len(places) == min(MOST_STATES, len(everything))
        and gaps.min() >= math.floor(every)
        and gaps.max() <= math.ceil(every)
    ):
        raise SystemExit(f"{path} does not hold every {every:.3g}th state of one response a prompt")
    return places


def fits(logits, hidden, head, places, rollouts):
    """Fitted temperature, the KL that remains there, and gradient coherence.

    `logits` are the (n, V) of student and teacher, as scored; the student's are `hidden` (n, d) times `head` (V, d).
    """
    prompts = np.array([rollouts[number]["prompt_index"] for number, _ in places])
    names = sorted(set(prompts.tolist()))
    about = {"n_states": len(places), "n_rollouts": len({number for number, _ in places}), "n_undefined": 0}
    log_q = log_softmax(logits[1])
    curves = tempered(logits[0], log_q)

    @cache
    def fitted(chosen):
        return lowest(curves[np.isin(prompts, chosen)].mean(axis=0))

    return {
        "fitted_temperature": Pooled(lambda chosen: fitted(tuple(chosen))[0], names, about, positive=True),
        "reverse_kl_after_temperature": Pooled(lambda chosen: fitted(tuple(chosen))[1], names, about),
        "gradient_coherence": Pooled(coherence(hidden, head, logits[0], log_q, prompts), names, about),
    }


def tempered(student, log_q):
    """(n, DEGREE + 1) KL of the student from the teacher at temperatures whose logarithms are Chebyshev points."""
    logits, values = student - student.max(axis=1, keepdims=True), []
    for place in chebpts1(DEGREE + 1):
        scaled = logits / math.exp(REACH * place)
        weights = np.exp(scaled)
        mass = weights.sum(axis=1)
        values.append((weights * (scaled - log_q)).sum(axis=1) / mass - np.log(mass))
    return np.stack(values, axis=1)


def lowest(means):
    """Temperature and mean KL at the lowest point of the curve through (DEGREE + 1,) means; NaN where it is an end."""
    curve = Chebyshev.fit(chebpts1(DEGREE + 1), means, DEGREE, domain=[-1, 1])
    if np.ptp([*means, curve(-1), curve(1)]) <= FLAT:
        return math.nan, math.nan
    roots = curve.deriv().roots()
    inside = [root.real for root in roots if abs(root.imag) < 1e-9 and -1 < root.real < 1]
    best = min([-1.0, 1.0, *inside], key=curve)
    return (math.nan, math.nan) if abs(best) == 1 else (math.exp(REACH * best), max(0.0, float(curve(best))))


def coherence(hidden, head, scored, log_q, prompts):
    """The function of some prompts that gives their gradient coherence.

    The gradient of a prompt's summed KL with respect to the output matrix, (V, d), is left to automatic
    differentiation; what pairs of states of two prompts have in common is the inner product of two of these.
    """
    names = sorted(set(prompts.tolist()))
    gradients, norms, least = [], [], []
    matrix = torch.tensor(head, requires_grad=True)
    for name in names:
        h, q = torch.tensor(hidden[prompts == name]), torch.tensor(log_q[prompts == name])
        logits = h @ matrix.T
        if np.abs(logits.detach().numpy() - scored[prompts == name]).max() > 1e-3:
            raise SystemExit("the output matrix does not give the logits")
        log_p = logits.log_softmax(-1)
        kl = (log_p.exp() * (log_p - q)).sum()
        gradient, pushes = torch.autograd.grad(kl, [matrix, logits])
        p = log_p.detach().exp()
        rest = p.scatter(1, p.argmax(1, keepdim=True), 0.0).sum(1)
        lengths = h.square().sum(1)
        gradients.append(gradient.flatten())
        norms.append(float((pushes.square().sum(1) * lengths).sum()))
        least.append(float(((RESOLUTION * (1 - rest).sqrt() * rest).square() * lengths).sum()))
    products = (torch.stack(gradients) @ torch.stack(gradients).T).numpy()
    sizes, norms, least = np.array([(prompts == name).sum() for name in names]), np.array(norms), np.array(least)

    def statistic(chosen):
        of = np.isin(names, chosen)
        pairs = sizes[of].sum() ** 2 - (sizes[of] ** 2).sum()
        if not pairs or norms[of].sum() <= 0 or norms[of].sum() < least[of].sum():
            return math.nan
        between = products[np.ix_(of, of)].sum() - products.diagonal()[of].sum()
        return between / pairs / (norms[of].sum() / sizes[of].sum())

    return statistic
