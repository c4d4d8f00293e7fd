"""What a teacher behind a server costs: requests, bytes over the wire and minutes, told from a few timed questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from opd_diag.inference.served_teacher import ADDED, ServedTeacher
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.replay.selftests import limits
from opd_diag.replay.work import Lengths, scored_sets, teacher_passes, writers_of
from opd_diag.servers import Question, answered

TIMED_TOKENS = 512
"""Most tokens of a timed question."""

TIMED_DRAWN = 8
"""Tokens of a timed response."""


@dataclass(frozen=True)
class WirePace:
    """How fast a server is with as many requests in flight as the report gives it."""

    token: float
    """Seconds a token of a question that is scored."""
    drawn: float
    """Seconds a token that is sampled."""
    row_bytes: float
    """Bytes of an answer a state."""


@dataclass(frozen=True)
class WireWork:
    """What the server is asked for; fractions where lengths are assumed."""

    requests: float
    tokens: float
    """In questions, prompts included: servers share them between questions at best."""
    rows: float
    """States that answers tell of."""
    sampled: float
    """Tokens that it samples."""

    def seconds(self, pace: WirePace) -> float:
        """Give how long the server is at it."""
        return self.tokens * pace.token + self.sampled * pace.drawn

    def received(self, pace: WirePace) -> float:
        """Give the bytes of all answers."""
        return self.rows * pace.row_bytes


def planned_wire(plan: ReplayPlan, lengths: Lengths) -> WireWork:
    """Tell what the server is asked for if nothing is stored yet: a question a response, once for all checkpoints."""
    served = plan.served
    assert served is not None
    sets = scored_sets(plan)
    asks = served.server.about.exact_ids and not served.whole
    passes = [writer for _, _, writer in sets] if asks else teacher_passes(sets)
    prompt = lengths.teacher_prompts / lengths.prompts
    requests = sum(lengths.rows(writer) for writer in passes)
    tokens = sum(lengths.rows(writer) * prompt + lengths.response(writer) for writer in passes)
    rows = sum(lengths.states(writer) for writer in passes)
    probes = 2 * min(limits.PROBE_ROLLOUTS, lengths.prompts)
    probe = min(limits.PROBE_TOKENS, lengths.response(sets[0][2]) / lengths.rows(sets[0][2]))
    samples = TEACHER_LABEL in writers_of(plan) and TEACHER_LABEL not in plan.recorded
    return WireWork(
        requests=requests + probes + (lengths.prompts if samples else 0),
        tokens=tokens + probes * (prompt + probe),
        rows=rows + probes * probe,
        sampled=lengths.response(TEACHER_LABEL) if samples else 0.0,
    )


def measured_wire(plan: ReplayPlan, lengths: Lengths) -> WirePace:
    """Ask the server a few questions made of the prompts' own ids, as many at once as the report will, and time them.

    Raises
    ------
    ServerError
        It does not answer.
    """
    assert plan.served is not None
    teacher = plan.served.teacher(plan.tokenizer)
    prompts = [plan.prompts[i % len(plan.prompts)].teacher_ids for i in range(teacher.at_once)]
    room = round(lengths.assumed)
    questions = [_question(teacher, prompt, room) for prompt in prompts]
    list(answered(teacher.server, questions[:1], at_once=1))  # the first one also warms it up
    begin = time.perf_counter()
    answers = list(answered(teacher.server, questions, at_once=teacher.at_once))
    token = (time.perf_counter() - begin) / sum(len(q.ids) for q in questions)
    bytes_ = sum(a.received_bytes for a in answers) / sum(q.rows for q in questions)
    return WirePace(token, _drawing(teacher, prompts), bytes_)


def _question(teacher: ServedTeacher, prompt: Sequence[int], room: int) -> Question:
    most = min(TIMED_TOKENS, (teacher.context or TIMED_TOKENS) - ADDED, len(prompt) + max(1, room))
    ids = (tuple(prompt) * (1 + most // len(prompt)))[: max(most, 2)]
    return Question(ids, max(1, min(len(prompt), len(ids) - 1)), teacher.top)


def _drawing(teacher: ServedTeacher, prompts: Sequence[Sequence[int]]) -> float:
    """Give the seconds a sampled token, with as many responses growing at once as the report asks for."""

    def drawn(prompt: Sequence[int]) -> int:
        made = teacher.server.sampled(prompt, n=1, max_new_tokens=TIMED_DRAWN, temperature=1.0, top_p=1.0, seed=0)
        return sum(len(one.ids) for one in made)

    begin = time.perf_counter()
    with ThreadPoolExecutor(teacher.at_once) as pool:
        tokens = sum(pool.map(drawn, prompts))
    return (time.perf_counter() - begin) / max(1, tokens)
