"""Made-up data built as a report's is: states within rollouts within prompts, and checkpoints with effects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tail:
    """How prompts differ, and how that goes with the length of their responses."""

    name: str
    heavy: bool
    size_sd: float

    def effects(self, z: Floats) -> Floats:
        """Give what prompts add: normal, or lognormal as divergences are."""
        return np.exp(z) if self.heavy else 0.5 * z


TAILS = (Tail("light", False, 0.4), Tail("heavy", True, 0.6))
CHANGE = 0.3
ROLLOUTS = 2


def prompts_of(rng: np.random.Generator, tail: Tail, prompts: int) -> tuple[Floats, Ints]:
    """Draw what each prompt adds and how long each of its responses is; both go together, correlation .6."""
    z, own = rng.normal(size=(2, prompts))
    lengths = 20 * np.exp(tail.size_sd * (0.6 * z + 0.8 * own))
    return tail.effects(z), np.maximum(1, np.rint(lengths)).astype(np.int64)


@cache
def truth(tail: Tail) -> float:
    """Token mean of all prompts there could be."""
    rng = np.random.default_rng(1)
    tops = totals = 0.0
    for _ in range(10):
        effects, lengths = prompts_of(rng, tail, 400_000)
        tops, totals = tops + float(effects @ lengths), totals + float(lengths.sum())
    return tops / totals


def two_checkpoints(rng: np.random.Generator, tail: Tail, prompts: int) -> tuple[Floats, Floats, Ints]:
    """Values of every state at two checkpoints, on the same states, and their prompts; the mean rises by `CHANGE`."""
    effects, lengths = prompts_of(rng, tail, prompts)
    of = np.repeat(np.arange(prompts), ROLLOUTS * lengths)
    shared = np.repeat(rng.normal(scale=0.4, size=prompts * ROLLOUTS), np.repeat(lengths, ROLLOUTS))
    first = effects[of] + shared + rng.normal(size=len(of))
    spread = effects / 2 if tail.heavy else np.ones(prompts)
    second = first + CHANGE + (0.3 * spread * rng.normal(size=prompts))[of] + rng.normal(scale=0.3, size=len(of))
    return first, second, of


def curves(
    rng: np.random.Generator, means: npt.ArrayLike, prompts: int, *, shared: float = 0.0, heavy: bool = False
) -> tuple[Floats, Floats]:
    """Draw (G, C) one value a prompt and checkpoint around `means`, and what all prompts of a checkpoint share."""
    centre = np.asarray(means, dtype=float)
    effects = rng.normal(scale=shared, size=len(centre)) if shared else np.zeros(len(centre))
    prompt = rng.normal(size=(prompts, 1))
    noise = rng.normal(scale=0.3, size=(prompts, len(centre)))
    values = (np.exp(prompt) * (1 + noise) - np.exp(0.5)) if heavy else prompt + noise
    return centre + effects + values, effects
