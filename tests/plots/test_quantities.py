from __future__ import annotations

import pytest

from opd_diag.errors import InputError
from opd_diag.plots import quantity
from opd_diag.plots.quantities import FIT_QUANTITIES, QUANTITIES, RESPONSE_QUANTITIES
from opd_diag.tables.catalogue import CATALOGUE
from opd_diag.tables.responses import RESPONSE_METRICS


def test_whatever_a_summary_holds_is_known():
    assert {m.name for m in CATALOGUE} <= set(QUANTITIES)
    assert set(RESPONSE_METRICS) <= set(RESPONSE_QUANTITIES)
    assert len(QUANTITIES) == len(CATALOGUE) + len(RESPONSE_QUANTITIES) + len(FIT_QUANTITIES)


@pytest.mark.parametrize("name", sorted(QUANTITIES))
def test_says_what_a_reader_needs(name):
    what = quantity(name)
    assert what.title
    assert what.low < what.high
    assert what.unit in {"ratio", "probability", "nats", "tokens"}
    assert what.unit in what.axis_label
    assert what.meaning.endswith(".")
    assert what.caution.endswith(".")


@pytest.mark.parametrize("name", [*(name for name in RESPONSE_METRICS[3:] if "stop" not in name), "reverse_kl"])
def test_what_a_name_does_not_say_has_a_formula_and_a_source(name):
    assert quantity(name).formula
    assert quantity(name).reference


def test_unknown_name():
    with pytest.raises(InputError, match="No metric is called 'kl'"):
        quantity("kl")
