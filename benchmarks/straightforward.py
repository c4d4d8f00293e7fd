"""What an ordinary, competent script does to score two models: the baseline of the benchmark. FROZEN.

Do not make it faster and do not make it slower: numbers of different versions compare only while this file stays as it
is. It reads like the scripts people write: right-padded batches of eight in order of arrival, an attention mask,
``model(...).logits``, ``log_softmax`` and ``torch.topk``, then the response positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

BATCH_SIZE = 8
K = 128
GRID = (1, 2, 4, 8, 16, 32, 64, 128)


@torch.inference_mode()
def score_straightforwardly(
    student: Any, teacher: Any, rollouts: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> dict[str, np.ndarray]:
    """Score two transformers causal language models on every response token.

    Parameters
    ----------
    student, teacher
        Models in evaluation mode.
    rollouts
        (prompt ids, response ids) each.

    Returns
    -------
    dict
        One array a quantity, one row a response token, in the order of `rollouts`.
    """
    results = []
    for start in range(0, len(rollouts), BATCH_SIZE):
        batch = rollouts[start : start + BATCH_SIZE]
        ids, attention_mask, response_mask = pad(batch)
        targets = ids[:, 1:][response_mask]
        student_logprobs = response_logprobs(student, ids, attention_mask, response_mask)
        teacher_logprobs = response_logprobs(teacher, ids, attention_mask, response_mask)
        results.append(measure(student_logprobs, teacher_logprobs, targets))
    return {name: torch.cat([r[name] for r in results]).numpy() for name in results[0]}


def pad(batch):
    """Give right-padded ids, the attention mask, and which positions predict a response token."""
    length = max(len(prompt) + len(response) for prompt, response in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    attention_mask = torch.zeros(len(batch), length, dtype=torch.long)
    response_mask = torch.zeros(len(batch), length - 1, dtype=torch.bool)
    for row, (prompt, response) in enumerate(batch):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor([*prompt, *response])
        attention_mask[row, :end] = 1
        response_mask[row, len(prompt) - 1 : end - 1] = True
    return ids, attention_mask, response_mask


def response_logprobs(model, ids, attention_mask, response_mask):
    """Give (states, V) log-probabilities at the positions that predict a response token."""
    logits = model(input_ids=ids, attention_mask=attention_mask).logits.float()
    logprobs = torch.log_softmax(logits, dim=-1)
    return logprobs[:, :-1][response_mask]


def measure(student_logprobs, teacher_logprobs, targets):
    """Reduce both models' log-probabilities to numbers per state."""
    student_probs, teacher_probs = student_logprobs.exp(), teacher_logprobs.exp()
    student_topk = torch.topk(student_logprobs, K, dim=-1)
    teacher_topk = torch.topk(teacher_logprobs, K, dim=-1)
    result = {
        "student_sampled_logprobs": student_logprobs.gather(-1, targets[:, None]).squeeze(-1),
        "teacher_sampled_logprobs": teacher_logprobs.gather(-1, targets[:, None]).squeeze(-1),
        "student_topk_ids": student_topk.indices,
        "student_topk_logprobs": student_topk.values,
        "teacher_at_student_topk_logprobs": teacher_logprobs.gather(-1, student_topk.indices),
        "teacher_topk_ids": teacher_topk.indices,
        "teacher_topk_logprobs": teacher_topk.values,
        "student_at_teacher_topk_logprobs": student_logprobs.gather(-1, teacher_topk.indices),
        "student_entropy": -(student_probs * student_logprobs).sum(-1),
        "teacher_entropy": -(teacher_probs * teacher_logprobs).sum(-1),
        "reverse_kl": (student_probs * (student_logprobs - teacher_logprobs)).sum(-1),
        "forward_kl": (teacher_probs * (teacher_logprobs - student_logprobs)).sum(-1),
    }
    return result | concentration(result)


def concentration(result):
    """Give what the two top-k share and the mass on it, for every k of the grid."""
    curve = {
        name: [] for name in ("shared", "student_shared_mass", "teacher_shared_mass", "student_mass", "teacher_mass")
    }
    for k in GRID:
        student_ids, teacher_ids = result["student_topk_ids"][:, :k], result["teacher_topk_ids"][:, :k]
        shared = (student_ids[:, :, None] == teacher_ids[:, None, :]).any(-1)
        student_topk = result["student_topk_logprobs"][:, :k].exp()
        teacher_at_student = result["teacher_at_student_topk_logprobs"][:, :k].exp()
        curve["shared"].append(shared.sum(-1))
        curve["student_shared_mass"].append((student_topk * shared).sum(-1))
        curve["teacher_shared_mass"].append((teacher_at_student * shared).sum(-1))
        curve["student_mass"].append(student_topk.sum(-1))
        curve["teacher_mass"].append(result["teacher_topk_logprobs"][:, :k].exp().sum(-1))
    return {f"curve_{name}": torch.stack(values, dim=-1) for name, values in curve.items()}
