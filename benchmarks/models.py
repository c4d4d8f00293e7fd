"""Random models of known shapes and random rollouts, from fixed seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from opd_diag.records.rollout import Provenance, Rollout

PROMPTS, ROLLOUTS_PER_PROMPT, PROMPT_TOKENS = 24, 4, 100
MEDIAN_RESPONSE, LOG_SD, LONGEST_RESPONSE = 100, 0.7, 600


@dataclass(frozen=True)
class Shape:
    """A Llama-like model."""

    title: str
    width: int
    layers: int
    vocabulary: int
    heads: int
    kv_heads: int
    ffn: int


SHAPES = {
    "deep": Shape("576 wide × 30 layers × 49k vocabulary", 576, 30, 49_152, 9, 3, 1536),
    "wide": Shape("1024 wide × 6 layers × 152k vocabulary", 1024, 6, 151_936, 16, 8, 3072),
}
FLAT = Shape("64 wide × 1 layer × 152k vocabulary", 64, 1, 151_936, 1, 1, 128)
"""Little body, so that many states can be scored in little time."""


def models(shape: Shape, seed: int = 0) -> tuple[Any, Any]:
    """Build student and teacher from seeds; the teacher is half the student, so that their top tokens overlap."""
    config = LlamaConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        vocab_size=shape.vocabulary,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=2048,
        initializer_range=0.06,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    student = LlamaForCausalLM(config).eval()
    torch.manual_seed(seed + 1)
    teacher = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for mine, other in zip(teacher.parameters(), student.parameters(), strict=True):
            mine.lerp_(other, 0.5)
    return student, teacher


def rollouts(shape: Shape, prompts: int = PROMPTS, seed: int = 0) -> list[Rollout]:
    """Draw random rollouts, in order of arrival: prompt by prompt."""
    rng = np.random.default_rng(seed)
    source = Provenance("sampled", "student", "", 0, 1.0, 1.0, seed)
    drawn = []
    for prompt in range(prompts):
        prompt_ids = tuple(rng.integers(0, shape.vocabulary, PROMPT_TOKENS).tolist())
        for index in range(ROLLOUTS_PER_PROMPT):
            length = int(np.clip(rng.lognormal(np.log(MEDIAN_RESPONSE), LOG_SD), 1, LONGEST_RESPONSE))
            response = tuple(rng.integers(0, shape.vocabulary, length).tolist())
            drawn.append(Rollout(prompt, index, str(prompt), None, prompt_ids, prompt_ids, response, "stop", source))
    return drawn


def states(drawn: list[Rollout]) -> int:
    """Count the response tokens."""
    return sum(len(r.response_ids) for r in drawn)
