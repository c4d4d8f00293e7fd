"""Doing it: sample and score, checkpoint by checkpoint, with the teacher loaded once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pandas as pd

from opd_diag.errors import CheckpointError, ModelError, RunFolderError
from opd_diag.inference import HeadCheck
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.fits import Fits
from opd_diag.records.rollout import save_rollouts
from opd_diag.records.scores import Scores
from opd_diag.records.selftest import SelfTest
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.records.vocabulary import save_vocabulary
from opd_diag.replay.ahead import read_ahead
from opd_diag.replay.lazy import LazyModel
from opd_diag.replay.logprobs import LogprobCheck, logprob_checks
from opd_diag.replay.parts import Parts, Progress, Rollouts
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.precision import Floor
from opd_diag.replay.selftests import SELFTESTS, Battery, write_selftests
from opd_diag.replay.spread.engine import parts_of
from opd_diag.replay.store import Store
from opd_diag.replay.work import writers_of


@dataclass(frozen=True)
class ScoredSet:
    """One checkpoint on one state set."""

    checkpoint: Checkpoint
    states: str
    scores: Scores
    rollouts: Rollouts
    fits: Fits | None = None
    """What a second pass leaves at some of the states; None for ``back`` and ``near-on-policy``."""


@dataclass(frozen=True)
class Replay:
    """What a replay left in the store."""

    scored: tuple[ScoredSet, ...]
    """By checkpoint, then state set."""
    broken: tuple[Checkpoint, ...]
    """Checkpoints that failed, with the reason as their blocker."""
    coverage: pd.DataFrame | None = None
    """Which of the teacher's states each checkpoint comes near (:mod:`opd_diag.tables`); None where not looked at."""
    floors: tuple[Floor, ...] = ()
    """How far the first checkpoint and the teacher are from themselves: what rounding does."""
    heads: tuple[HeadCheck, ...] = ()
    """What the check of each model's head gave."""
    logprobs: tuple[LogprobCheck, ...] = ()
    """Log-probabilities as sampled against replayed ones, of each checkpoint and the teacher."""
    selftests: tuple[SelfTest, ...] = ()
    """What the measurement says of itself."""

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Those that were scored, in order."""
        return tuple(dict.fromkeys(s.checkpoint for s in self.scored))


def replay(plan: ReplayPlan, store: Store, progress: Progress | None = None, hidden: Store | None = None) -> Replay:
    """Fill the store: rollouts of every checkpoint, scores of every (checkpoint, state set).

    A part that was finished before with the same inputs is read instead of made again. A checkpoint that fails is
    named and the others go on; if the initial student fails, or all do, that is an error.

    Parameters
    ----------
    plan
        What is to be done.
    store
        Where it is kept.
    progress
        Called with (what is being done, units done, units in all).
    hidden
        Where both models' hidden states at own states are kept beyond this replay: of several pairs that share a model,
        its body then runs once. Default: they are not.

    Raises
    ------
    ModelError
        The teacher, or a model's head, gives what it must not.
    RunFolderError
        No checkpoint could be scored.
    TokenizerMismatchError
        An id that occurs means different text to student and teacher.
    """
    with parts_of(plan, store, progress, hidden) as parts:
        return _replayed(plan, store, parts)


def _replayed(plan: ReplayPlan, store: Store, parts: Parts) -> Replay:
    work = _Work(plan, store, parts)
    parts.ahead(*work.writers())
    if "teacher" in plan.settings.states:
        with read_ahead(plan.first, plan.digests):
            work.sample_teacher()
    scored: dict[Checkpoint, list[ScoredSet]] = {}
    coverage: list[pd.DataFrame] = []
    broken: list[Checkpoint] = []
    for attempt in parts.in_turn(work.attempted):
        if attempt.is_broken:
            broken.append(attempt.checkpoint)
        else:
            scored[attempt.checkpoint] = attempt.sets
            coverage += attempt.coverage
        store.keep_digests(plan.digests)
    if not scored:
        reasons = "; ".join(str(c.blocker) for c in broken[:3])
        raise RunFolderError(f"None of the {len(broken)} checkpoints could be scored. {reasons}")
    if "back" in plan.settings.states:
        work.score_back(scored)
    everything = tuple(s for sets in scored.values() for s in sets)
    logprobs = logprob_checks(everything)
    selftests = work.selftests(everything)
    work.save_what_was_learned(everything, logprobs, selftests)
    store.drop_shards()
    table = pd.concat(coverage, ignore_index=True) if coverage else None
    return Replay(everything, tuple(broken), table, work.floors, tuple(work.checks.values()), logprobs, selftests)


@dataclass(frozen=True)
class _Attempt:
    """What came of one checkpoint."""

    checkpoint: Checkpoint
    """With the reason as its blocker, where it failed."""
    sets: list[ScoredSet] = field(default_factory=list)
    coverage: list[pd.DataFrame] = field(default_factory=list)

    @property
    def is_broken(self) -> bool:
        """Whether it failed."""
        return not self.checkpoint.loadable


class _Work:
    """One replay under way: what was sampled and checked so far."""

    def __init__(self, plan: ReplayPlan, store: Store, parts: Parts) -> None:
        self.plan, self.store, self.parts = plan, store, parts
        self.own: dict[Checkpoint, Rollouts] = {}
        """Rollouts by the checkpoint that wrote them."""
        self.of_teacher: Rollouts = ()
        self.checks: dict[Checkpoint, HeadCheck] = {}
        self.floors: tuple[Floor, ...] = ()
        self.battery: Battery | None = None

    def sample_teacher(self) -> None:
        """Sample the teacher's responses, or read them."""
        try:
            self.of_teacher = self.parts.rollouts(self.parts.teacher)
        except ModelError as error:
            raise ModelError(
                f"{error} To go without the teacher's responses, name on-policy,start in --states."
            ) from error

    def writers(self) -> list[LazyModel]:
        """Give the models whose responses will be asked for, if none fails."""
        labels = writers_of(self.plan)
        students = [self.parts.student(c) for c in self.plan.checkpoints if c.label in labels]
        return [*([self.parts.teacher] if self.plan.teacher.label in labels else []), *students]

    def attempted(self, checkpoint: Checkpoint) -> _Attempt:
        """Replay one checkpoint, or say why that fails; of a step 0, that is an error."""
        try:
            return _Attempt(checkpoint, self.replayed(checkpoint), self.coverage(checkpoint))
        except (CheckpointError, ModelError) as error:
            if checkpoint == self.plan.first and self.plan.step_zero_known:
                raise
            return _Attempt(replace(checkpoint, blocker=str(error)))

    def replayed(self, checkpoint: Checkpoint) -> list[ScoredSet]:
        """Sample and score one checkpoint on every state set but ``back``."""
        student = self.parts.student(checkpoint)
        wanted = self.plan.settings.states
        is_first = self.parts.start is None
        if {"on-policy", "back"} & {*wanted} or (is_first and "start" in wanted):
            self.own[checkpoint] = self.parts.rollouts(student)
            self._check_heads(student, self.own[checkpoint])
        own = self.own.get(checkpoint, ())
        rollouts = {"on-policy": own, "start": self.parts.start or own, "teacher": self.of_teacher}
        if checkpoint.label in self.plan.near:
            rollouts[NEAR_ON_POLICY] = self.parts.near(checkpoint)
        if is_first:
            self._ask_themselves(student, own or self.of_teacher)
        sets: list[ScoredSet] = []
        for states in (s for s in wanted if s in rollouts):
            self._check_heads(student, rollouts[states])
            sets.append(self._scored(student, checkpoint, states, rollouts[states], sets))
        if is_first:  # only now: a first checkpoint that fails leaves the place to the next
            self.parts.start = own
            if own:
                save_rollouts(self.store.path("rollouts/start.jsonl"), own)
                self.store.note("rollouts/start.jsonl")
        return sets

    def _ask_themselves(self, student: LazyModel, rollouts: Rollouts) -> None:
        """Run the self-tests and tell how far each model is from itself, before anything is scored."""
        self._check_heads(student, rollouts)
        self.battery = Battery.begun(self.parts, student, rollouts)
        self.floors = tuple(self.parts.floor(model, rollouts) for model in self.parts.here(student))

    def selftests(self, scored: tuple[ScoredSet, ...]) -> tuple[SelfTest, ...]:
        """Give what all self-tests said, those that needed everything to be scored too."""
        assert self.battery is not None
        return self.battery.of_everything(self.floors, scored)

    def score_back(self, scored: dict[Checkpoint, list[ScoredSet]]) -> None:
        """Let the first checkpoint score every other's own rollouts; loaded once, after all have been sampled."""
        first = next(iter(scored))
        student = self.parts.student(first)
        for checkpoint, sets in scored.items():
            earlier = sets if checkpoint == first else []
            try:
                sets.append(self._scored(student, checkpoint, "back", self.own[checkpoint], earlier))
            except (CheckpointError, ModelError) as error:
                raise type(error)(f"{error} To go without these states, leave back out of --states.") from error

    def coverage(self, checkpoint: Checkpoint) -> list[pd.DataFrame]:
        """Tell which of the teacher's states lie near one of the checkpoint's own; empty without both sets."""
        if not {"on-policy", "teacher"} <= {*self.plan.settings.states} or not self.parts.teacher_is_here:
            return []
        return [self.parts.coverage(checkpoint, self.of_teacher, self.own[checkpoint])]

    def _scored(
        self, student: LazyModel, listed: Checkpoint, states: str, rollouts: Rollouts, earlier: list[ScoredSet]
    ) -> ScoredSet:
        same = next((s for s in earlier if s.rollouts is rollouts), None)
        scores = self.parts.scores(student, listed, states, rollouts, same.scores if same else None)
        # of another student than the rows it is listed under, of others, or without whole distributions
        if states in ("back", NEAR_ON_POLICY) or not self.parts.teacher_is_here:
            return ScoredSet(listed, states, scores, rollouts)
        fits = self.parts.fits(student, listed, states, rollouts, same.fits if same else None)
        return ScoredSet(listed, states, scores, rollouts, fits)

    def _check_heads(self, student: LazyModel, rollouts: Rollouts) -> None:
        """Check each model's head once, on what it scores first: the same, however often the replay was killed."""
        for model in self.parts.here(student):
            if model.checkpoint not in self.checks:
                self.checks[model.checkpoint] = self.parts.head_check(model, rollouts)

    def save_what_was_learned(
        self, scored: tuple[ScoredSet, ...], logprobs: tuple[LogprobCheck, ...], selftests: tuple[SelfTest, ...]
    ) -> None:
        """Write the vocabulary that occurs, the checks of heads and log-probabilities, and the self-tests."""
        ids: set[int] = set()
        for part in scored:
            ids.update(i for r in part.rollouts for i in (*r.prompt_ids, *r.teacher_prompt_ids, *r.response_ids))
            ids.update(part.scores.student_topk_ids.ravel().tolist(), part.scores.teacher_topk_ids.ravel().tolist())
        save_vocabulary(self.store.path("vocabulary.json"), {i: self.plan.tokenizer.token(i) for i in sorted(ids)})
        known = [*dict.fromkeys(part.checkpoint for part in scored), self.plan.teacher]
        heads = [self.checks[model] for model in known if model in self.checks]
        write_selftests(self.store.path(SELFTESTS), heads, logprobs, selftests)
        self.store.note(SELFTESTS)
