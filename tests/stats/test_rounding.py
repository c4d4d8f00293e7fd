from __future__ import annotations

import pytest

from opd_diag.stats.rounding import number, with_interval

NAN = float("nan")


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
