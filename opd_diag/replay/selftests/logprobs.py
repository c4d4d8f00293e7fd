"""Log-probabilities as sampled or recorded against replayed ones, and the temperature that fits them best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from opd_diag.records.rollout import Rollout
from opd_diag.records.selftest import Outcome, SelfTest
from opd_diag.replay.logprobs import FLOAT32_LIMIT, SIXTEEN_BIT_LIMIT
from opd_diag.replay.selftests.expected import Surprise, judged_surprise, together
from opd_diag.replay.selftests.kept import Floats, Kept
from opd_diag.replay.selftests.limits import EXPLAINED, FITS_BETTER, LEAST_TOKENS, LIKELIER

NAME = "logprobs"
STEP = 0.02
TEMPERATURES = np.round(np.arange(0.3, 2.001, STEP), 2)
"""Those that are tried."""

BEFORE_TEMPERATURE = "recorded before temperature."
"""How the evidence ends where log-probabilities are found to be those before temperature: as some engines give them."""

LITTLE_REST = 1e-2
"""Probability that is not kept, below which log-probabilities at another temperature are known well enough."""


def logprobs(
    model: str, kept: Kept, rollouts: Sequence[Rollout], *, scored_temperature: float, dtype: str
) -> SelfTest | None:
    """Hold log-probabilities that came with a model's own responses against the replayed ones.

    Parameters
    ----------
    model
        How messages call the writer.
    kept
        Its side of the scores.
    rollouts
        Its own responses.
    scored_temperature
        Of the scored distribution.
    dtype
        Precision of its body in this report.

    Returns
    -------
    SelfTest, or None
        Its value is the mean difference in nats, at the temperature that the record states. None where no
        log-probability came with a response.
    """
    recorded = recorded_at(kept, rollouts)
    stated = np.array([r.provenance.temperature or 1.0 for r in rollouts])[kept.rows] / scored_temperature
    known = np.isfinite(recorded) & np.isfinite(stated)
    known &= (stated == 1.0) | (kept.rest < LITTLE_REST)
    if not np.isfinite(recorded).any():
        return None
    if raw := _before_temperature(model, kept, rollouts, recorded, scored_temperature):
        return raw
    if known.sum() < LEAST_TOKENS:
        return _of_few(model, kept, recorded, stated * scored_temperature, scored_temperature)
    difference = float(np.abs(recorded - _replayed(kept, stated))[known].mean())
    sampled = {r.provenance.origin for r in rollouts} == {"sampled"} and dtype == "float32"
    limit = FLOAT32_LIMIT if sampled else SIXTEEN_BIT_LIMIT
    fitted = None if difference <= FLOAT32_LIMIT else fitted_temperature(kept, recorded, scored_temperature)
    told = float(np.median(stated[known])) * scored_temperature
    passes = difference <= limit and not _is_temperature(fitted, difference, told)
    fits = "" if fitted is None else f" At temperature {fitted[0]:.2g} they fit: {fitted[1]:.1g} nats."
    return SelfTest(
        name=NAME,
        model=model,
        status="pass" if passes else "fail",
        value=difference,
        threshold=limit,
        evidence=f"Log-probabilities that came with {int(known.sum())} tokens of {model} differ from replayed ones by "
        f"{difference:.2g} nats on average.{fits}",
        advice=""
        if passes
        else _WRONG_TEMPERATURE
        if fitted
        else "Other weights, another prompt template or other numerics wrote these responses than are scored here: "
        "find out which, or leave --rollouts out; where vLLM sampled them, leave --sampler out.",
    )


def _of_few(model: str, kept: Kept, recorded: Floats, stated: Floats, scored: float) -> SelfTest:
    """Tell at least whether what is recorded at another temperature is what the scored one gives."""
    other = np.isfinite(recorded) & np.isfinite(stated) & (stated != scored)
    difference = float(np.abs(recorded - kept.sampled)[other].mean()) if other.sum() >= LEAST_TOKENS else math.nan
    if not difference <= FLOAT32_LIMIT:
        return SelfTest(NAME, model, "unknown", math.nan, math.nan, _TOO_FEW, "Score more prompts.")
    said = (
        f"Log-probabilities that came with {int(other.sum())} tokens of {model}, drawn at temperature "
        f"{np.median(stated[other]):.2g} as recorded, are those of temperature {scored:.2g}."
    )
    return SelfTest(NAME, model, "fail", difference, FLOAT32_LIMIT, said, _WRONG_TEMPERATURE)


def _before_temperature(
    model: str, kept: Kept, rollouts: Sequence[Rollout], recorded: Floats, scored: float
) -> SelfTest | None:
    """Judge log-probabilities that fit temperature 1, where another one is stated; None where they do not.

    Engines record them before they divide by the temperature. Or the temperature is stated wrongly: the tokens tell.
    """
    stated = np.array([r.provenance.temperature or 1.0 for r in rollouts])[kept.rows]
    chosen = np.isfinite(recorded) & np.isfinite(stated) & (stated != 1.0)
    chosen &= kept.doubt_at_temperature(1 / scored) < SIXTEEN_BIT_LIMIT if scored != 1.0 else True
    if chosen.sum() < LEAST_TOKENS:
        return None
    raw, as_stated = (_replayed(kept, np.broadcast_to(t / scored, recorded.shape)) for t in (1.0, stated))
    difference, other = (float(np.abs(recorded - values)[chosen].mean()) for values in (raw, as_stated))
    own = bool((stated[chosen] == scored).all())
    if difference > SIXTEEN_BIT_LIMIT or difference >= FITS_BETTER * other or not (own or scored == 1.0):
        return None
    # at the scored temperature, own_tokens asks
    lower = LIKELIER if own else float((as_stated - raw)[chosen].sum())
    upper = lower + (0.0 if own else _doubt(kept, stated / scored, chosen))
    status: Outcome = "pass" if lower >= LIKELIER else "fail" if upper <= -LIKELIER else "unknown"
    said = (
        f"Log-probabilities that came with {int(chosen.sum())} tokens of {model}, drawn at temperature "
        f"{np.median(stated[chosen]):.2g} as stated, are those of temperature 1, to {difference:.1g} nats: "
    )
    said += {
        "pass": BEFORE_TEMPERATURE,
        "fail": "and the tokens are likelier at temperature 1.",
        "unknown": "recorded before temperature, or drawn at 1; the tokens do not tell.",
    }[status]
    return SelfTest(
        NAME, model, status, difference, SIXTEEN_BIT_LIMIT, said, "" if status == "pass" else _WRONG_TEMPERATURE
    )


def _doubt(kept: Kept, relative: Floats, chosen: np.ndarray) -> float:
    """Give by how many nats the chosen tokens together may be likelier at other temperatures than is computed."""
    several = np.unique(relative[chosen])
    return sum(float(kept.doubt_at_temperature(float(t))[chosen & (relative == t)].sum()) for t in several)


_WRONG_TEMPERATURE = (
    "The temperature of sampling is recorded wrongly, or the log-probabilities were taken before it was applied, as "
    "some engines do: correct the rollouts (sampled_logprobs at the sampling temperature, or none), or sample anew."
)


def own_tokens(model: str, surprise: Surprise, likeliest: float) -> SelfTest:
    """Ask whether a model's own tokens surprise it as much as it expects.

    Parameters
    ----------
    model
        How messages call the writer.
    surprise
        Of all its tokens that were drawn at the scored temperature, as the record says.
    likeliest
        Temperature at which the tokens are most probable.
    """
    return judged_surprise(
        NAME,
        f"{model}, own tokens",
        surprise,
        what=f"tokens of the responses of {model}",
        advice=f"They were drawn otherwise than the record says (temperature {likeliest:.2g} fits best), or by other "
        "weights, or from other prompts: find out which before you believe a number.",
    )


def tokens_together(surprises: Sequence[Surprise]) -> SelfTest:
    """Ask the same of all models that wrote responses: what is small in each of them may be plain in all together.

    Parameters
    ----------
    surprises
        Of each writer, of its own tokens.
    """
    return judged_surprise(
        NAME,
        "all writers, own tokens",
        together(surprises),
        what=f"tokens of the responses of all {len(surprises)} writers",
        advice="They were drawn otherwise than the record says: at another temperature, perhaps, or from other "
        "prompts. Find out how before you believe a number.",
    )


def recorded_at(kept: Kept, rollouts: Sequence[Rollout]) -> Floats:
    """(N,) log-probability that came with each sampled token; NaN where none did."""
    values: list[float] = []
    starts = []
    for rollout in rollouts:
        starts.append(len(values))
        values += rollout.sampled_logprobs or (math.nan,) * len(rollout.response_ids)
    return np.array(values, dtype=np.float64)[np.array(starts, dtype=np.int64)[kept.rows] + kept.positions]


def as_table(kept: Kept, values: Floats) -> Floats:
    """(responses, tokens) values, padded with NaN."""
    table = np.full((int(kept.rows.max(initial=-1)) + 1, int(kept.positions.max(initial=-1)) + 1), np.nan)
    table[kept.rows, kept.positions] = values
    return table


def fitted_temperature(kept: Kept, recorded: Floats, scored: float) -> tuple[float, float] | None:
    """Give the temperature at which recorded log-probabilities fit best, and the difference there; None if none fits.

    Parameters
    ----------
    kept, scored
        The writer's side of the scores, and the temperature of the scored distribution.
    recorded
        (N,) from :func:`recorded_at`.
    """
    chosen = np.isfinite(recorded) & (kept.rest < LITTLE_REST)
    if chosen.sum() < LEAST_TOKENS:
        return None
    differences = {t: np.abs(recorded - kept.at_temperature(t / scored))[chosen].mean() for t in TEMPERATURES}
    best = min(differences, key=lambda t: differences[t])
    here = np.abs(recorded - kept.at_temperature(1.0))[chosen].mean()
    fits = differences[best] <= SIXTEEN_BIT_LIMIT and differences[best] < FITS_BETTER * here
    return (float(best), float(differences[best])) if fits else None


def likeliest_temperature(kept: Kept, chosen: np.ndarray, scored: float) -> float:
    """Give the temperature at which the tokens at the chosen states are most probable."""
    means = {t: kept.at_temperature(t / scored)[chosen].mean() for t in TEMPERATURES}
    return float(max(means, key=lambda t: means[t]))


def _is_temperature(fitted: tuple[float, float] | None, difference: float, told: float) -> bool:
    """Tell whether a difference that could be rounding is all but gone at another temperature: then it is none."""
    return fitted is not None and abs(fitted[0] - told) > STEP and fitted[1] < EXPLAINED * difference


_TOO_FEW = "Too few log-probabilities came with the responses that can be told at the temperature recorded."


def _replayed(kept: Kept, relative: Floats) -> Floats:
    values = kept.sampled.copy()
    for one in np.unique(relative[np.isfinite(relative) & (relative != 1.0)]):
        rows = relative == one
        values[rows] = kept.at_temperature(float(one))[rows]
    return values
