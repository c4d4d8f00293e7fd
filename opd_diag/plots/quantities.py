"""Title, unit and bounds of whatever a summary may hold: the metrics of the catalogue and facts on responses."""

from __future__ import annotations

import math

from opd_diag.errors import InputError
from opd_diag.plots.of_responses import OF_FITS, OF_RESPONSES, SAMPLED
from opd_diag.plots.quantity import Quantity
from opd_diag.tables.catalogue import CATALOGUE, Metric


def _undefined(metric: Metric) -> str:
    if metric.on_policy_only:
        return SAMPLED
    nearly_equal = isinstance(metric.aligned, float) and math.isnan(metric.aligned)
    return "the models agree, or nearly, at every state" if nearly_equal else "no state defines it"


QUANTITIES: dict[str, Quantity] = {
    m.name: Quantity(
        name=m.name,
        title=m.title,
        symbol=m.symbol,
        unit=m.unit,
        meaning=m.meaning,
        caution=m.caution,
        undefined=_undefined(m),
        formula=m.formula,
        reference=m.reference,
    )
    for m in CATALOGUE
} | {q.name: q for q in (*OF_RESPONSES, *OF_FITS)}

RESPONSE_QUANTITIES = tuple(q.name for q in OF_RESPONSES)
FIT_QUANTITIES = tuple(q.name for q in OF_FITS)


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
        raise InputError(f"No metric is called '{name}'. Known: {', '.join(QUANTITIES)}.")
    return QUANTITIES[name]
