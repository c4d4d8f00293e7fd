"""Doing it: load, sample, score; checkpoint by checkpoint, with the teacher loaded once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from opd_diag.errors import CheckpointError, InputError, ModelError, PromptsError, RunFolderError
from opd_diag.inference import HeadCheck, Model, check_head, load_model, sample_rollouts, score
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key, write_json
from opd_diag.records.rollout import Rollout, load_rollouts, save_rollouts
from opd_diag.records.scores import SCORES_VERSION, Scores
from opd_diag.records.vocabulary import save_vocabulary
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.store import Store
from opd_diag.runs import fingerprint
from opd_diag.tokenization import Tokenizer, check_same_ids

Progress = Callable[[str, int, int], None]
"""(what is being done, units done, units in all)."""


@dataclass(frozen=True)
class ScoredSet:
    """One checkpoint on one state set."""

    checkpoint: Checkpoint
    states: str
    scores: Scores
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True)
class Replay:
    """What a replay left in the store."""

    scored: tuple[ScoredSet, ...]
    """By checkpoint, then state set."""
    broken: tuple[Checkpoint, ...]
    """Checkpoints that failed, with the reason as their blocker."""

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Those that were scored, in order."""
        return tuple(dict.fromkeys(s.checkpoint for s in self.scored))


def replay(plan: ReplayPlan, store: Store, progress: Progress | None = None) -> Replay:
    """Fill the store: rollouts of every checkpoint, scores of every (checkpoint, state set).

    A part that was finished before with the same inputs is read instead of made again. A checkpoint that fails is
    named and the others go on; if the initial student fails, or all do, that is an error.

    Raises
    ------
    ModelError
        The teacher, or a model's head, gives what it must not.
    RunFolderError
        No checkpoint could be scored.
    TokenizerMismatchError
        An id that occurs means different text to student and teacher.
    """
    work = _Work(plan, store, progress or (lambda what, done, total: None))
    scored: list[ScoredSet] = []
    broken: list[Checkpoint] = []
    for checkpoint in plan.checkpoints:
        try:
            scored += work.replayed(checkpoint)
        except (CheckpointError, ModelError) as error:
            if checkpoint == plan.first and plan.step_zero_known:
                raise
            broken.append(replace(checkpoint, blocker=str(error)))
    if not scored:
        reasons = "; ".join(str(c.blocker) for c in broken[:3])
        raise RunFolderError(f"None of the {len(broken)} checkpoints could be scored. {reasons}")
    work.save_what_was_learned(scored)
    return Replay(tuple(scored), tuple(broken))


