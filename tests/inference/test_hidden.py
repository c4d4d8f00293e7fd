"""Hidden states at chosen places are those of each sequence alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from models import random_rollouts, wrapped

from opd_diag.inference import hidden, score, teacher_hidden

RAGGED = ((1, 7), (12, 20), (5, 1), (30, 3), (3, 30), (9, 9))
PLACES = [(4, 29), (0, 0), (3, 2), (4, 0), (1, 11), (2, 0)]


def alone(model, rollout, position):
    ids = torch.tensor([[*rollout.teacher_prompt_ids, *rollout.response_ids]])
    with torch.no_grad():
        states = model.hf.base_model(ids).last_hidden_state[0]
    return states[len(rollout.teacher_prompt_ids) + position - 1].numpy()


def test_each_place_is_what_the_sequence_alone_gives(monkeypatch):
    teacher = wrapped("qwen3", name="teacher", seed=2)
    rollouts = [replace(r, teacher_prompt_ids=(3, *r.prompt_ids)) for r in random_rollouts(RAGGED)]
    monkeypatch.setattr(
        hidden, "length_sorted_batches", lambda lengths: [[0, 2], [1, 3], [4]]
    )  # five rollouts are named
    found = teacher_hidden(teacher, rollouts, PLACES)
    assert found.shape == (len(PLACES), teacher.head.weight.shape[1])
    assert found.dtype == torch.float32
    for state, (row, position) in zip(found, PLACES, strict=True):
        np.testing.assert_allclose(state.numpy(), alone(teacher, rollouts[row], position), atol=1e-5)


def test_rollouts_that_are_not_named_are_not_run(monkeypatch):
    teacher, rollouts, run = wrapped("llama", seed=2), random_rollouts(RAGGED), []
    at = hidden.hidden_at
    monkeypatch.setattr(hidden, "hidden_at", lambda model, s, *a: run.extend(map(len, s)) or at(model, s, *a))
    teacher_hidden(teacher, rollouts, [(0, 3), (3, 1)])
    assert sorted(run) == [8, 33]


def test_the_head_makes_of_them_what_is_scored():
    student, teacher, rollouts = wrapped("llama", seed=1), wrapped("qwen3", seed=2), random_rollouts(RAGGED)
    scores = score(student, teacher, rollouts)
    places = list(zip(scores.rollout.tolist(), scores.position.tolist(), strict=True))
    logits = teacher.head.logits(teacher_hidden(teacher, rollouts, places)).double()
    entropy = torch.distributions.Categorical(logits=logits).entropy().detach().numpy()
    np.testing.assert_allclose(entropy, scores.teacher_entropy, atol=1e-5)
