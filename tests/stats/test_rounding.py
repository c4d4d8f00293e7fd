from __future__ import annotations

import pandas as pd
import pytest

from opd_diag.stats.rounding import between, known_between, number, with_interval

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("value", "low", "high", "written"),
    [
        (0.7213, 0.6812, 0.7614, "0.72 [0.68, 0.76]"),
        (0.99917, 0.99895, 0.99939, "0.9992 [0.9990, 0.9994]"),
        (-0.2, -0.25, -0.15, "−0.20 [−0.25, −0.15]"),
        (-8.99, -10.04, -7.94, "−9.0 [−10.0, −7.9]"),
        (712.4, 650.1, 774.7, "712 [650, 775]"),
        (0.5, 0.5, 0.5, "0.50"),
        (0.0167, NAN, NAN, "0.017"),
        (NAN, NAN, NAN, "–"),
        (1e-9, -2e-9, 4e-9, "0.0000 [0.0000, 0.0000]"),
        (1234.5, NAN, NAN, "1,234.50"),
    ],
)
def test_rounded_by_the_interval(value, low, high, written):
    assert with_interval(value, low, high) == written


def test_infinity_has_a_sign():
    assert (number(float("inf"), 2), number(float("-inf"), 2)) == ("∞", "−∞")


@pytest.mark.parametrize(
    ("low", "high", "signed", "written"),
    [
        (0.4123, 0.4321, False, "0.412 to 0.432"),
        (1.2, 1.3, False, "1.20 to 1.30"),
        (3.0, 9.0, False, "3.0 to 9.0"),
        (31.4, 99.0, False, "31 to 99"),
        (0.001, 0.004, False, "0.001 to 0.004"),
        (0.00011, 0.00019, False, "0.0001 to 0.0002"),
        (-0.9, -0.7, True, "−0.90 to −0.70"),
        (-0.4, 0.2, True, "−0.40 to +0.20"),
        (0.5, 0.5, False, "0.50 to 0.50"),
        (0.31, INF, False, "at least 0.31"),
        (0.0, INF, False, "at least 0.00"),
        (-0.0123, INF, True, "at least −0.012"),
        (-INF, 0.31, True, "at most +0.31"),
        (-INF, INF, False, "not bounded"),
        (INF, INF, False, "not bounded"),
        (NAN, NAN, False, "– to –"),
    ],
)
def test_bounds_are_written_with_what_tells_them_apart(low, high, signed, written):
    assert between(low, high, signed=signed) == written


@pytest.mark.parametrize(
    ("row", "between_alone"),
    [
        ({"value": NAN, "bound_low": 0.1, "bound_high": INF}, True),
        ({"value": NAN, "bound_low": -INF, "bound_high": INF}, True),
        ({"value": 0.5, "bound_low": NAN, "bound_high": NAN}, False),
        ({"value": NAN, "bound_low": NAN, "bound_high": NAN}, False),
        ({"value": 0.5, "bound_low": 0.1, "bound_high": 0.9}, False),
        ({"value": NAN}, False),
    ],
)
def test_what_is_known_between_bounds_has_them_and_no_value(row, between_alone):
    assert known_between(row) is between_alone
    assert known_between(pd.Series(row)) is between_alone
