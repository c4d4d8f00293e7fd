"""Everything that can be known, and refused, before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from opd_diag.errors import CheckpointError, InputError, RunFolderError
from opd_diag.inference import resolve_device, usable_dtype
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key
from opd_diag.records.prompt import Prompt, load_prompts
from opd_diag.records.rollout import Rollout
from opd_diag.records.settings import Settings
from opd_diag.replay.recorded import TEACHER_LABEL, recorded_rollouts
from opd_diag.runs import Manifest, find_checkpoints, select_checkpoints, step_zero
from opd_diag.runs.digests import Digests
from opd_diag.runs.shapes import shape_difference
from opd_diag.tokenization import (
    EncodedPrompt,
    TeacherView,
    Tokenizer,
    check_same_ids,
    encode_prompts,
    load_tokenizer,
    read_template,
    tokenizer_differences,
)


@dataclass(frozen=True)
class ReplayPlan:
    """What a report will do: which weights, on which prompts, with which settings."""

    run_dir: Path
    settings: Settings
    checkpoints: tuple[Checkpoint, ...]
    """Those to score, step 0 first where it is known."""
    blocked: tuple[Checkpoint, ...]
    """Those that cannot be loaded; the report names them."""
    step_zero_known: bool
    """Whether the first checkpoint is the initial student."""
    teacher: Checkpoint
    prompts: tuple[EncodedPrompt, ...]
    recorded: dict[str, tuple[Rollout, ...]]
    """Recorded rollouts by the label of the checkpoint that wrote them; the other checkpoints sample."""
    tokenizer: Tokenizer
    teacher_tokenizer: Tokenizer | None
    """None when the teacher brings none."""
    notes: tuple[str, ...]
    """What a reader of the report must know."""
    other_dtype: str | None = None
    """Why bodies run in another precision than was asked for; None where they do not."""
    digests: Digests = field(default_factory=Digests, compare=False, repr=False)
    """What is known of the files of all these."""

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.run_dir.resolve().name

    @property
    def first(self) -> Checkpoint:
        """The checkpoint whose rollouts make the ``start`` state set."""
        return self.checkpoints[0]

    def prompts_key(self) -> str:
        """Give a key of the ids that both models see."""
        return content_key(
            [[p.index, p.prompt.id, p.prompt.answer, p.prompt.group, p.ids, p.teacher_ids] for p in self.prompts]
        )

    def description(self) -> list[str]:
        """Say what the report will cost, one line a fact."""
        settings = self.settings
        responses = len(self.prompts) * settings.rollouts_per_prompt
        writers = [*self.checkpoints, *([self.teacher] if "teacher" in settings.states else [])]
        sampled = [c for c in writers if c.label not in self.recorded]
        # the first checkpoint's own states are the start's, and step 0 scoring them is the same again
        repeated = len({"on-policy", "start", "back"} & {*settings.states}) - 1
        passes = len(self.checkpoints) * len(settings.states) - max(0, repeated)
        start = os.path.normpath(self.first.path) if self.step_zero_known else "unknown (name it with --student)"
        return [
            f"run          {self.run_dir} ({len(self.checkpoints)} checkpoints: "
            f"{', '.join(c.label for c in self.checkpoints)})",
            f"teacher      {os.path.normpath(self.teacher.path)}",
            f"step 0       {start}",
            f"prompts      {len(self.prompts)} × {settings.rollouts_per_prompt} rollouts of at most "
            f"{settings.max_new_tokens} tokens, temperature {settings.temperature:g}, top-p {settings.top_p:g}, "
            f"seed {settings.seed}",
            f"to sample    {len(sampled)} models × {responses} responses "
            f"(at most {len(sampled) * responses * settings.max_new_tokens:,} tokens)",
            f"to score     {passes} sets of states ({', '.join(settings.states)}), each by a student; the teacher runs "
            "once over those that several share",
        ]


def make_plan(run_dir: Path, settings: Settings, manifest: Manifest, digests: Digests | None = None) -> ReplayPlan:
    """Find, read and check everything a report needs; load no weights and write nothing.

    What `digests` know of the weight files need not be read again.

    Raises
    ------
    OpdDiagError
        Whatever is missing or cannot be used, one sentence with the way out.
    """
    dtype, too_slow = usable_dtype(settings.dtype, settings.device)
    settings = replace(settings, dtype=dtype)
    digests = digests or Digests()
    found = find_checkpoints(run_dir, base_model=settings.base_model, layout=settings.layout, manifest=manifest)
    found = select_checkpoints(found, settings.checkpoints)
    checkpoints = [c for c in found if c.loadable]
    blocked = [c for c in found if not c.loadable]
    if not checkpoints:
        reasons = "; ".join(f"{c.label}: {c.blocker} {c.way_out or ''}".strip() for c in blocked[:3])
        raise RunFolderError(f"None of the {len(blocked)} checkpoints of {run_dir} can be loaded. {reasons}")
    checkpoints, notes = _with_step_zero(settings, checkpoints)
    notes += [too_slow] if too_slow else []
    _refuse_shared_file_names(checkpoints)
    resolve_device(settings.device)
    teacher = _teacher(settings)
    tokenizer, teacher_tokenizer = _tokenizers(settings, checkpoints, teacher)
    recorded, of_recorded = recorded_rollouts(settings, checkpoints, teacher, digests)
    notes += of_recorded
    prompts, of_prompts = _prompts(settings, tokenizer, recorded)
    notes += of_prompts
    _refuse_other_tokenizer(checkpoints[0], tokenizer, prompts, settings.trust_remote_code)
    if teacher_tokenizer is None:
        notes.append("The teacher brings no tokenizer; its ids are taken to mean what the student's mean.")
    else:
        check_same_ids({i for p in prompts for i in (*p.ids, *p.teacher_ids)}, tokenizer, teacher_tokenizer)
        notes += tokenizer_differences(tokenizer, teacher_tokenizer)
    return ReplayPlan(
        run_dir=run_dir,
        settings=settings,
        checkpoints=tuple(checkpoints),
        blocked=tuple(blocked),
        step_zero_known=checkpoints[0].step == 0,
        teacher=teacher,
        prompts=tuple(prompts),
        recorded=recorded,
        tokenizer=tokenizer,
        teacher_tokenizer=teacher_tokenizer,
        notes=tuple(notes + [c.note for c in checkpoints if c.note]),
        other_dtype=too_slow,
        digests=digests,
    )


def _with_step_zero(settings: Settings, checkpoints: list[Checkpoint]) -> tuple[list[Checkpoint], list[str]]:
    """Put the initial student first: the one named, or the one base model of a run of adapters."""
    bases = {c.base_model for c in checkpoints}
    student, notes = settings.student, []
    if student is None and checkpoints[0].step != 0 and len(bases) == 1 and None not in bases:
        student = str(bases.pop())
        notes.append(f"Step 0 is {student}, the model under the adapters. Name another with --student.")
    if student is None:
        return checkpoints, notes
    start = step_zero(student, checkpoints, base_model=settings.base_model if settings.student else None)
    if not start.loadable:
        raise CheckpointError(f"The student (step 0) cannot be loaded: {start.blocker} {start.way_out or ''}".strip())
    _refuse_other_shape(start, checkpoints)
    return [start, *(c for c in checkpoints if c != start)], notes


def _refuse_other_shape(start: Checkpoint, checkpoints: Sequence[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        difference = shape_difference(start, checkpoint)
        if difference:
            raise InputError(
                f"The student (step 0) {start.path} cannot be what {checkpoint.label} was trained from: {difference}. "
                "Name the model that the training started from with --student."
            )


def _refuse_other_tokenizer(
    first: Checkpoint, tokenizer: Tokenizer, prompts: Sequence[EncodedPrompt], trust_remote_code: bool
) -> None:
    """Refuse an initial student that reads the prompts' ids, or the stop token, in another way than the run does."""
    if first.tokenizer is None or first.tokenizer == tokenizer.source:
        return
    check_same_ids(
        {*tokenizer.stop_ids, *(i for prompt in prompts for i in prompt.ids)},
        load_tokenizer(first.tokenizer, trust_remote_code=trust_remote_code),
        tokenizer,
        roles=(f"student of {first.label}", "run"),
        way_out="Name the model that training started from with --student, or the run's tokenizer with --tokenizer.",
    )


