"""Prefixes continued by the last checkpoint and the teacher, each part kept in the store."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial

from opd_diag.inference.served_sampling import sample_served
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key
from opd_diag.records.rollout import Rollout, load_rollouts, save_rollouts
from opd_diag.replay.lazy import LazyModel
from opd_diag.replay.parts import SAMPLED_VERSION, Parts, Progress
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.prefixes import Prefix
from opd_diag.replay.sampled import Sample, sampler_of
from opd_diag.replay.served_parts import ServedParts
from opd_diag.replay.store import Store
from opd_diag.tables.continuations import NONE, STUDENT, THEIRS, Continuation

CONTINUED_VERSION = 1
"""Raised whenever the same prefixes would be continued otherwise, or their records read otherwise."""

_KINDS = {NONE: "empty"}
"""What progress calls kinds of prefixes that have another name there."""

Grade = Callable[[Sequence[int], Rollout], bool | None]
"""(ids of a response or of a part of it, a response to the same prompt) → whether they give the answer."""


@dataclass(frozen=True)
class Continuing:
    """What continues prefixes in one store."""

    plan: ReplayPlan
    store: Store
    student: Checkpoint
    times: int
    """Continuations of each prefix by each model."""
    grade: Grade
    progress: Progress

    def of_prefixes(self, prefixes: Mapping[str, Sequence[Prefix]], depths: Sequence[int]) -> list[Continuation]:
        """Let both models go on after every prefix at every depth; what is stored is read.

        Parameters
        ----------
        prefixes
            By kind.
        depths
            In tokens; responses end where those of the replay do, so that a deeper prefix leaves less room.

        Raises
        ------
        ModelError
            A model cannot be sampled from.
        """
        found: list[Continuation] = []
        for writer in (STUDENT, THEIRS):
            with self._sampler(writer) as sample:
                for kind, of in prefixes.items():
                    for place, depth in enumerate(depths):
                        found += self._continued(writer, sample, kind, of, depth, (place, len(depths)))
        return found

    def of_nothing(
        self, own: Sequence[Rollout], theirs: Sequence[Rollout], prefixes: Sequence[Prefix]
    ) -> list[Continuation]:
        """Give whole responses: those of the replay, or new ones where these were recorded, who knows how.

        Parameters
        ----------
        own, theirs
            Responses of the student and of the teacher.
        prefixes
            Of the student's; what is drawn anew answers the same prompts as often.
        """
        found: list[Continuation] = []
        for writer, rollouts in ((STUDENT, own), (THEIRS, theirs)):
            if all(rollout.provenance.origin == "sampled" for rollout in rollouts):
                graded = ((rollout, self._with_grade(rollout)) for rollout in rollouts)
                found += [Continuation(NONE, 0, writer, of, rollout.rollout_index) for rollout, of in graded]
            else:
                with self._sampler(writer) as sample:
                    found += self._continued(writer, sample, NONE, prefixes, 0, (0, 1))
        return found

    @cached_property
    def _parts(self) -> Parts:
        about = self.plan, self.store, self.progress
        return Parts(*about) if self.plan.served is None else ServedParts(*about)

    @cached_property
    def _writers(self) -> dict[str, LazyModel]:
        return {STUDENT: self._parts.student(self.student), THEIRS: self._parts.teacher}

    def _sampler(self, writer: str) -> AbstractContextManager[Sample]:
        model, size = self._writers[writer], self.plan.tokenizer.size
        if isinstance(self._parts, ServedParts) and model is self._parts.teacher:
            about = self._parts.server, model.tokenizer
            return nullcontext(partial(sample_served, *about, label=model.checkpoint.label))
        return sampler_of(model, self.store, vocabulary=size, as_teacher=model.checkpoint == self.plan.teacher)

    def _continued(
        self, writer: str, sample: Sample, kind: str, prefixes: Sequence[Prefix], depth: int, place: tuple[int, int]
    ) -> list[Continuation]:
        if not prefixes:
            return []
        begun = {(p.rollout.prompt_index, p.rollout.rollout_index): p for p in prefixes}
        return [
            self._graded(kind, depth, writer, begun[r.prompt_index, r.rollout_index // self.times], r)
            for r in self._part(self._writers[writer], sample, kind, prefixes, depth, place)
        ]

    def _part(
        self,
        model: LazyModel,
        sample: Sample,
        kind: str,
        prefixes: Sequence[Prefix],
        depth: int,
        place: tuple[int, int],
    ) -> tuple[Rollout, ...]:
        settings = self.plan.settings
        sampling = replace(
            settings.sampling,
            rollouts_per_prompt=self.times,
            max_new_tokens=settings.max_new_tokens - depth,
            seed=zlib.crc32(f"{settings.seed} {kind} {depth}".encode()),  # not the numbers that drew the prefix
        )
        prompts = [prefix.prompt(i, depth) for i, prefix in enumerate(prefixes)]
        key = content_key(
            [
                ["continued", CONTINUED_VERSION, SAMPLED_VERSION, model.key, model.checkpoint.label, depth],
                [[p.ids, p.teacher_ids, p.prompt.answer, p.prompt.id] for p in prompts],
                [[p.rollout.prompt_index, p.rollout.rollout_index] for p in prefixes],
                [asdict(sampling), settings.dtype, self.plan.tokenizer.size, model.tokenizer.stop_ids],
                *self._parts.decides_draws(model),
            ]
        )

        what, (number, parts) = f"{model.checkpoint.label}: continuing {_KINDS.get(kind, kind)} prefixes", place

        def made() -> tuple[Rollout, ...]:
            drawn = sample(
                prompts,
                sampling=sampling,
                progress=lambda done, total: self.progress(what, number * total + done, parts * total),
                keep=self.store.shards(key, ".jsonl", save=save_rollouts, load=load_rollouts),
            )
            return tuple(self._joined(prefixes[r.prompt_index], depth, r) for r in drawn)

        name = f"continuations/{model.checkpoint.slug}.{kind}.{depth:06d}.jsonl"
        return self.store.part(name, key, make=made, save=save_rollouts, load=lambda path: tuple(load_rollouts(path)))

    def _joined(self, prefix: Prefix, depth: int, drawn: Rollout) -> Rollout:
        """Make prefix and continuation one response, of which the prefix was not generated."""
        ids, of, tokenizer = (*prefix.ids[:depth], *drawn.response_ids), prefix.rollout, self.plan.tokenizer
        return replace(
            drawn,
            prompt_index=of.prompt_index,
            rollout_index=of.rollout_index * self.times + drawn.rollout_index,
            prompt_ids=of.prompt_ids,
            teacher_prompt_ids=of.teacher_prompt_ids,
            response_ids=ids,
            generated=(False,) * depth + (True,) * len(drawn.response_ids),
            sampled_logprobs=None,
            is_correct=None,  # graded when it is read
            prompt_text=of.prompt_text,
            response_text=tokenizer.text(ids),
        )

    def _graded(self, kind: str, depth: int, writer: str, of: Prefix, rollout: Rollout) -> Continuation:
        return Continuation(
            prefix=kind,
            depth=depth,
            writer=writer,
            rollout=self._with_grade(rollout),
            of_rollout=of.rollout.rollout_index,
            of_correct=self.grade(of.rollout.response_ids, of.rollout),
            is_answered=self.grade(of.ids[:depth], of.rollout),
        )

    def _with_grade(self, rollout: Rollout) -> Rollout:
        return replace(rollout, is_correct=self.grade(rollout.response_ids, rollout))
