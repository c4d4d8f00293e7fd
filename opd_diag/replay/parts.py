"""The parts of a replay: of each, what it is made from (its key), how it is made, and how it is read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import pandas as pd
from torch import Tensor

from opd_diag.errors import CheckpointError, InputError, PromptsError
from opd_diag.inference import HeadCheck, Model, Place, score
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.inference.swapping import Resident
from opd_diag.records.arrays import load_arrays, save_arrays
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key, write_json
from opd_diag.records.fits import FITS_VERSION, Fits
from opd_diag.records.rollout import Rollout, load_rollouts, save_rollouts
from opd_diag.records.scores import SCORES_VERSION, Scores
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.replay.ahead import read_ahead
from opd_diag.replay.coverage import COVERAGE_VERSION, coverage_of, covered_states, equal_places
from opd_diag.replay.hidden import KeptHidden, seen
from opd_diag.replay.lazy import LazyModel, longest_ids
from opd_diag.replay.memory import refuse_too_large
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.precision import (
    Floor,
    Floors,
    decides_floor,
    load_floors,
    measured_floors,
    rollouts_for_floor,
    save_floors,
)
from opd_diag.replay.sampled import by_vllm, decides_draws, sampler_of
from opd_diag.replay.store import Store
from opd_diag.replay.subsample import WORTH, fits_of, places_in, subsample
from opd_diag.tables import save_coverage
from opd_diag.tokenization import check_same_ids

Progress = Callable[[str, int, int], None]
"""(what is being done, units done, units in all)."""

T = TypeVar("T")

SAMPLED_VERSION = 3
"""Raised whenever the same model and prompts would give other responses, or the same responses other records."""

Rollouts = tuple[Rollout, ...]


class Parts:
    """The parts of one replay, each found in the store or made now."""

    teacher_is_here: ClassVar[bool] = True
    """Whether its whole distributions and hidden states can be had."""

    def __init__(self, plan: ReplayPlan, store: Store, progress: Progress, hidden: Store | None = None) -> None:
        self.plan, self.store, self.progress = plan, store, progress
        self.hidden, self.beyond = KeptHidden(hidden or store, plan.settings.dtype), hidden is not None
        """Whether both models' hidden states at own states outlive this replay, for other pairs."""
        self._room = cache(partial(refuse_too_large, plan))
        self.teacher = self._teacher()
        try:
            self.teacher_key = self.teacher.key  # now: that it cannot be read is no fault of any checkpoint
        except CheckpointError as error:
            raise InputError(f"The teacher cannot be read. {error}") from error
        self.resident = Resident()
        """The students take turns in it; the teacher is never put out of memory."""
        self._students: dict[Checkpoint, LazyModel] = {}
        self.start: Rollouts | None = None
        """Responses of the first checkpoint that could be scored."""

    def _teacher(self) -> LazyModel:
        plan, tokenizer = self.plan, self.plan.teacher_tokenizer or self.plan.tokenizer
        about = (plan.teacher, plan.settings, plan.teacher.path.resolve().name, tokenizer)
        return LazyModel(*about, digests=plan.digests, role="teacher", before=self._room)

    def here(self, student: LazyModel) -> tuple[LazyModel, ...]:
        """Give the models that this replay runs, of a student and the teacher."""
        return student, self.teacher

    def student(self, checkpoint: Checkpoint) -> LazyModel:
        """Give a checkpoint as a model that is not loaded yet."""
        if checkpoint not in self._students:
            about = (self.plan.settings, checkpoint.label, self.plan.tokenizer)
            student = LazyModel(checkpoint, *about, self.resident, self.plan.digests, before=self._room)
            self._students[checkpoint] = student
        return self._students[checkpoint]

    def rollouts(self, writer: LazyModel) -> Rollouts:
        """Give the responses of a model: recorded ones, or sampled."""
        recorded = self.plan.recorded.get(writer.checkpoint.label)
        key = content_key(
            ["recorded", [asdict(r) for r in recorded]]
            if recorded
            else ["sampled", SAMPLED_VERSION, *self._decides_sampling(writer)]
        )
        return self.store.part(
            f"rollouts/{writer.checkpoint.slug}.jsonl",
            key,
            make=lambda: self._same_text(recorded or self._sampled(writer, key)),
            save=save_rollouts,
            load=lambda path: self._same_text(tuple(load_rollouts(path))),
        )

    def near(self, checkpoint: Checkpoint) -> Rollouts:
        """Give the responses that a trainer recorded near a checkpoint."""
        recorded = self.plan.near[checkpoint.label]
        return self.store.part(
            f"rollouts/{checkpoint.slug}.{NEAR_ON_POLICY}.jsonl",
            content_key([NEAR_ON_POLICY, [asdict(r) for r in recorded]]),
            make=lambda: self._meaning_the_same(recorded),
            save=save_rollouts,
            load=lambda path: self._meaning_the_same(tuple(load_rollouts(path))),
        )

    def head_check(self, model: LazyModel, rollouts: Rollouts) -> HeadCheck:
        """Give the check of a model's head."""
        ids = longest_ids(rollouts)

        def made() -> HeadCheck:
            with self._runs(model):
                return model.checked_on(ids)

        check = self.store.part(
            f".checks/{model.checkpoint.slug}.json",
            content_key(["head", model.key, _named(model.checkpoint), self.plan.settings.dtype, ids]),
            make=self.making(made, "head_check", model, rollouts),
            save=lambda path, check: write_json(path, asdict(check)),
            load=lambda path: HeadCheck(**json.loads(path.read_text(encoding="utf-8"))),
        )
        return replace(check, model=model.name)

    def scores(
        self, student: LazyModel, listed: Checkpoint, states: str, rollouts: Rollouts, same: Scores | None
    ) -> Scores:
        """Give the scores of one state set.

        They are listed under `listed`, which is the student itself but for ``back``. `same` are those of the same
        rollouts under another name, where they are known.
        """
        settings = self.plan.settings
        key = content_key(
            [
                ["scores", SCORES_VERSION, states, _named(student.checkpoint), _named(listed)],
                [student.key, self.teacher_key, settings.dtype],
                [settings.student_temperature, settings.teacher_temperature],
                [student.tokenizer.stop_ids, self.teacher.tokenizer.stop_ids],
                seen(rollouts),
                *self.decides_answers,
            ]
        )

        def made() -> Scores:
            scores = same or self._scored(student, states, rollouts, key)
            listing = {"states": states, "checkpoint": {"label": listed.label, "step": listed.step}}
            return replace(scores, provenance=scores.provenance | listing)

        name = f"scores/{listed.slug}.{states}.safetensors"
        scores = self.store.part(name, key, make=made, save=_save_scores, load=Scores.load)
        # of stored ones too: they may be older than the tokenizers of today
        self._check_ids({*np.unique([scores.student_topk_ids, scores.teacher_topk_ids]).tolist()})
        teacher = scores.provenance["teacher"] | {"name": self.teacher.name}  # its folder may have moved since
        return replace(scores, provenance=scores.provenance | {"teacher": teacher})

    @property
    def decides_answers(self) -> list[object]:
        """What of the teacher decides scores, beyond its weights."""
        return []

    def fits(
        self, student: LazyModel, checkpoint: Checkpoint, states: str, rollouts: Rollouts, same: Fits | None
    ) -> Fits:
        """Give what a second pass leaves at some states of one set; `same` as in :meth:`scores`."""
        settings = self.plan.settings
        chosen = subsample(rollouts, settings.seed)
        temperatures = settings.student_temperature, settings.teacher_temperature
        about = {"label": checkpoint.label, "step": checkpoint.step, "states": states}
        decided = seen(chosen[0])

        def made() -> Fits:
            self._check_here(student, rollouts)
            again = self._used_again(states, rollouts)
            keep = self.hidden.under([self.teacher_key, decided, chosen[1]]) if again else None
            at = places_in(rollouts, chosen)
            teacher = self.loaded_teacher()
            what, n = f"{checkpoint.label}: fits on {states} states", len(chosen[1])
            self.progress(what, 0, n)
            self.store.account.measured(0, WORTH * n, as_teacher=False)
            with self._runs(student), self._runs(self.teacher):
                fits = fits_of(
                    student.model,
                    teacher,
                    chosen,
                    temperatures=temperatures,
                    about=about,
                    keep_teacher=keep,
                    known=tuple(self._left(student, states, rollouts, at, as_teacher=who) for who in (False, True)),
                )
            self.progress(what, n, n)
            return fits

        decides = ["fits", FITS_VERSION, about, student.key, self.teacher_key, settings.dtype, temperatures]
        if self._outlives(states):
            decides.append("as scored")  # packs of other sizes round otherwise
        return self.store.part(
            f"fits/{checkpoint.slug}.{states}.safetensors",
            content_key([decides, decided, [[r.prompt_index, r.rollout_index] for r in chosen[0]], chosen[1]]),
            make=self.making(made, "fits", student, states, rollouts)
            if same is None
            else lambda: replace(same, about=about),
            save=_save_fits,
            load=Fits.load,
        )

    def coverage(self, checkpoint: Checkpoint, of_teacher: Rollouts, own: Rollouts) -> pd.DataFrame:
        """Tell which of the teacher's states lie near one of the checkpoint's own."""
        places = equal_places(of_teacher, own)

        def made() -> pd.DataFrame:
            teacher, student = self.loaded_teacher(), self.student(checkpoint)
            with self._runs(self.teacher):
                left = self._left(student, "on-policy", own, places[1], as_teacher=True)
                covered = covered_states(teacher, of_teacher, own, places, left)
            return coverage_of(checkpoint, teacher.name, of_teacher, places[0], covered)

        key = [
            ["coverage", COVERAGE_VERSION, _named(checkpoint), self.teacher_key, self.plan.settings.dtype, places],
            *([seen(rollouts), _prompts_of(rollouts)] for rollouts in (of_teacher, own)),
            *(["as scored"] if self.beyond else []),
        ]
        name = f"coverage/{checkpoint.slug}.parquet"
        make = self.making(made, "coverage", self.student(checkpoint), of_teacher, own)
        table = self.store.part(name, content_key(key), make=make, save=save_coverage, load=pd.read_parquet)
        return table.assign(teacher=self.teacher.name)

    def floor(self, model: LazyModel, rollouts: Rollouts) -> Floor:
        """Give the precision floor of a model, measured on the beginnings of some of these responses."""
        settings, as_teacher = self.plan.settings, model is self.teacher
        temperature = settings.teacher_temperature if as_teacher else settings.student_temperature
        chosen = rollouts_for_floor(rollouts, as_teacher=as_teacher)

        def made() -> Floors:
            loaded = self.loaded_teacher() if as_teacher else model.model
            what = f"{model.checkpoint.label}: precision floor"
            floors = measured_floors(
                loaded,
                chosen,
                temperature=temperature,
                progress=lambda part, done, total: self.progress(f"{what}, {part}, tokens", done, total),
            )
            self.store.account.measured(floors[1].tokens, 2 * floors[1].n_states, as_teacher=as_teacher)
            return floors

        floors = self.store.part(
            f".checks/precision/{model.checkpoint.slug}.json",
            content_key(decides_floor(model, chosen, settings=settings, temperature=temperature)),
            make=self.making(made, "floor", model, rollouts),
            save=save_floors,
            load=load_floors,
        )
        return replace(floors[min(settings.k, max(floors))], model=model.name)

    def making(self, made: Callable[[], T], what: str, model: LazyModel, *of: object) -> Callable[[], T]:
        """Give what makes a part: `made`, here.

        Parts that are made elsewhere give something else: there `what` is called, for this model and on all the rest.
        """
        return made

    def ahead(self, *wanted: LazyModel) -> None:
        """Hear whose responses will be asked for; here, nothing is made before it is."""

    def in_turn(self, attempt: Callable[[Checkpoint], T]) -> Iterator[T]:
        """Attempt every checkpoint, one after the other; the files of the next one are read meanwhile."""
        checkpoints = self.plan.checkpoints
        for checkpoint, following in zip(checkpoints, (*checkpoints[1:], None), strict=True):
            with read_ahead(following, self.plan.digests):
                done = attempt(checkpoint)
            yield done

    def usable_teacher(self) -> Model | ServedTeacher:
        """Give the teacher as scoring takes it."""
        return self.loaded_teacher()

    def loaded_teacher(self) -> Model:
        """Load the teacher; that it cannot be loaded is no fault of the checkpoint at hand."""
        try:
            return self.teacher.model
        except CheckpointError as error:
            raise InputError(f"The teacher cannot be loaded. {error}") from error

    def _runs(self, model: LazyModel) -> AbstractContextManager[None]:
        """Count what goes through the body of a model inside."""
        as_teacher = model is self.teacher
        used = self.usable_teacher() if as_teacher else model.model
        return self.store.account.running(used.forwarded, as_teacher=as_teacher)

    def _decides_sampling(self, writer: LazyModel) -> list[object]:
        """Give what decides which responses are drawn."""
        plan = self.plan
        drawable = [plan.tokenizer.size, writer.tokenizer.stop_ids]
        named = _named(writer.checkpoint)
        return [
            *[writer.key, named, plan.prompts_key(), asdict(plan.settings.sampling), plan.settings.dtype, *drawable],
            *self.decides_draws(writer),
        ]

    def decides_draws(self, writer: LazyModel) -> list[object]:
        """Give what of the sampler decides what a model draws; nothing where its server draws."""
        drawn_here = self.teacher_is_here or writer is not self.teacher
        return decides_draws(self.plan.settings) if drawn_here else []

    def _sampled(self, writer: LazyModel, key: str) -> Rollouts:
        self._check_teacher_takes_them()  # before hours of sampling, and before anything is written
        what, as_teacher = f"{writer.checkpoint.label}: sampling responses", writer is self.teacher
        keep = self.store.shards(key, ".jsonl", save=save_rollouts, load=load_rollouts)
        beside = by_vllm(self.plan.settings)
        vocabulary = self.plan.tokenizer.size
        sampler = sampler_of(writer, self.store, vocabulary=vocabulary, as_teacher=as_teacher)
        with nullcontext() if beside else self._runs(writer), sampler as sample:
            return tuple(
                sample(
                    self.plan.prompts,
                    sampling=self.plan.settings.sampling,
                    progress=lambda done, total: self.progress(what, done, total),
                    keep=self.store.account.sampling(keep, as_teacher=as_teacher, beside=beside),
                )
            )

    def _scored(self, student: LazyModel, states: str, rollouts: Rollouts, key: str) -> Scores:
        what = f"{student.checkpoint.label}: scoring {states} states, tokens"
        teacher = self.loaded_teacher()
        self._check_here(student, rollouts)
        keep = self.store.shards(key, ".safetensors", save=save_arrays, load=load_arrays)
        keep_student = self.hidden.states_of(student, rollouts, as_teacher=False) if self._outlives(states) else None
        again = self._used_again(states, rollouts)
        keep_teacher = self.hidden.states_of(self.teacher, rollouts, as_teacher=True) if again else None
        with self._runs(student), self._runs(self.teacher):
            return score(
                student.model,
                teacher,
                rollouts,
                states=states,
                student_temperature=self.plan.settings.student_temperature,
                teacher_temperature=self.plan.settings.teacher_temperature,
                progress=lambda done, total: self.progress(what, done, total),
                keep=self.store.account.scoring(keep),
                keep_student=keep_student,
                keep_teacher=keep_teacher,
            )

    def _check_here(self, student: LazyModel, rollouts: Rollouts) -> None:
        """Check heads that were checked in an earlier process perhaps, on another machine."""
        for model in self.here(student):
            if not model.checked:
                model.checked_on(longest_ids(rollouts))

    def _used_again(self, states: str, rollouts: Rollouts) -> bool:
        """Whether another checkpoint will be scored at these states: those of the start and of the teacher."""
        if self._outlives(states):
            return True
        several = len(self.plan.checkpoints) > 1
        own_of_first = states == "on-policy" and rollouts[0].provenance.weights == self.plan.first.label
        return several and (states in ("start", "teacher") or (own_of_first and "start" in self.plan.settings.states))

    def _left(
        self, student: LazyModel, states: str, rollouts: Rollouts, places: list[Place], *, as_teacher: bool
    ) -> Tensor | None:
        """Give one model's hidden states at some places where the scoring left them, else None."""
        if not self._outlives(states):
            return None
        return self.hidden.at((student, self.teacher), rollouts, places, as_teacher=as_teacher)

    def _outlives(self, states: str) -> bool:
        """Whether hidden states of this set are kept beyond this replay."""
        return self.beyond and states == "on-policy"

    def _check_teacher_takes_them(self) -> None:
        teacher, room = self.usable_teacher(), self.plan.settings.max_new_tokens
        for prompt in self.plan.prompts:
            length = len(prompt.teacher_ids) + room
            if teacher.context is not None and length > teacher.context:
                raise PromptsError(
                    f"Prompt {prompt.prompt.id} has {len(prompt.teacher_ids)} tokens; with --max-new-tokens {room} "
                    f"that exceeds the {teacher.context} tokens that the teacher takes. Lower --max-new-tokens or "
                    "leave the prompt out."
                )

    def _same_text(self, rollouts: Rollouts) -> Rollouts:
        """Give the responses of a model of this run, once it is sure that their ids mean the same to both models."""
        self.store.account.seen(self._meaning_the_same(rollouts))
        return rollouts

    def _meaning_the_same(self, rollouts: Rollouts) -> Rollouts:
        self._check_ids({i for r in rollouts for i in (*r.prompt_ids, *r.teacher_prompt_ids, *r.response_ids)})
        return rollouts

    def _check_ids(self, ids: set[int]) -> None:
        if self.plan.teacher_tokenizer is not None:
            check_same_ids(ids, self.plan.tokenizer, self.plan.teacher_tokenizer)


def _named(checkpoint: Checkpoint) -> list[object]:
    """Give what records call a checkpoint: a part of the same weights under another name is another part."""
    return [checkpoint.label, checkpoint.step]


def _prompts_of(rollouts: Rollouts) -> list[object]:
    """Give whose responses they are, in the words of the records."""
    return [[r.prompt_index, r.prompt_id, r.rollout_index] for r in rollouts]


def _save_fits(path: Path, fits: Fits) -> None:
    fits.save(path)


def _save_scores(path: Path, scores: Scores) -> None:
    scores.save(path)
