"""How much models will do for a report, in tokens and states, told from its plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from opd_diag.inference import device_type
from opd_diag.inference.head import CHECKED_TOKENS
from opd_diag.inference.packing import TOKENS_PER_PACK
from opd_diag.inference.sampling import ROWS_PER_SHARD
from opd_diag.records.rollout import Rollout
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.replay import coverage, precision, subsample
from opd_diag.replay.account import Work
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.replay.sampled import by_vllm
from opd_diag.replay.selftests import limits

PACK_CHECK_TOKENS = 55
"""Tokens that tell whether a model takes packs (:func:`opd_diag.inference.packing.takes_packs`)."""


class Lengths:
    """How long prompts and responses are: as recorded, else as a part of the room for them."""

    def __init__(self, plan: ReplayPlan, fill: float) -> None:
        self.plan = plan
        self.prompts = len(plan.prompts)
        self.student_prompts = sum(len(p.ids) for p in plan.prompts)
        self.teacher_prompts = sum(len(p.teacher_ids) for p in plan.prompts)
        self.longest_prompt = max(max(len(p.ids), len(p.teacher_ids)) for p in plan.prompts)
        self.assumed, self.all_full = fill * plan.settings.max_new_tokens, fill >= 1
        self.near = {near_writer(label): rollouts for label, rollouts in plan.near.items()}
        self.pack = TOKENS_PER_PACK[device_type(plan.settings.device)]

    def recorded(self, writer: str) -> tuple[Rollout, ...] | None:
        """Give the responses of a writer where they are recorded."""
        return self.plan.recorded.get(writer) or self.near.get(writer)

    def rows(self, writer: str) -> int:
        """Count the responses of a writer."""
        recorded = self.recorded(writer)
        return len(recorded) if recorded else self.prompts * self.plan.settings.rollouts_per_prompt

    def response(self, writer: str) -> float:
        """Give the tokens of all responses of a writer."""
        recorded = self.recorded(writer)
        return sum(len(r.response_ids) for r in recorded) if recorded else self.rows(writer) * self.assumed

    def states(self, writer: str) -> float:
        """Give the states of all responses: a terminal one more where a response is known to be cut."""
        recorded = self.recorded(writer)
        cut = sum(r.truncated for r in recorded) if recorded else self.rows(writer) * self.all_full
        return self.response(writer) + cut

    def passed(self, writer: str, prompts: int) -> float:
        """Give the tokens of one pass over all responses of a writer, a prompt once in each pack that holds it."""
        if writer in self.near:  # to prompts of their own, each in one pack as a rule
            return sum(map(len, {r.prompt_ids for r in self.near[writer]})) + self.response(writer)
        each, response = self.rows(writer) / self.prompts, max(1.0, self.response(writer) / self.rows(writer))
        prompt = prompts / self.prompts
        fits = prompt + each * response <= self.pack
        packs = 1 if fits else math.ceil(each / max(1, (self.pack - prompt) // response))
        return packs * prompts + self.response(writer)

    def seen(self) -> float:
        """Give how many tokens a token sees, on average."""
        writers = writers_of(self.plan)
        mean = sum(map(self.response, writers)) / sum(map(self.rows, writers))
        return (self.student_prompts + self.teacher_prompts) / (2 * self.prompts) + mean / 2


def near_writer(label: str) -> str:
    """Name those who wrote what a trainer recorded near a checkpoint, apart from the checkpoint itself."""
    return f"{label}, {NEAR_ON_POLICY}"


def listed_sets(plan: ReplayPlan) -> list[tuple[str, str, str]]:
    """Give (checkpoint that it is listed under, state set, writer) of each set there is."""
    writers = {"start": plan.first.label, "teacher": TEACHER_LABEL}
    return [
        (label, states, near_writer(label) if states == NEAR_ON_POLICY else writers.get(states, label))
        for label in (checkpoint.label for checkpoint in plan.checkpoints)
        for states in plan.settings.states
        if states != NEAR_ON_POLICY or label in plan.near
    ]


def writers_of(plan: ReplayPlan) -> list[str]:
    """Give the labels of those whose responses are needed, the teacher last."""
    states = plan.settings.states
    students = plan.checkpoints if {"on-policy", "back"} & {*states} else plan.checkpoints[: "start" in states]
    return [*(c.label for c in students), *([TEACHER_LABEL] if "teacher" in states else [])]


def sampled_here(plan: ReplayPlan) -> list[str]:
    """Give the labels of those whose responses are sampled, but for a teacher whose server does that."""
    here = [writer for writer in writers_of(plan) if writer not in plan.recorded]
    return [writer for writer in here if plan.served is None or writer != TEACHER_LABEL]


def scored_sets(plan: ReplayPlan) -> list[tuple[str, str, str]]:
    """Give (scoring checkpoint, state set, writer) of each set that is scored; what is the same again is not."""
    first = plan.first.label
    sets: dict[tuple[str, str], str] = {}
    for label, states, writer in listed_sets(plan):
        sets.setdefault((first if states == "back" else label, writer), states)
    return [(scores, states, writer) for (scores, writer), states in sets.items()]


def shared_states(plan: ReplayPlan, lengths: Lengths) -> float:
    """Count the states at which the teacher's hidden states are kept for the next checkpoint."""
    shared = {"start": plan.first.label, "teacher": TEACHER_LABEL} if len(plan.checkpoints) > 1 else {}
    return sum(lengths.states(writer) for states, writer in shared.items() if states in plan.settings.states)


