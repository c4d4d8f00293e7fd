"""The parts of a replay: of each, what it is made from (its key), how it is made, and how it is read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from opd_diag.errors import CheckpointError, InputError, PromptsError
from opd_diag.inference import HeadCheck, Model, sample_rollouts, score
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key, write_json
from opd_diag.records.rollout import Rollout, load_rollouts, save_rollouts
from opd_diag.records.scores import SCORES_VERSION, Scores, load_arrays, save_arrays
from opd_diag.replay.coverage import COVERAGE_VERSION, coverage_of, covered_states, equal_places
from opd_diag.replay.lazy import LazyModel, longest_ids
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.store import Store
from opd_diag.tables import save_coverage
from opd_diag.tokenization import check_same_ids

Progress = Callable[[str, int, int], None]
"""(what is being done, units done, units in all)."""

SAMPLED_VERSION = 1
"""Raised whenever the same model and prompts would give other responses, or the same responses other records."""

Rollouts = tuple[Rollout, ...]


class Parts:
    """The parts of one replay, each found in the store or made now."""

    def __init__(self, plan: ReplayPlan, store: Store, progress: Progress) -> None:
        self.plan, self.store, self.progress = plan, store, progress
        tokenizer = plan.teacher_tokenizer or plan.tokenizer
        self.teacher = LazyModel(plan.teacher, plan.settings, plan.teacher.path.resolve().name, tokenizer)

    def student(self, checkpoint: Checkpoint) -> LazyModel:
        """Give a checkpoint as a model that is not loaded yet."""
        return LazyModel(checkpoint, self.plan.settings, checkpoint.label, self.plan.tokenizer)

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

    def head_check(self, model: LazyModel, rollouts: Rollouts) -> HeadCheck:
        """Give the check of a model's head."""
        ids = longest_ids(rollouts)

        def made() -> HeadCheck:
            if model is self.teacher:
                self.loaded_teacher()
            return model.checked_on(ids)

        check = self.store.part(
            f".checks/{model.checkpoint.slug}.json",
            content_key(["head", model.key, _named(model.checkpoint), self.plan.settings.dtype, ids]),
            make=made,
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
                [student.key, self.teacher.key, settings.dtype],
                [settings.student_temperature, settings.teacher_temperature],
                [student.tokenizer.stop_ids, self.teacher.tokenizer.stop_ids],
                _decides_scores(rollouts),
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

    def coverage(self, checkpoint: Checkpoint, of_teacher: Rollouts, own: Rollouts) -> pd.DataFrame:
        """Tell which of the teacher's states lie near one of the checkpoint's own."""
        places = equal_places(of_teacher, own)

        def made() -> pd.DataFrame:
            teacher = self.loaded_teacher()
            covered = covered_states(teacher, of_teacher, own, places)
            return coverage_of(checkpoint, teacher.name, of_teacher, places[0], covered)

        key = [
            ["coverage", COVERAGE_VERSION, _named(checkpoint), self.teacher.key, self.plan.settings.dtype, places],
            *([_decides_scores(rollouts), _prompts_of(rollouts)] for rollouts in (of_teacher, own)),
        ]
        name = f"coverage/{checkpoint.slug}.parquet"
        table = self.store.part(name, content_key(key), make=made, save=save_coverage, load=pd.read_parquet)
        return table.assign(teacher=self.teacher.name)

    def loaded_teacher(self) -> Model:
        """Load the teacher; that it cannot be loaded is no fault of the checkpoint at hand."""
        try:
            return self.teacher.model
        except CheckpointError as error:
            raise InputError(f"The teacher cannot be loaded. {error}") from error

    def _decides_sampling(self, writer: LazyModel) -> list[object]:
        """Give what decides which responses are drawn."""
        plan = self.plan
        drawable = [plan.tokenizer.size, writer.tokenizer.stop_ids]
        named = _named(writer.checkpoint)
        return [writer.key, named, plan.prompts_key(), asdict(plan.settings.sampling), plan.settings.dtype, *drawable]

    def _sampled(self, writer: LazyModel, key: str) -> Rollouts:
        self._check_teacher_takes_them()  # before hours of sampling, and before anything is written
        what = f"{writer.checkpoint.label}: sampling responses"
        return tuple(
            sample_rollouts(
                writer.model,
                writer.tokenizer,
                self.plan.prompts,
                sampling=self.plan.settings.sampling,
                vocabulary=self.plan.tokenizer.size,
                as_teacher=writer is self.teacher,
                progress=lambda done, total: self.progress(what, done, total),
                keep=self.store.shards(key, ".jsonl", save=save_rollouts, load=load_rollouts),
            )
        )

    def _scored(self, student: LazyModel, states: str, rollouts: Rollouts, key: str) -> Scores:
        what = f"{student.checkpoint.label}: scoring {states} states, tokens"
        teacher = self.loaded_teacher()
        for model in (student, self.teacher):
            if not model.checked:  # in an earlier process perhaps, on another machine
                model.checked_on(longest_ids(rollouts))
        return score(
            student.model,
            teacher,
            rollouts,
            states=states,
            student_temperature=self.plan.settings.student_temperature,
            teacher_temperature=self.plan.settings.teacher_temperature,
            progress=lambda done, total: self.progress(what, done, total),
            keep=self.store.shards(key, ".safetensors", save=save_arrays, load=load_arrays),
        )

    def _check_teacher_takes_them(self) -> None:
        teacher, room = self.loaded_teacher(), self.plan.settings.max_new_tokens
        for prompt in self.plan.prompts:
            length = len(prompt.teacher_ids) + room
            if teacher.context is not None and length > teacher.context:
                raise PromptsError(
                    f"Prompt {prompt.prompt.id} has {len(prompt.teacher_ids)} tokens; with --max-new-tokens {room} "
                    f"that exceeds the {teacher.context} tokens that the teacher takes. Lower --max-new-tokens or "
                    "leave the prompt out."
                )

    def _same_text(self, rollouts: Rollouts) -> Rollouts:
        """Give the rollouts, once it is sure that their ids mean the same to both models."""
        self._check_ids({i for r in rollouts for i in (*r.prompt_ids, *r.teacher_prompt_ids, *r.response_ids)})
        return rollouts

    def _check_ids(self, ids: set[int]) -> None:
        if self.plan.teacher_tokenizer is not None:
            check_same_ids(ids, self.plan.tokenizer, self.plan.teacher_tokenizer)


def _named(checkpoint: Checkpoint) -> list[object]:
    """Give what records call a checkpoint: a part of the same weights under another name is another part."""
    return [checkpoint.label, checkpoint.step]


def _decides_scores(rollouts: Rollouts) -> list[object]:
    """Give what of rollouts decides their scores."""
    return [[r.prompt_ids, r.teacher_prompt_ids, r.response_ids, r.stop_reason, r.generated] for r in rollouts]


def _prompts_of(rollouts: Rollouts) -> list[object]:
    """Give whose responses they are, in the words of the records."""
    return [[r.prompt_index, r.prompt_id, r.rollout_index] for r in rollouts]


def _save_scores(path: Path, scores: Scores) -> None:
    scores.save(path)
