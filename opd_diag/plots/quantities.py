"""Title, unit and bounds of whatever a summary may hold: the metrics of the catalogue and facts on responses."""

from __future__ import annotations

import math
from dataclasses import dataclass

from opd_diag.errors import InputError
from opd_diag.tables.catalogue import BY_NAME, CATALOGUE, Metric


@dataclass(frozen=True)
class Quantity:
    """What a picture or a page must know about one row of a summary."""

    name: str
    """Column and JSON name."""
    title: str
    """As pages write it."""
    symbol: str
    """In matplotlib mathtext; empty when there is none."""
    unit: str
    """``ratio``, ``probability``, ``nats`` or ``tokens``."""
    low: float
    """Least possible value; -inf when there is none."""
    high: float
    """Greatest possible value; inf when there is none."""
    meaning: str
    """What it measures, one sentence."""
    caution: str
    """How it misleads, one sentence."""
    undefined: str
    """Why it may be undefined at every state, a clause."""
    formula: str = ""
    """How it is computed; empty where `meaning` says it all."""
    reference: str = ""
    """Where it comes from."""

    @property
    def axis_label(self) -> str:
        """Symbol and unit, for an axis."""
        return f"{self.symbol}  ({self.unit})" if self.symbol else f"({self.unit})"


_SAMPLED = "exists only on states that the checkpoint sampled itself at temperature 1 and top-p 1"
_THINNED = (
    "(1/m) Σ [1 - C(N - c, m) / C(N, m)] over the distinct {}, c how often each occurs among all N; m is half of the "
    "smallest set's N"
)
_DISTINCT = "Distinct n-grams: arXiv 1510.03055; at equal numbers: Hurlbert (1971)"

_OF_RESPONSES = (
    Quantity(
        name="accuracy",
        title="Accuracy",
        symbol="",
        unit="ratio",
        low=0.0,
        high=1.0,
        meaning="Share of the rollouts that give the reference answer.",
        caution="Known only where prompts have answers, and no better than the rule that compares them.",
        undefined="no prompt has a reference answer",
    ),
    Quantity(
        name="truncation_rate",
        title="Truncation rate",
        symbol="",
        unit="ratio",
        low=0.0,
        high=1.0,
        meaning="Share of the rollouts that were cut at the length limit.",
        caution="Depends on the limit: a student that has learnt to stop later looks like one that cannot stop.",
        undefined="no stop reason is known",
    ),
    Quantity(
        name="response_length",
        title="Response length",
        symbol="",
        unit="tokens",
        low=0.0,
        high=math.inf,
        meaning="Mean number of tokens of a response.",
        caution="Cut at the length limit, so its mean is a lower bound where the truncation rate is not 0.",
        undefined="there is no rollout",
    ),
    Quantity(
        name="distinct_bigram_ratio",
        title="Distinct bigrams",
        symbol="",
        unit="ratio",
        low=0.0,
        high=1.0,
        meaning="Share of distinct ones among equally many token pairs of all responses: 1 if no pair occurs twice.",
        caution="Random tokens are as varied as can be, and a healthy student that learns a fixed format loses variety "
        "too; compares only within one run, as all sets are thinned to half of the smallest.",
        undefined="the responses are too short",
        formula=_THINNED.format("pairs"),
        reference=_DISTINCT,
    ),
    Quantity(
        name="distinct_trigram_ratio",
        title="Distinct trigrams",
        symbol="",
        unit="ratio",
        low=0.0,
        high=1.0,
        meaning="Share of distinct ones among equally many token triples of all responses: 1 if no triple occurs "
        "twice.",
        caution="As for bigrams; near 1 unless whole phrases recur, so a student that writes random digits has a high "
        "value.",
        undefined="the responses are too short",
        formula=_THINNED.format("triples"),
        reference=_DISTINCT,
    ),
    Quantity(
        name="unigram_entropy",
        title="Unigram entropy",
        symbol="",
        unit="nats",
        low=0.0,
        high=math.inf,
        meaning="Entropy of the tokens of all responses pooled, about the log of how many different ones are in use.",
        caution="Falls when the student uses few tokens only, digits for example, whatever their order; a teacher that "
        "writes tersely lowers it too, so hold it against the teacher's responses; a little low in few tokens.",
        undefined="the responses are too short",
        formula="-Σ (c/N) log(c/N) + (K - 1)/(2N) over the K distinct tokens, c how often each occurs among all N",
        reference="Miller (1955), for the second term",
    ),
    Quantity(
        name="teacher_state_coverage",
        title="Teacher state coverage",
        symbol="",
        unit="ratio",
        low=0.0,
        high=1.0,
        meaning="Share of the teacher's states that have one of the student's nearby, in the teacher's final hidden "
        "space: .97 for independent states of one distribution, nearer to 1 where both write the same, lower where "
        "states come in clumps.",
        caution="Near means as near as the teacher's own fifth neighbour of another prompt, so it compares within one "
        "run and teacher; responses of other lengths or another format lower it without harm to the answers.",
        undefined="the teacher's states were not looked at, or there are too few prompts",
        formula="share of the teacher's states i with a student's state of another prompt within r_i, the distance "
        "from i to the fifth nearest of the teacher's states of other prompts",
        reference="arXiv 2002.09797, section 3.2",
    ),
)


def _undefined(metric: Metric) -> str:
    if metric.on_policy_only:
        return _SAMPLED
    nearly_equal = isinstance(metric.aligned, float) and math.isnan(metric.aligned)
    return "the models agree, or nearly, at every state" if nearly_equal else "no state defines it"


QUANTITIES: dict[str, Quantity] = {
    m.name: Quantity(
        name=m.name,
        title=m.title,
        symbol=m.symbol,
        unit=m.unit,
        low=m.low,
        high=m.high,
        meaning=m.meaning,
        caution=m.caution,
        undefined=_undefined(m),
        formula=m.formula,
        reference=m.reference,
    )
    for m in CATALOGUE
} | {q.name: q for q in _OF_RESPONSES}

RESPONSE_QUANTITIES = tuple(q.name for q in _OF_RESPONSES)


def quantity(name: str) -> Quantity:
    """Look up what is known about the quantity `name`.

    Raises
    ------
    InputError
        No metric of the catalogue and no fact on responses has that name.

    Examples
    --------
    >>> quantity("reverse_kl").unit
    'nats'
    """
    if name not in QUANTITIES:
        raise InputError(f"No metric is called '{name}'. Known: {', '.join([*BY_NAME, *RESPONSE_QUANTITIES])}.")
    return QUANTITIES[name]
