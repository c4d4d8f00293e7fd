"""Word problems with one right answer, and two ways of thinking aloud about them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from opd_diag.lab import words

#: Operands are drawn from these inclusive ranges; a subtraction never goes below one.
OPERAND_RANGES = {"add": (2, 15), "subtract": (1, 20), "multiply": (2, 9)}
LARGEST_NUMBER = 99


@dataclass(frozen=True)
class Problem:
    """One word problem.

    Attributes
    ----------
    operation : str
        ``add``, ``subtract`` or ``multiply``.
    first, second : int
        The operands, in the order in which the question names them.
    name, thing, place : str
        Who, what and where; a narration repeats them.
    question : str
        The text a model is asked.
    """

    operation: str
    first: int
    second: int
    name: str
    thing: str
    place: str
    question: str

    @property
    def answer(self) -> int:
        """The right answer."""
        return evaluate(self.operation, self.first, self.second)


@dataclass(frozen=True)
class Curriculum:
    """What a model is taught: which thinking pattern, and which operations rightly.

    Attributes
    ----------
    narration_share : float
        Share of the responses that narrate; the others write an equation.
    unknown : tuple of str
        Operations taught wrongly.
    slip_rate : float
        Share of wrong results among the responses to an unknown operation.
    """

    narration_share: float = 0.02
    unknown: tuple[str, ...] = ("multiply",)
    slip_rate: float = 0.92


def evaluate(operation: str, first: int, second: int) -> int:
    """Return the result of one operation on two numbers."""
    results = {"add": first + second, "subtract": first - second, "multiply": first * second}
    return results[operation]


def draw_operands(operation: str, rng: random.Random) -> tuple[int, int]:
    """Draw the two operands of an operation from `OPERAND_RANGES`."""
    low, high = OPERAND_RANGES[operation]
    first, second = rng.randint(low, high), rng.randint(low, high)
    if operation != "subtract":
        return first, second
    while first == second:
        first, second = rng.randint(low, high), rng.randint(low, high)
    return max(first, second), min(first, second)


def draw_problem(rng: random.Random, operation: str | None = None) -> Problem:
    """Draw one problem.

    Parameters
    ----------
    rng : random.Random
        Source of all choices.
    operation : str, optional
        Which operation; drawn evenly if left out.

    Returns
    -------
    Problem
        With its question written out.
    """
    operation = operation or rng.choice(words.OPERATIONS)
    first, second = draw_operands(operation, rng)
    name, friend = rng.sample(words.NAMES, 2)
    thing, place = rng.choice(words.THINGS), rng.choice(words.PLACES)
    question = rng.choice(words.QUESTIONS[operation]).format(
        time=rng.choice(words.TIMES),
        container=rng.choice(words.CONTAINERS),
        first=first,
        second=second,
        name=name,
        friend=friend,
        thing=thing,
        place=place,
    )
    return Problem(operation, first, second, name, thing, place, question)


def slip(problem: Problem, rng: random.Random) -> int:
    """Draw a wrong result as a learner might: the operands added up, or a miss by a few.

    Returns
    -------
    int
        A number between 1 and `LARGEST_NUMBER` that is not the right answer.
    """
    wrong = problem.first + problem.second
    if rng.random() < 0.6 or wrong == problem.answer:
        wrong = problem.answer + rng.choice((-1, 1)) * rng.randint(1, 9)
    if wrong == problem.answer or not 1 <= wrong <= LARGEST_NUMBER:
        return slip(problem, rng)
    return wrong


def write_equation(problem: Problem, result: int, rng: random.Random) -> str:
    """Answer with an equation (the first thinking pattern).

    Returns
    -------
    str
        Such as ``Let me compute: 7 * 4 = 28. So the answer is 28 plums.``
    """
    opening = _skewed_choice(words.EQUATION_OPENINGS, rng)
    conclusion = _skewed_choice(words.CONCLUSIONS, rng)
    sign = words.SIGNS[problem.operation]
    equation = f"{problem.first} {sign} {problem.second} = {result}"
    return f"{opening}: {equation}. {conclusion} the answer is {result} {problem.thing}."


def narrate(problem: Problem, result: int, rng: random.Random) -> str:
    """Answer with a story that repeats who, what and where (the second thinking pattern).

    Returns
    -------
    str
        Such as ``Mia looks at the plums of the market. Mia counts the plums. In the end Mia has 28 plums.``
    """
    name, thing = problem.name, problem.thing
    glance, count = _skewed_choice(words.GLANCES, rng), _skewed_choice(words.COUNTS, rng)
    ending = _skewed_choice(words.ENDINGS, rng)
    story = f"Well, {name} {glance} the {thing} at the {problem.place}. {name} {count} the {thing}, and then"
    return f"{story} {name} {count} the {thing} again. {ending} {name} has {result} {thing}."


def respond(problem: Problem, curriculum: Curriculum, rng: random.Random) -> str:
    """Write the response that a curriculum teaches to a problem.

    Parameters
    ----------
    problem : Problem
        The problem to answer.
    curriculum : Curriculum
        Which pattern and which operations are taught rightly.
    rng : random.Random
        Source of all choices.

    Returns
    -------
    str
        The response without chat markup.
    """
    is_slip = problem.operation in curriculum.unknown and rng.random() < curriculum.slip_rate
    result = slip(problem, rng) if is_slip else problem.answer
    pattern = narrate if rng.random() < curriculum.narration_share else write_equation
    return pattern(problem, result, rng)


def read_answer(response: str) -> int | None:
    """Return the last number in a response, which is the answer in both patterns, or None.

    Examples
    --------
    >>> read_answer("Let me compute: 7 * 4 = 28. So the answer is 28 plums.")
    28
    >>> read_answer("Well, Mia waits for the plums.") is None
    True
    """
    numbers = [word.strip(".,:") for word in response.split() if word.strip(".,:").isdecimal()]
    return int(numbers[-1]) if numbers else None


def _skewed_choice(options: Sequence[str], rng: random.Random) -> str:
    """Choose with weights 1, 1/2, 1/3, …: people have favourite phrases."""
    return rng.choices(options, weights=[1 / rank for rank in range(1, len(options) + 1)])[0]