def planned_work(plan: ReplayPlan, lengths: Lengths) -> Work:
    """Tell what is to be done if nothing of it is stored yet."""
    work, sets = Work(), scored_sets(plan)
    for writer in sampled_here(plan):
        if by_vllm(plan.settings):
            work.beside += lengths.response(writer)
        elif writer == TEACHER_LABEL:
            work.teacher_sampled += lengths.response(writer)
            work.teacher_tokens += _sampling(lengths, writer, lengths.teacher_prompts)
        else:
            work.student_sampled += lengths.response(writer)
            work.student_tokens += _sampling(lengths, writer, lengths.student_prompts)
    for _, _, writer in sets:
        work.student_tokens += lengths.passed(writer, lengths.student_prompts)
        work.states += lengths.states(writer)
    for writer in teacher_passes(sets):
        work.teacher_tokens += lengths.passed(writer, lengths.teacher_prompts)
    checks, floor, states = _checks(lengths, sets[0][2]), *_floor(lengths, sets[0][2])
    loaded = len(plan.checkpoints) + ("back" in plan.settings.states)
    work.student_tokens += loaded * checks + floor
    work.teacher_tokens += checks + floor
    asked, of_asked = _selftests(lengths, sets[0][2])
    work.student_tokens += 4 * asked  # twice beside the teacher, and as either against itself
    work.teacher_tokens += 2 * asked
    work.states += 2 * states + 3 * of_asked
    if plan.served:  # of what runs here; no second pass and no coverage, which take more than a server gives
        return replace(work, states=work.states - states, teacher_tokens=0.0)
    own = [(states, writer) for _, states, writer in sets if states not in ("back", NEAR_ON_POLICY)]
    for _, writer in own:
        work.student_tokens += _second_pass(lengths, writer, lengths.student_prompts)[0]
        work.states += subsample.WORTH * _second_pass(lengths, writer, 0)[1]
    for writer in dict.fromkeys(writer for _, writer in own):
        work.teacher_tokens += _second_pass(lengths, writer, lengths.teacher_prompts)[0]
    if {"on-policy", "teacher"} <= {*plan.settings.states}:
        work.teacher_tokens += sum(_looked_at(lengths, c.label) for c in plan.checkpoints)
    return work


def _sampling(lengths: Lengths, writer: str, prompts: int) -> float:
    """Give the tokens of sampling: prompts, all of a response but the last, and two responses a shard to check it."""
    rows = lengths.rows(writer)
    row = lengths.longest_prompt + lengths.response(writer) / rows
    return prompts + lengths.response(writer) - rows + 2 * row * math.ceil(rows / ROWS_PER_SHARD)


def _checks(lengths: Lengths, writer: str) -> float:
    """Give the tokens that check one model: how it takes packs, and its head on one response."""
    row = lengths.longest_prompt + lengths.response(writer) / lengths.rows(writer)
    return PACK_CHECK_TOKENS + min(CHECKED_TOKENS, row)


def teacher_passes(sets: Sequence[tuple[str, str, str]]) -> list[str]:
    """Give whose states the teacher is run over: once over those that several checkpoints score."""
    once = dict.fromkeys(writer for _, states, writer in sets if states != "back")
    return [*once, *(writer for _, states, writer in sets if states == "back")]


def _floor(lengths: Lengths, writer: str) -> tuple[float, float]:
    """Give tokens and states of the precision floor of one model.

    It scores itself twice: three of the four passes are packed, one runs sequences one at a time.
    """
    mean = min(precision.MOST_OF_ONE, lengths.response(writer) / lengths.rows(writer))
    rows = min(lengths.rows(writer), precision.MOST_STATES / max(1.0, mean))
    alone = rows * lengths.student_prompts / lengths.prompts
    together = alone * lengths.prompts / lengths.rows(writer)
    return 3 * together + alone + 4 * rows * mean, 2 * rows * mean


def _selftests(lengths: Lengths, writer: str) -> tuple[float, float]:
    """Give tokens and states of one pass over the few responses that self-tests look at."""
    rows = min(limits.PROBE_ROLLOUTS, lengths.prompts)
    mean = min(limits.PROBE_TOKENS, lengths.response(writer) / lengths.rows(writer))
    return rows * (lengths.student_prompts / lengths.prompts + mean), rows * mean


def _second_pass(lengths: Lengths, writer: str, prompts: int) -> tuple[float, float]:
    """Give tokens and states of the second pass: one response a prompt, up to its last chosen state."""
    rows = min(subsample.MOST_ROLLOUTS, lengths.prompts)
    mean = lengths.response(writer) / lengths.rows(writer)
    apart = max(1.0, rows * mean / subsample.MOST_STATES)
    return rows * (prompts / lengths.prompts + mean - (apart - 1) / 2), rows * mean / apart


def _looked_at(lengths: Lengths, own: str) -> float:
    """Give the tokens that coverage runs: first responses of either side until they make enough states."""
    tokens = 0.0
    for writer in (TEACHER_LABEL, own):
        first = lengths.response(writer) * lengths.prompts / lengths.rows(writer)
        each = min(lengths.rows(writer) / lengths.prompts, math.ceil(coverage.MOST_STATES / max(1, first)))
        tokens += lengths.teacher_prompts + each * first
    return tokens
