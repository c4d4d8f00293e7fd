"""Grading: numbers are compared as numbers, everything else word for word."""

import pytest

from opd_diag.records.answer import is_correct


@pytest.mark.parametrize(
    ("response", "answer", "graded"),
    [
        ("so 7 * 4 = 28", "28", True),
        ("so 28 = 7 * 4", "28", False),
        ("answer: 28 pears and 3 plums", "28", True),
        ("The answer is 3. No, the answer is 28.", "28", True),
        ("#### 1,234", "1234", True),
        ("\\boxed{28.0}", "28", True),
        ("\\boxed{ -3 }", "-3", True),
        ("answer 280", "28", False),
        ("answer none", "28", False),
        ("", "28", False),
        ("The answer is  Paris.", "paris", True),
        ("Paris", "Paris", True),
        ("Paris, I think", "Paris", False),
        ("28", None, None),
    ],
)
def test_grades(response, answer, graded):
    assert is_correct(response, answer) is graded