def _refuse_shared_file_names(checkpoints: Sequence[Checkpoint]) -> None:
    slugs = ["start", TEACHER_LABEL, *(c.slug for c in checkpoints)]  # rollouts/start.jsonl is the start's set
    for checkpoint in checkpoints:
        if slugs.count(checkpoint.slug) > 1:
            raise RunFolderError(
                f"Checkpoint {checkpoint.path} would be stored as {checkpoint.slug}, which is taken. Rename it, or "
                "choose others with --checkpoints."
            )


def _teacher(settings: Settings) -> Checkpoint:
    if settings.teacher is None:
        raise InputError("No teacher. Name one with --teacher, or as 'teacher' in opd-diag.toml of the run folder.")
    try:
        teacher = step_zero(settings.teacher, (), base_model=settings.base_model)
    except CheckpointError as error:
        raise InputError(
            f"Teacher {settings.teacher}: expected a model folder or hub id. Correct --teacher."
        ) from error
    if not teacher.loadable:
        raise InputError(f"The teacher cannot be loaded: {teacher.blocker} {teacher.way_out or ''}".strip())
    return replace(teacher, label=TEACHER_LABEL, step=None)


def _tokenizers(
    settings: Settings, checkpoints: Sequence[Checkpoint], teacher: Checkpoint
) -> tuple[Tokenizer, Tokenizer | None]:
    own = next((c.tokenizer for c in reversed(checkpoints) if c.tokenizer), None)
    base = next((c.base_model for c in checkpoints if c.base_model), None)
    source = settings.tokenizer or own or base or teacher.tokenizer
    if source is None:
        raise InputError(
            "No tokenizer: none lies in the checkpoints, beside them or with the teacher. Name one with --tokenizer."
        )
    load = settings.trust_remote_code
    theirs = teacher.tokenizer or teacher.base_model
    return (
        load_tokenizer(source, trust_remote_code=load),
        None if theirs is None else load_tokenizer(theirs, trust_remote_code=load),
    )


