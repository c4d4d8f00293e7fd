"""A verdict becomes JSON without a NaN in it."""

import json
import math

import pytest

from opd_diag.records.verdict import Verdict, finite_or_none


def test_as_record_writes_what_is_undefined_as_null():
    verdict = Verdict("n", "Q?", "unknown", math.nan, -math.inf, 0.5, 0.25, "no data", "sample more", "ours")
    record = verdict.as_record()
    assert record == {
        "name": "n",
        "question": "Q?",
        "status": "unknown",
        "value": None,
        "ci_low": None,
        "ci_high": 0.5,
        "threshold": 0.25,
        "evidence": "no data",
        "advice": "sample more",
        "reference": "ours",
        "within_floor": False,
        "caution": "",
    }
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, 0.0), (-1.5, -1.5), (math.nan, None), (math.inf, None), (-math.inf, None)]
)
def test_finite_or_none(value, expected):
    assert finite_or_none(value) == expected
