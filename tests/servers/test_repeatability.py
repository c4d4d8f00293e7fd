"""A server that answers the same each time, one that does not, and how far its answers lie apart."""

import math

import numpy as np
import pytest

from opd_diag.servers import Answer, Question, connect, repeatability

from .stand_in import TinyModel, stand_in

MODEL = TinyModel(16)
QUESTIONS = [Question((1, 2, 3, 4, 5), 2, 4), Question((7, 3, 1), 1, 4, after=True)]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_one_that_answers_the_same(engine):
    with stand_in(engine, MODEL) as url:
        measured = repeatability(connect(f"{engine}={url}", top=4), QUESTIONS, times=3)
        scored = [body for _, body in url.asked if len(body.get("prompt") or body.get("input_ids") or ()) > 2]
    assert len(scored) == 6
    assert (measured.times, measured.rows, measured.values) == (3, 6, 5 + 6 * 4)
    assert (measured.largest, measured.median, measured.changed, measured.exact) == (0, 0, 0, True)


def test_one_that_answers_differently():
    with stand_in("vllm", MODEL, misbehave="noisy") as url:
        measured = repeatability(connect(f"vllm={url}", top=4), QUESTIONS)
    assert 1e-6 < measured.median < measured.largest < 1e-4
    assert not measured.exact


class Recited:
    """Gives prepared answers, whatever it is asked."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def answer(self, question):
        return self.answers.pop(0)


def made(own, ids, logprobs):
    return Answer(np.array(own), np.array(ids), np.array(logprobs), None, 0)


def test_spreads_by_hand():
    server = Recited(
        made([-1.0, -math.inf], [[4, 5], [6, 7]], [[-0.5, -1.0], [-0.5, -math.inf]]),
        made([-1.5, -math.inf], [[5, 4], [6, 8]], [[-0.25, -0.75], [-0.5, -3.0]]),
    )
    measured = repeatability(server, [Question((1, 2, 3), 1, 2)])
    # own: .5, 0; id 4: .25, id 5: .75; id 6: 0; ids 7 and 8 were there once each
    assert (measured.values, measured.largest, measured.median, measured.changed) == (5, 0.75, 0.25, 1)


def test_minus_infinity_at_times():
    server = Recited(made([-math.inf], [[4]], [[-0.5]]), made([-9.0], [[4]], [[-0.5]]))
    measured = repeatability(server, [Question((1, 2), 1, 1)])
    assert (measured.largest, measured.median) == (math.inf, math.inf)


@pytest.mark.parametrize(("questions", "times"), [([], 2), (QUESTIONS, 1)])
def test_nothing_to_compare(questions, times):
    with pytest.raises(ValueError, match=f"^needs a question, asked at least twice; got {len(questions)} and {times} "):
        repeatability(Recited(), questions, times)