def _prompts(
    settings: Settings, tokenizer: Tokenizer, recorded: dict[str, tuple[Rollout, ...]]
) -> tuple[list[EncodedPrompt], list[str]]:
    if recorded:
        if settings.teacher_template or settings.teacher_system_prompt:
            raise InputError(
                "Recorded rollouts bring what the teacher sees with them. Leave --teacher-template and "
                "--teacher-system-prompt out, or leave --rollouts out."
            )
        unique = {r.prompt_index: r for rollouts in recorded.values() for r in rollouts}
        prompts = [
            EncodedPrompt(
                index, Prompt(r.prompt_text, r.prompt_id, r.answer, r.group), r.prompt_ids, r.teacher_prompt_ids
            )
            for index, r in sorted(unique.items())
        ]
        used = {(r.provenance.temperature, r.provenance.top_p) for rollouts in recorded.values() for r in rollouts}
        how = " and ".join(f"temperature {t:g}, top-p {p:g}" for t, p in sorted(used))
        return prompts, [
            f"Responses of {', '.join(recorded)} were recorded ({how}); the sampling settings hold for the others.",
            f"Prompts are the {len(prompts)} of the recorded rollouts, at most --max-prompts {settings.max_prompts}.",
        ]
    if settings.prompts is None:
        raise InputError("No prompts. Name a file with --prompts, or as 'prompts' in opd-diag.toml of the run folder.")
    everything = load_prompts(settings.prompts)
    chosen = everything[: settings.max_prompts]
    left = len(everything) - len(chosen)
    notes = [f"The first {len(chosen)} of {len(everything)} prompts were used (--max-prompts)."] if left else []
    template = None if settings.teacher_template is None else read_template(settings.teacher_template)
    view = TeacherView(template=template, system_prompt=settings.teacher_system_prompt)
    encoded = encode_prompts(chosen, tokenizer, template_kwargs=settings.chat_template_kwargs, teacher=view)
    return encoded, notes
