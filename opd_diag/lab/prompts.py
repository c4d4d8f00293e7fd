"""Questions put to a model: the held-out ones that ship with the runs, and those a run trains on."""

import json
import random
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from opd_diag.lab import words
from opd_diag.lab.world import Problem, draw_problem


def ask(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """Return the text of a chat that ends where the response begins."""
    messages = as_messages(question)
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def as_messages(question: str) -> list[dict[str, str]]:
    """Return a question as chat messages."""
    return [{"role": "user", "content": question}]


def draw_held_out(n_per_operation: int, seed: int) -> list[Problem]:
    """Draw different problems, as many of each operation, shuffled.

    Parameters
    ----------
    n_per_operation : int
        How many of each operation.
    seed : int
        Of the choice and the order.

    Returns
    -------
    list of Problem
        No question occurs twice.
    """
    rng = random.Random(f"held out {seed}")
    problems: dict[str, Problem] = {}
    for operation in words.OPERATIONS:
        target = len(problems) + n_per_operation
        while len(problems) < target:
            problem = draw_problem(rng, operation)
            problems[problem.question] = problem
    shuffled = list(problems.values())
    rng.shuffle(shuffled)
    return shuffled


def draw_training_questions(n: int, seed: int, held_out: frozenset[str]) -> list[str]:
    """Draw `n` questions for distillation, none of them held out."""
    rng = random.Random(f"distillation {seed}")
    questions: list[str] = []
    while len(questions) < n:
        question = draw_problem(rng).question
        if question not in held_out:
            questions.append(question)
    return questions


def write_prompts(problems: list[Problem], path: Path) -> None:
    """Write problems as a prompts file: one JSON object a line with id, prompt, answer and group."""
    counts = dict.fromkeys(words.OPERATIONS, 0)
    lines = []
    for problem in problems:
        record = {
            "id": f"{problem.operation[:3]}-{counts[problem.operation]:03d}",
            "prompt": as_messages(problem.question),
            "answer": str(problem.answer),
            "group": problem.operation,
        }
        counts[problem.operation] += 1
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
