"""Whether a server answers the same when it is asked the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opd_diag.servers.answers import Answer, Question
from opd_diag.servers.in_flight import answered
from opd_diag.servers.server import Server


@dataclass(frozen=True)
class Repeatability:
    """How far answers to the same questions lie apart."""

    times: int
    """How often each question was asked."""
    rows: int
    """Rows that were compared."""
    values: int
    """Log-probabilities that were compared: of the rows' own tokens, and of the ids among the best each time."""
    largest: float
    """The largest spread of a log-probability, greatest less least, in nats; inf where one was -inf at times only."""
    median: float
    """The median of the spreads, in nats; 0 where nothing was compared."""
    changed: int
    """Rows whose most probable ids were others at some time, whatever their order."""

    @property
    def exact(self) -> bool:
        """Whether nothing differed at all."""
        return self.largest == 0 and self.changed == 0


def repeatability(server: Server, questions: Sequence[Question], times: int = 2) -> Repeatability:
    """Ask the same questions several times, first one after the other, then all at once and in the other order.

    What a server computes together changes the order of its sums: answers that are alone differ from those in company,
    and the first, which fills the prefix cache, from later ones.

    Parameters
    ----------
    server
        Asked.
    questions
        A few; all of them are in flight together.
    times
        How often, at least 2.

    Raises
    ------
    ValueError
        There is no question, or `times` is below 2.
    ServerError
        A question cannot be answered.
    """
    if not questions or times < 2:
        raise ValueError(f"needs a question, asked at least twice; got {len(questions)} and {times} times")
    rounds = [[server.answer(question) for question in questions]]
    for _ in range(times - 1):
        again = list(answered(server, questions[::-1], at_once=len(questions)))
        rounds.append(again[::-1])
    spreads, changed, rows = [], 0, 0
    for answers in zip(*rounds, strict=True):
        same, of_top = _of_top(answers)
        spreads += [_spread(np.stack([one.sampled_logprobs for one in answers])), of_top]
        changed += int((~same).sum())
        rows += len(same)
    values = np.concatenate(spreads)
    largest, median = (float(values.max()), float(np.median(values))) if values.size else (0.0, 0.0)
    return Repeatability(times, rows, int(values.size), largest, median, changed)


def _of_top(answers: Sequence[Answer]) -> tuple[np.ndarray, np.ndarray]:
    """Give for each row whether its ids were the same each time, and the spreads of those that were there each time."""
    same, spreads = [], [np.empty(0)]
    for row in range(len(answers[0].topk_ids)):
        seen = [dict(zip(one.topk_ids[row].tolist(), one.topk_logprobs[row], strict=True)) for one in answers]
        common = set[int].intersection(*map(set, seen))
        same.append(all(len(one) == len(common) for one in seen))
        spreads.append(_spread(np.array([[one[i] for i in sorted(common)] for one in seen])))
    return np.array(same, dtype=bool), np.concatenate(spreads)


def _spread(values: np.ndarray) -> np.ndarray:
    """Greatest less least over the times, down the columns; 0 where all are equal, -inf among them."""
    most, least = values.max(axis=0), values.min(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(most == least, 0.0, most - least)
