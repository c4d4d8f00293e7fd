"""Accuracies count right answers by operation."""

import torch

from opd_diag.lab import evaluation
from opd_diag.lab.models import Shape, build_model
from opd_diag.lab.prompts import draw_held_out
from opd_diag.lab.tokenizer import train_tokenizer, world_texts


def test_accuracy_counts_by_operation(monkeypatch):
    problems = draw_held_out(4, seed=0)
    said = {p.question: f"So {p.answer if p.operation == 'add' else 0} figs." for p in problems}
    said |= {next(p.question for p in problems if p.operation == "multiply"): "no idea"}
    right = [p for p in problems if p.operation == "subtract"][:3]
    said |= {p.question: f"= {p.answer}." for p in right}
    monkeypatch.setattr(evaluation, "sample_responses", lambda m, t, questions, **_: [said[q] for q in questions])
    assert evaluation.accuracy_by_operation(None, None, problems, rounds=2) == {
        "add": 1.0,
        "multiply": 0.0,
        "subtract": 0.75,
    }


def test_sampling_repeats_with_its_seed_and_greedy_has_none():
    tokenizer = train_tokenizer(world_texts(400))
    model = build_model(Shape(1, 16, 16, heads=2, head_width=16), tokenizer, seed=0).eval()
    questions = [problem.question for problem in draw_held_out(2, seed=0)]

    def sample(**options):
        return evaluation.sample_responses(model, tokenizer, questions, max_new_tokens=6, **options)

    assert sample(seed=1) == sample(seed=1) != sample(seed=2)
    assert sample(is_greedy=True, seed=1) == sample(is_greedy=True, seed=2)
    assert len(sample()) == len(questions)
    assert torch.is_grad_enabled()