class _Work:
    """One replay under way: models that are loaded only if something is left to do, and the start's rollouts."""

    def __init__(self, plan: ReplayPlan, store: Store, progress: Progress) -> None:
        self.plan, self.store, self.progress = plan, store, progress
        self.teacher = _Lazy(plan.teacher, plan, plan.teacher.path.name, plan.teacher_tokenizer or plan.tokenizer)
        self.start: tuple[Rollout, ...] | None = None
        self.checks: list[HeadCheck] = []

    def replayed(self, checkpoint: Checkpoint) -> list[ScoredSet]:
        """Sample and score one checkpoint on every state set."""
        student = _Lazy(checkpoint, self.plan, checkpoint.label, self.plan.tokenizer)
        wanted = self.plan.settings.states
        own = self._rollouts(student) if self.start is None or "on-policy" in wanted else ()
        start = self.start or own
        sets: list[ScoredSet] = []
        for states in wanted:
            rollouts = start if states == "start" else own
            sets.append(ScoredSet(checkpoint, states, self._scores(student, states, rollouts, sets), rollouts))
        if self.start is None:  # only now: a first checkpoint that fails leaves the place to the next
            self.start = own
            save_rollouts(self.store.path("rollouts/start.jsonl"), own)
        return sets

    def _rollouts(self, student: _Lazy) -> tuple[Rollout, ...]:
        name = f"rollouts/{student.checkpoint.slug}.jsonl"
        recorded = self.plan.recorded.get(student.checkpoint.label)
        sampling = self.plan.settings.sampling
        key = content_key(
            ["recorded", [asdict(r) for r in recorded]]
            if recorded
            else [student.key, self.plan.prompts_key(), asdict(sampling), self.plan.settings.dtype, *self._drawable()]
        )
        stored = self.store.has(name, key)
        rollouts = tuple(load_rollouts(self.store.path(name))) if stored else recorded or self._sampled(student)
        self._check_ids({i for r in rollouts for i in (*r.prompt_ids, *r.teacher_prompt_ids, *r.response_ids)})
        if not stored:
            save_rollouts(self.store.path(name), rollouts)
            self.store.finished(name, key)
        return rollouts

    def _drawable(self) -> tuple[int, tuple[int, ...]]:
        """Give what of the tokenizer decides which responses are drawn."""
        return self.plan.tokenizer.size, self.plan.tokenizer.stop_ids

    def _sampled(self, student: _Lazy) -> tuple[Rollout, ...]:
        self._check_teacher_takes_them()  # before hours of sampling, and before anything is written
        what = f"{student.checkpoint.label}: sampling responses"
        return tuple(
            sample_rollouts(
                student.model,
                self.plan.tokenizer,
                self.plan.prompts,
                sampling=self.plan.settings.sampling,
                vocabulary=self.plan.tokenizer.size,
                progress=lambda done, total: self.progress(what, done, total),
            )
        )

    def _scores(self, student: _Lazy, states: str, rollouts: tuple[Rollout, ...], earlier: list[ScoredSet]) -> Scores:
        """Give the scores of one state set: stored, the same as another's of this checkpoint, or made now."""
        name = f"scores/{student.checkpoint.slug}.{states}.safetensors"
        settings = self.plan.settings
        temperatures = [settings.student_temperature, settings.teacher_temperature]
        ids = [[r.prompt_ids, r.teacher_prompt_ids, r.response_ids, r.stop_reason, r.generated] for r in rollouts]
        key = content_key([SCORES_VERSION, student.key, self.teacher.key, states, temperatures, settings.dtype, ids])
        if self.store.has(name, key):
            return Scores.load(self.store.path(name))
        same = next((s.scores for s in earlier if s.rollouts is rollouts), None)
        if same is not None:
            scores = replace(same, provenance=same.provenance | {"states": states})
        else:
            scores = self._scored(student, states, rollouts)
        self._check_ids({*scores.student_topk_ids.ravel().tolist(), *scores.teacher_topk_ids.ravel().tolist()})
        scores.save(self.store.path(name))
        self.store.finished(name, key)
        return scores

    def _scored(self, student: _Lazy, states: str, rollouts: tuple[Rollout, ...]) -> Scores:
        what = f"{student.checkpoint.label}: scoring {states} states"
        teacher = self._teacher()
        for lazy in (student, self.teacher):
            if not lazy.checked:
                longest = max(rollouts, key=lambda r: len(r.response_ids))
                self.checks.append(check_head(lazy.model, [*longest.prompt_ids, *longest.response_ids]))
                lazy.checked = True
        return score(
            student.model,
            teacher,
            rollouts,
            states=states,
            student_temperature=self.plan.settings.student_temperature,
            teacher_temperature=self.plan.settings.teacher_temperature,
            progress=lambda done, total: self.progress(what, done, total),
        )

    def _check_teacher_takes_them(self) -> None:
        teacher, room = self._teacher(), self.plan.settings.max_new_tokens
        for prompt in self.plan.prompts:
            length = len(prompt.teacher_ids) + room
            if teacher.context is not None and length > teacher.context:
                raise PromptsError(
                    f"Prompt {prompt.prompt.id} has {len(prompt.teacher_ids)} tokens; with --max-new-tokens {room} "
                    f"that exceeds the {teacher.context} tokens that the teacher takes. Lower --max-new-tokens or "
                    "leave the prompt out."
                )

    def _teacher(self) -> Model:
        try:
            return self.teacher.model
        except CheckpointError as error:  # not a fault of the checkpoint at hand
            raise InputError(f"The teacher cannot be loaded. {error}") from error

    def _check_ids(self, ids: set[int]) -> None:
        if self.plan.teacher_tokenizer is not None:
            check_same_ids(ids, self.plan.tokenizer, self.plan.teacher_tokenizer)

    def save_what_was_learned(self, scored: list[ScoredSet]) -> None:
        """Write the vocabulary that occurs, and the checks of the heads."""
        ids: set[int] = set()
        for part in scored:
            ids.update(i for r in part.rollouts for i in (*r.prompt_ids, *r.teacher_prompt_ids, *r.response_ids))
            ids.update(part.scores.student_topk_ids.ravel().tolist(), part.scores.teacher_topk_ids.ravel().tolist())
        save_vocabulary(self.store.path("vocabulary.json"), {i: self.plan.tokenizer.token(i) for i in sorted(ids)})
        self._save_checks()

    def _save_checks(self) -> None:
        """Write the checks of the heads; of models that were not run this time, those of last time stand."""
        path = self.store.path("selftest.json")
        before = json.loads(path.read_text(encoding="utf-8"))["head"] if path.is_file() else []
        checks = {check["model"]: check for check in [*before, *(asdict(check) for check in self.checks)]}
        write_json(path, {"head": list(checks.values())})


@dataclass
class _Lazy:
    """A model that is loaded when it is first needed."""

    checkpoint: Checkpoint
    plan: ReplayPlan
    name: str
    tokenizer: Tokenizer
    checked: bool = False

    @cached_property
    def key(self) -> str:
        return fingerprint(self.checkpoint)

    @cached_property
    def model(self) -> Model:
        settings = self.plan.settings
        return load_model(
            self.checkpoint,
            name=self.name,
            key=self.key,
            dtype=settings.dtype,
            device=settings.device,
            stop_ids=self.tokenizer.stop_ids,
            trust_remote_code=settings.trust_remote_code,
        )
