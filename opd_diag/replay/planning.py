"""Everything that can be known, and refused, before a model is loaded: of a run, or of models that belong to none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from opd_diag.errors import CheckpointError, InputError, RunFolderError
from opd_diag.inference import resolve_device, usable_dtype
from opd_diag.inference.device_maps import normal_form, read_device_maps
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.settings import NEAR_ON_POLICY, Settings, settings_from
from opd_diag.replay.near import Near
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.prompts import chosen_prompts, near_of
from opd_diag.replay.recorded import TEACHER_LABEL, given_rollouts, not_used
from opd_diag.replay.sampled import by_vllm, note_of_sampler, refuse_sampler
from opd_diag.replay.served import Served, check_ids_of_server, served_teacher, tokenizer_of, with_own_options
from opd_diag.replay.spread.engine import refuse_engine, runs_elsewhere
from opd_diag.replay.store import refuse_unfit
from opd_diag.runs import Manifest, find_run, read_manifest, select_checkpoints, step_zero
from opd_diag.runs.digests import DIGESTS, Digests
from opd_diag.runs.logged import logs_of_run
from opd_diag.runs.shapes import shape_difference
from opd_diag.servers import is_address
from opd_diag.tokenization import EncodedPrompt, Tokenizer, check_same_ids, load_tokenizer, tokenizer_differences


def plan_run(run_dir: str | Path, *, out: str | Path | None = None, **options: Any) -> ReplayPlan:
    """Check all that a replay of a run needs and say what it would do; load no weights, write nothing.

    Parameters
    ----------
    run_dir
        Folder of the run; nothing is ever written into it.
    out
        Folder for what is made; default :func:`default_out`.
    options
        Any field of :class:`~opd_diag.records.settings.Settings`; they win over ``opd-diag.toml`` of the run.

    Raises
    ------
    OpdDiagError
        The run, an option or a model cannot be used; the message says what to do.
    """
    run_dir = Path(run_dir)
    manifest = read_manifest(run_dir)
    settings = settings_from(options, manifest.settings, manifest.path)
    plan = make_plan(run_dir, settings, manifest, Digests.saved(default_out(run_dir, out) / DIGESTS))
    refuse_unfit(default_out(run_dir, out), run_dir, settings.store)
    return plan


def default_out(run_dir: str | Path, out: str | Path | None) -> Path:
    """Give `out`, or ``opd-diag/<run name>`` under the working directory."""
    return Path("opd-diag") / Path(run_dir).resolve().name if out is None else Path(os.path.expanduser(out))


def make_plan(run_dir: Path, settings: Settings, manifest: Manifest, digests: Digests | None = None) -> ReplayPlan:
    """Find, read and check everything a report needs; load no weights and write nothing.

    What `digests` know of the weight files need not be read again.

    Raises
    ------
    OpdDiagError
        Whatever is missing or cannot be used, one sentence with the way out.
    """
    run = find_run(
        run_dir,
        base_model=settings.base_model,
        student=settings.student,
        layout=settings.layout,
        manifest=manifest,
        steps=settings.steps or None,
        step_base=settings.step_base,
    )
    found = select_checkpoints(run.checkpoints, settings.checkpoints)
    checkpoints = [c for c in found if c.loadable]
    blocked = [c for c in found if not c.loadable]
    if not checkpoints:
        reasons = "; ".join(f"{c.label}: {c.blocker} {c.way_out or ''}".strip() for c in blocked[:3])
        text = f"None of the {len(blocked)} checkpoints of {run_dir} can be loaded. {reasons}"
        raise RunFolderError(text, code=blocked[0].code)
    checkpoints, notes = _with_step_zero(settings, checkpoints)
    logged = logs_of_run(run.folder, settings.logs, settings.beta)
    notes = [*run.notes, *notes, *not_used(settings, run.folder)]
    plan = _planned(run_dir, settings, checkpoints, notes, digests or Digests())
    return replace(plan, blocked=tuple(blocked), logged=logged, notes=(*plan.notes, *logged.notes))


def plan_models(
    settings: Settings, later: Mapping[str, str] | None = None, digests: Digests | None = None
) -> ReplayPlan:
    """Do what :func:`make_plan` does for models that belong to no run.

    Parameters
    ----------
    settings
        Their `student` is step 0; a folder or hub id.
    later
        What was trained from it since, by label, in order: folders or hub ids.
    digests
        As there.
    """
    if settings.tensor_parallel is not None:
        raise InputError(
            "--tensor-parallel holds one teacher for one report: report, doctor and horizon take it. Leave it out, or "
            "use --device-map auto."
        )
    if settings.student is None:
        raise InputError("No student. Name one with --student, a folder or hub id.")
    if settings.prompts is None:
        raise InputError("No prompts. Name a file with --prompts.")
    checkpoints = [step_zero(settings.student, (), base_model=settings.base_model)]
    for label, model in (later or {}).items():
        try:
            found = step_zero(model, (), base_model=settings.base_model)
        except CheckpointError as error:
            raise InputError(
                f"Model {model} ({label}): expected a model folder or hub id. Correct its name."
            ) from error
        checkpoints.append(replace(found, label=label, step=None))
    for checkpoint in checkpoints:
        if not checkpoint.loadable:
            way_out = checkpoint.way_out or ""
            raise CheckpointError(f"{checkpoint.path} cannot be loaded: {checkpoint.blocker} {way_out}".strip())
    _refuse_other_shape(checkpoints[0], checkpoints[1:])
    return _planned(Path(os.path.expanduser(settings.student)), settings, checkpoints, [], digests or Digests())


def _planned(
    run_dir: Path, settings: Settings, checkpoints: list[Checkpoint], notes: list[str], digests: Digests
) -> ReplayPlan:
    """Read and check all but the run itself, whose loadable checkpoints are given."""
    refuse_engine(settings)
    settings = with_own_options(settings)
    _refuse_two_places(settings)
    refuse_sampler(settings)
    dtype, too_slow = settings.dtype, None
    if not runs_elsewhere(settings):
        device, device_map = normal_form(settings.device, settings.device_map)
        dtype, too_slow = usable_dtype(settings.dtype, device)
        settings = replace(settings, device=device, device_map=device_map)
        resolve_device(settings.device)
    settings = replace(settings, dtype=dtype)
    notes = [*notes, *([too_slow] if too_slow else []), *note_of_sampler(settings)]
    _refuse_shared_file_names(checkpoints)
    served = served_teacher(settings, digests)
    teacher = served.checkpoint if served else _teacher(settings)
    tokenizer, teacher_tokenizer = _tokenizers(settings, checkpoints, teacher, served)
    given = given_rollouts(settings, checkpoints, teacher, digests, served.key if served else None)
    near = near_of(settings, given, checkpoints, teacher, tokenizer)
    settings = replace(settings, states=_with_near(settings, near))
    prompts, of_prompts = chosen_prompts(settings, tokenizer, given.stand_ins, near)
    notes += [*given.notes, *near.notes, *of_prompts]
    _refuse_other_tokenizer(checkpoints[0], tokenizer, prompts, settings.trust_remote_code)
    if teacher_tokenizer is None and served:
        if not check_ids_of_server(served, tokenizer, {i for p in prompts for i in (*p.ids, *p.teacher_ids)}):
            notes.append(
                "The teacher gives no text of ids; they are taken to mean what the student's mean. Name its "
                "tokenizer with --teacher-tokenizer to have that checked."
            )
    elif teacher_tokenizer is None:
        notes.append("The teacher brings no tokenizer; its ids are taken to mean what the student's mean.")
    else:
        check_same_ids({i for p in prompts for i in (*p.ids, *p.teacher_ids)}, tokenizer, teacher_tokenizer)
        notes += tokenizer_differences(tokenizer, teacher_tokenizer)
    return ReplayPlan(
        run_dir=run_dir,
        settings=settings,
        checkpoints=tuple(checkpoints),
        blocked=(),
        step_zero_known=checkpoints[0].step == 0,
        teacher=teacher,
        prompts=tuple(prompts),
        recorded=given.stand_ins,
        near=near.rollouts,
        fresh=near.fresh,
        tokenizer=tokenizer,
        teacher_tokenizer=teacher_tokenizer,
        served=served,
        notes=tuple(notes + [c.note for c in checkpoints if c.note]),
        other_dtype=too_slow,
        digests=digests,
    )


def _refuse_two_places(settings: Settings) -> None:
    """Refuse a teacher that is to be in shards and elsewhere."""
    if settings.tensor_parallel is None:
        return
    if settings.teacher is not None and is_address(settings.teacher):
        raise InputError(
            f"--tensor-parallel loads the teacher here, found {settings.teacher}, which its server has. Leave it out."
        )
    if by_vllm(settings):
        raise InputError(
            "--sampler vllm loads whole models to sample them, and --tensor-parallel is for a teacher too large for "
            "that. Leave one of them out."
        )
    if "teacher" in read_device_maps(settings.device_map):
        raise InputError(
            "--tensor-parallel and --device-map both say where the teacher is. Leave one out, or let the map name "
            'the student alone: {"student": "auto"}.'
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
    settings: Settings, checkpoints: Sequence[Checkpoint], teacher: Checkpoint, served: Served | None
) -> tuple[Tokenizer, Tokenizer | None]:
    own = next((c.tokenizer for c in reversed(checkpoints) if c.tokenizer), None)
    base = next((c.base_model for c in checkpoints if c.base_model), None)
    source = settings.tokenizer or own or base or teacher.tokenizer
    if source is None:
        raise InputError(
            "No tokenizer: none lies in the checkpoints, beside them or with the teacher. Name one with --tokenizer.",
            code="TOKENIZER_MISSING",
        )
    load = settings.trust_remote_code
    theirs = tokenizer_of(settings, served) if served else teacher.tokenizer or teacher.base_model
    return (
        load_tokenizer(source, trust_remote_code=load),
        None if theirs is None else load_tokenizer(theirs, trust_remote_code=load),
    )


def _with_near(settings: Settings, near: Near) -> tuple[str, ...]:
    """Give the state sets, that of recorded rollouts last where there are such."""
    others = tuple(states for states in settings.states if states != NEAR_ON_POLICY)
    if NEAR_ON_POLICY in settings.states and not near.rollouts:
        raise InputError(
            f"State set {NEAR_ON_POLICY} needs responses that a trainer recorded, and --rollouts names none. Name "
            "their file or folder, or leave the set out of --states."
        )
    if not others:
        raise InputError(
            f"State set {NEAR_ON_POLICY} is scored beside others: name one more in --states, as {NEAR_ON_POLICY},start."
        )
    return (*others, NEAR_ON_POLICY) if near.rollouts else others
