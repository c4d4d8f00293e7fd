"""The problems are right, and both ways of thinking say the right thing."""

import random
import re

import pytest

from opd_diag.lab import words
from opd_diag.lab.world import (
    LARGEST_NUMBER,
    Curriculum,
    draw_problem,
    narrate,
    read_answer,
    respond,
    slip,
    write_equation,
)


def solve(question):
    """Solve a question from its words alone, without looking at how it was made."""
    first, second = (int(number) for number in re.findall(r"\d+", question))
    if re.search(r"\beach\b", question):
        return sum([first] * second)
    if "gives" in question or "sells" in question:
        return first - second
    assert "buys" in question or "brings" in question
    return first + second


@pytest.fixture
def problems():
    rng = random.Random(5)
    return [draw_problem(rng) for _ in range(600)]


def test_answers_follow_from_the_text(problems):
    assert [problem.answer for problem in problems] == [solve(problem.question) for problem in problems]


def test_answers_are_numbers_the_tokenizer_knows(problems):
    assert all(1 <= problem.answer <= LARGEST_NUMBER for problem in problems)


def test_operations_are_drawn_evenly(problems):
    counts = [sum(problem.operation == operation for problem in problems) for operation in words.OPERATIONS]
    assert min(counts) > 150


def test_same_seed_same_problems():
    drawn = [[draw_problem(random.Random(seed)) for _ in range(3)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_equation_holds_and_concludes_with_the_answer(problems):
    rng = random.Random(0)
    for problem in problems:
        text = write_equation(problem, problem.answer, rng)
        first, sign, second, result = re.search(r": (\d+) (\S) (\d+) = (\d+)\. ", text).groups()
        values = {"+": int(first) + int(second), "-": int(first) - int(second), "*": int(first) * int(second)}
        assert values[sign] == int(result) == solve(problem.question)
        assert text.endswith(f"the answer is {result} {problem.thing}.")


def test_narration_repeats_who_what_where_and_ends_with_the_answer(problems):
    rng = random.Random(0)
    for problem in problems:
        text = narrate(problem, problem.answer, rng)
        assert text.count(problem.name) == 4
        assert text.count(problem.thing) == 4
        assert problem.place in text
        assert not set("+-*=") & set(text)
        assert re.findall(r"\d+", text) == [str(solve(problem.question))]


def test_slips_are_wrong_numbers_in_range(problems):
    rng = random.Random(0)
    slips = [(problem, slip(problem, rng)) for problem in problems]
    assert all(result != problem.answer and 1 <= result <= LARGEST_NUMBER for problem, result in slips)


def test_curriculum_decides_what_is_right_and_how_it_is_said(problems):
    rng = random.Random(0)
    curriculum = Curriculum(narration_share=0.25, unknown=("multiply",), slip_rate=0.9)
    responses = [(problem, respond(problem, curriculum, rng)) for problem in problems]
    rates = {
        operation: [
            read_answer(text) == problem.answer for problem, text in responses if problem.operation == operation
        ]
        for operation in words.OPERATIONS
    }
    assert all(rates["add"])
    assert all(rates["subtract"])
    assert 0.03 < sum(rates["multiply"]) / len(rates["multiply"]) < 0.2
    assert 0.18 < sum("=" not in text for _, text in responses) / len(responses) < 0.32


@pytest.mark.parametrize(
    ("response", "answer"),
    [("3 + 4 = 7. So the answer is 7 figs.", 7), ("", None), ("no number", None), ("12", 12), ("x9 .", None)],
)
def test_read_answer(response, answer):
    assert read_answer(response) == answer
