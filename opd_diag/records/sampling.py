"""How responses are sampled."""

from __future__ import annotations

from dataclasses import dataclass

from opd_diag.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling.

    Raises
    ------
    InputError
        A value out of its range.
    """

    rollouts_per_prompt: int = 2
    """Responses to each prompt."""
    max_new_tokens: int = 256
    """Most tokens of a response; one that reaches it is truncated."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most probable token."""
    top_p: float = 1.0
    """In (0, 1]; below 1 only the most probable tokens that together reach it may be drawn."""
    seed: int = 0
    """With the checkpoint's step (or label), the prompt's and the rollout's index it fixes every random number."""

    def __post_init__(self) -> None:
        problems = (
            (self.rollouts_per_prompt < 1, f"rollouts_per_prompt must be at least 1, found {self.rollouts_per_prompt}"),
            (self.max_new_tokens < 1, f"max_new_tokens must be at least 1, found {self.max_new_tokens}"),
            (not 0 <= self.temperature < float("inf"), f"temperature must be 0 or more, found {self.temperature}"),
            (not 0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, found {self.top_p}"),
            (not 0 <= self.seed < 2**32, f"seed must be 0 to 4294967295, found {self.seed}"),
        )
        for wrong, message in problems:
            if wrong:
                raise InputError(f"Option {message}.")

    @property
    def plain(self) -> bool:
        """Whether it draws from the model's own distribution: temperature 1 and top-p 1."""
        return self.temperature == 1.0 and self.top_p == 1.0
