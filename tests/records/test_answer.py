"""Grading: numbers are compared as numbers, everything else word for word."""

import pytest

from opd_diag.records.answer import is_correct


@pytest.mark.parametrize(
    ("response", "answer", "graded"),
    [
        ("so 7 * 4 = 28", "28", True),
        ("so 28 = 7 * 4", "28", False),
        ("28", "28", True),
        ("280", "28", False),
        ("2 8", "28", False),
        ("", "28", False),
        ("answer", "28", False),
        ("answer none", "28", False),
        ("answer 280", "28", False),
        ("answer: 28 pears and 3 plums", "28", True),
        ("answer: 3 plums and 28 pears", "28", False),
        ("Answer = 28", "28", True),
        ("**Answer:** 28", "28", True),
        ("28 is the answer.", "28", True),
        ("the answer is 3, so 28", "28", False),
    ],
)
def test_which_number_counts(response, answer, graded):
    assert is_correct(response, answer) is graded


@pytest.mark.parametrize(
    ("response", "graded"),
    [
        ("The answer is 3. No, the answer is 28.", True),
        ("The answer is 28. No, the answer is 3.", False),
        ("The answer is 28. I hope this answer helps!", True),
        ("answer 3\n#### 28", True),
        ("#### 28\nanswer 3", False),
        ("\\boxed{28}", True),
        ("\\boxed {28}$.", True),
        ("The answer is $\\boxed{28}$ after 2 steps.", True),
        ("The answer is \\boxed{3}, not 28", False),
        ("\\boxed{\\text{28 pears}}", True),
        ("\\boxed{28", True),
        ("answers 28 and 3", False),
    ],
)
def test_the_last_marker_wins(response, graded):
    assert is_correct(response, "28") is graded


@pytest.mark.parametrize(
    ("response", "answer", "graded"),
    [
        ("#### 1,234", "1234", True),
        ("The answer is $1,234.", "1234", True),
        ("The answer is \\$1,234.50", "1234.5", True),
        ("1234", "1,234", True),
        ("#### 1234", "$1,234", True),
        ("#### 1,234,567", "1234567", True),
        ("#### 12,34", "1234", False),
        ("#### 3,4", "34", False),
        ("x is 3, 4", "4", True),
        ("answer: 3.0", "3", True),
        ("answer 3", "3.0", True),
        ("answer 3.", "3", True),
        ("answer 3.05", "3.5", False),
        ("answer .5", "0.5", True),
        ("answer 0.50", ".5", True),
        ("answer 50%", "50", True),
        ("answer 50", "50%", True),
        ("answer 007", "7", True),
        ("9007199254740993", "9007199254740992", False),
        ("1" * 5000, "28", False),
        ("1" * 5000, "1" * 5000, True),
        ("answer 1/2", "0.5", True),
        ("answer 0.5", "1/2", True),
        ("answer 1/2", "1", False),
        ("answer 1/0", "1", True),
    ],
)
def test_how_numbers_are_written(response, answer, graded):
    assert is_correct(response, answer) is graded


@pytest.mark.parametrize(
    ("response", "answer", "graded"),
    [
        ("#### -5", "-5", True),
        ("####-5", "-5", True),
        ("#### 5", "-5", False),
        ("#### -5", "5", False),
        ("answer −5", "-5", True),
        ("answer -$5", "-5", True),
        ("\\boxed{ -3 }", "-3", True),
        ("x=-3", "-3", True),
        ("answer +5", "5", True),
        ("answer 5", "+5", True),
        ("so 10-12", "12", True),
        ("so 10-12", "-12", False),
        ("so (4)-12", "12", True),
        ("so 10 - 12", "12", True),
    ],
)
def test_signs_and_subtractions(response, answer, graded):
    assert is_correct(response, answer) is graded


@pytest.mark.parametrize(
    ("response", "answer", "graded"),
    [
        ("The answer is  Paris.", "paris", True),
        ("The answer is Paris.", "London", False),
        ("Paris", "Paris", True),
        ("Paris, I think", "Paris", False),
        ("\nNew\n York ", "new york", True),
        ('The answer is "Paris".', "Paris", True),
        ("**Answer:** Paris", "Paris", True),
        ("\\boxed{Paris} is the capital", "Paris", True),
        ("\\boxed{\\text{Paris}}", "Paris", True),
        ("$\\boxed{\\frac{1}{2}}$", "\\frac{1}{2}", True),
        ("The answer is U.S.A.", "U.S.A.", True),
        ("answer 1,2,3", "1, 2, 3", False),
        ("answer 1, 2, 3", "1, 2, 3", True),
        ("answer 123", "1,2,3", False),
        ("answer ?", "?", True),
        ("", "Paris", False),
        ("The answer is", "Paris", False),
    ],
)
def test_words(response, answer, graded):
    assert is_correct(response, answer) is graded


@pytest.mark.parametrize("response", ["28", "", "answer 28"])
def test_without_a_reference_nothing_is_graded(response):
    assert is_correct(response, None) is None
