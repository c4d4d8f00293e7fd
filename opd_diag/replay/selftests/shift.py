"""Off by one: sampled tokens, and recorded log-probabilities, moved against the states that they belong to.

Tokens are moved against the distributions of the scores, whose kept ids tell a log-probability for any token that is
not below that of the 32nd. So every offset is asked by one measure, through the path that scores take, and without
another pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from opd_diag.records.rollout import Rollout
from opd_diag.records.selftest import Outcome, SelfTest
from opd_diag.replay.selftests.expected import Surprise, judged_surprise
from opd_diag.replay.selftests.kept import Floats, Kept, tokens_near
from opd_diag.replay.selftests.limits import FITS_BETTER, LEAST_TOKENS, LEVEL, OFFSETS, SHIFTED, SHIFTED_SHARE
from opd_diag.replay.selftests.vocabulary import expected_of_place
from opd_diag.stats import Estimate, clustered_mean

NAME = "shift"
ADVICE = (
    "Token ids, prompts or labels are shifted by a token: check how ids were cut and joined, and how the model was "
    "trained, before you believe a number."
)


def shift(model: str, kept: Kept, rollouts: Sequence[Rollout]) -> SelfTest:
    """Ask whether a model gives the sampled tokens more than the tokens one or two places away.

    Parameters
    ----------
    model
        How messages call it.
    kept
        Its side of the scores.
    rollouts
        That were scored.

    Returns
    -------
    SelfTest
        Its value is the smallest mean advantage in nats of offset 0 over another one, with an interval clustered by
        prompt. It fails where that is clearly below 0 and the model knows the tokens there like its own; it is
        ``unknown`` where 0 is no better, as for a response that repeats one token, or one that it cannot read at all.
    """
    tokens = {offset: tokens_near(kept, rollouts, offset) for offset in OFFSETS}
    values = {offset: kept.clipped(of_offset) for offset, of_offset in tokens.items()}
    gains = {o: clustered_mean(values[0] - values[o], kept.prompts, level=LEVEL) for o in OFFSETS if o}
    asked = {o: gain for o, gain in gains.items() if gain.n >= LEAST_TOKENS and not math.isnan(gain.ci_low)}
    if not asked:
        return _unknown(model, f"{len(kept.rows)} sampled tokens are too few, or of too few prompts.")
    expected = float(expected_of_place(kept, tokens[0]).mean())
    known = {o: float(np.nanmean(values[o] - kept.clipped_mean(tokens[0]))) for o in asked}
    better = [o for o, gain in asked.items() if gain.ci_high < -SHIFTED and known[o] >= SHIFTED_SHARE * expected]
    status: Outcome = "fail" if better else "pass" if all(g.ci_low > 0 for g in asked.values()) else "unknown"
    worst = min(better or asked, key=lambda o: asked[o].value)
    return _of_tokens(model, status, worst, asked[worst])


def _of_tokens(model: str, status: Outcome, offset: int, gain: Estimate) -> SelfTest:
    moved = f"{abs(offset)} place{'s' if abs(offset) > 1 else ''} {'before' if offset < 0 else 'after'}"
    more = f"{model} gives the sampled tokens {gain.value:.2g} nats more than the tokens {moved}"
    said = {
        "pass": f"{more}, the best of the others",
        "fail": f"{model} gives the tokens {moved} {-gain.value:.2g} nats more than those that were sampled",
        "unknown": f"{more}, which tells nothing",
    }[status]
    advice = {"pass": "", "fail": ADVICE, "unknown": "Score more prompts, or longer responses."}[status]
    interval = f"({gain.ci_low:.2g} to {gain.ci_high:.2g}, {gain.n} tokens, {gain.n_clusters} prompts)"
    return SelfTest(NAME, model, status, gain.value, 0.0, f"{said} {interval}.", advice)


def shift_of_records(model: str, recorded: Floats, replayed: Floats) -> SelfTest | None:
    """Ask whether recorded log-probabilities belong to the tokens beside them, or to those one or two places away.

    Parameters
    ----------
    model
        How messages call the writer.
    recorded, replayed
        (responses, tokens) log-probabilities, padded with NaN.

    Returns
    -------
    SelfTest, or None
        None where nothing was recorded.
    """
    differences = {o: _moved_difference(recorded, replayed, o) for o in OFFSETS}
    known = {o: d for o, (d, n) in differences.items() if n >= LEAST_TOKENS}
    if not np.isfinite(recorded).any():
        return None
    name = f"{model}, recorded log-probabilities"
    if 0 not in known:
        return _unknown(name, "Too few log-probabilities were recorded.")
    best = min(known, key=lambda o: known[o])
    fails = best != 0 and known[best] < FITS_BETTER * known[0]
    here = f"Log-probabilities recorded with the responses of {model} differ from replayed ones by {known[0]:.2g} nats"
    said = (
        f"{here}, from those {best:+d} tokens away by {known[best]:.2g}."
        if fails
        else f"{here} at offset 0, "
        + (f"by {min((d for o, d in known.items() if o), default=math.nan):.2g} at the best other one.")
    )
    advice = "The recorded log-probabilities are shifted against the ids: record them beside the token they belong to."
    return SelfTest(
        NAME, name, "fail" if fails else "pass", float(best if fails else 0), 0.0, said, advice if fails else ""
    )


def shift_at_first_token(model: str, surprise: Surprise) -> SelfTest:
    """Ask whether first tokens surprise their own writer: then the end of the prompt is not what it was.

    Parameters
    ----------
    model
        How messages call the writer.
    surprise
        Of the first tokens of its responses.
    """
    return judged_surprise(
        NAME,
        f"{model}, first tokens",
        surprise,
        what=f"first tokens of the responses of {model}",
        advice="Prompt and response do not join as they did when the response was written: compare the last ids of "
        "the prompts, and the first ones of the responses, with the trainer's.",
    )


def _unknown(model: str, why: str) -> SelfTest:
    return SelfTest(NAME, model, "unknown", math.nan, 0.0, why, "Score more prompts, or longer responses.")


def _moved_difference(recorded: Floats, replayed: Floats, offset: int) -> tuple[float, int]:
    """Give the mean difference between what is recorded and what is replayed `offset` tokens later, and of how many."""
    width = recorded.shape[1]
    then = recorded[:, max(0, -offset) : width - max(0, offset)]
    now = replayed[:, max(0, offset) : width - max(0, -offset)]
    difference = np.abs(then - now)
    known = np.isfinite(difference)
    return (float(difference[known].mean()) if known.any() else math.nan), int(known.sum())
