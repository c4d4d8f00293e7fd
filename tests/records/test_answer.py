"""Grading: numbers are compared as numbers, everything else word for word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd_diag.records.answer import answer_end, is_correct


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


@pytest.mark.parametrize(
    ("response", "done"),
    [
        ("7 * 4 = 28. So the answer is 28 pears.", "7 * 4 = 28. So the answer is 28"),
        ("The answer is 3. No, the answer is 28.</s>", "The answer is 3. No, the answer is 28"),
        ("answer: $1,000.50 in all", "answer: $1,000.50"),
        ("so \\boxed{28}$.", "so \\boxed{28}"),
        ("so \\boxed{28}", "so \\boxed{28}"),
        ("so \\boxed{\\text{Paris}} it is", "so \\boxed{\\text{Paris}}"),
        ("so \\boxed{28", None),  # not closed, and cut within the number perhaps
        ("so \\boxed{28 pears", "so \\boxed{28"),
        ("#### 28<|im_end|>", "#### 28"),
        ("#### 28", None),
        ("The answer is 28. I hope this answer helps!", "The answer is 28"),
        ("The answer is Paris.", None),
        ("Finally Victor has 28 shells.", None),
        ("", None),
    ],
)
def test_where_an_answer_is_complete(response, done):
    assert answer_end(response) == (None if done is None else len(done))
    if done is not None and "Paris" not in response:
        number = next(n for n in ("1000.50", "28") if is_correct(response, n))
        assert is_correct(response[: len(done)], number)


def closing_brace(text):
    """Place of the brace that closes one opened just before `text`, walked character by character."""
    depth = 1
    for place, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return place
    return None


@given(st.lists(st.sampled_from(["{", "}", "\\boxed{", "x ", "}}", "\\frac{"]), max_size=12), st.booleans())
def test_a_box_ends_with_the_brace_that_closes_it(pieces, boxed_before):
    before = "\\boxed{x}} " if boxed_before else "}{ "
    inside = "y" + "".join(piece.replace("\\boxed", "") for piece in pieces)
    response = before + "\\boxed{" + inside
    closing = closing_brace(inside)
    expected = None if closing is None else len(response) - len(inside) + closing + 1
    assert answer_end(response) == (expected or (len("\\boxed{x}") if boxed_before else None))


@pytest.mark.parametrize(
    ("response", "done", "number"),
    [
        ("The answer is 28 pears. \\boxed{}", "The answer is 28", "28"),
        ("The answer is 28 pears. \\boxed{ } done", "The answer is 28", "28"),
        ("\\boxed{28} or \\boxed{}", "\\boxed{28}", "28"),
        ("The answer is 28. \\boxed{\\text{pears}} it is", "The answer is 28. \\boxed{\\text{pears}}", None),
        ("\\boxed{28}, that is \\boxed{pears}", "\\boxed{28}, that is \\boxed{pears}", None),
        ("\\boxed{pears}, the answer is 28 pears", "\\boxed{pears}, the answer is 28", "28"),
        ("The answer is 28 pears, \\boxed{pears", "The answer is 28", "28"),
        ("\\boxed{the answer} or answer 28.", "\\boxed{the answer} or answer 28", "28"),
        ("28 \\boxed{}", None, "28"),
    ],
)
def test_grading_and_the_place_of_the_answer_follow_one_rule(response, done, number):
    """Cut right after its answer, a response has the same grade as whole."""
    assert answer_end(response) == (None if done is None else len(done))
    for reference in ("28", "3"):
        assert is_correct(response, reference) is (reference == number)
        assert done is None or is_correct(done, reference) is (reference == number)


@given(st.lists(st.sampled_from(["answer ", "\\boxed{", "}", "#### ", "28 ", "3 ", "pears ", ". "]), max_size=10))
def test_the_grade_does_not_change_after_the_answer(pieces):
    response = "".join(pieces)
    end = answer_end(response)
    if end is not None:
        for reference in ("28", "3", "283"):
            assert is_correct(response[:end], reference) is is_correct(response, reference)


def test_an_empty_box_does_not_hide_words_before_it():
    assert is_correct("The answer is Paris. \\boxed{}", "Paris") is True
