"""Which prompts a report uses: those of the prompts file, or those that recorded rollouts bring with them."""

from __future__ import annotations

from collections.abc import Sequence

from opd_diag.errors import InputError, RolloutsError
from opd_diag.inference.size import limits_of
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.prompt import Prompt, load_prompts
from opd_diag.records.rollout import Rollout
from opd_diag.records.settings import Settings
from opd_diag.replay.known_prompts import KnownPrompts
from opd_diag.replay.near import Near, near_rollouts
from opd_diag.replay.recorded import Given
from opd_diag.replay.retokenized import Room
from opd_diag.tokenization import EncodedPrompt, TeacherView, Tokenizer, encode_prompts, read_template


def chosen_prompts(
    settings: Settings, tokenizer: Tokenizer, recorded: dict[str, tuple[Rollout, ...]], near: Near
) -> tuple[list[EncodedPrompt], list[str]]:
    """Give the prompts that are sampled from, and what a reader must know of them.

    Rollouts that stand in for sampling bring theirs with them; those that a trainer recorded serve where no file is
    named.

    Raises
    ------
    InputError
        There are none, or the teacher is to see something else of prompts that are ids.
    PromptsError
        The file, or a prompt in it, cannot be used.
    """
    if recorded:
        _refuse_other_view(settings)
        prompts = _of_rollouts(recorded)
        used = {(r.provenance.temperature, r.provenance.top_p) for rollouts in recorded.values() for r in rollouts}
        how = " and ".join(f"temperature {t:g}, top-p {p:g}" for t, p in sorted(used))
        return prompts, [
            f"Responses of {', '.join(recorded)} were recorded ({how}); the sampling settings hold for the others.",
            f"Prompts are the {len(prompts)} of the recorded rollouts, at most --max-prompts {settings.max_prompts}.",
        ]
    if settings.prompts is None and near.rollouts:
        found = _of_rollouts(near.rollouts)
        prompts = found[: settings.max_prompts]
        return prompts, [f"Prompts are {len(prompts)} of the {len(found)} of the recorded rollouts (--max-prompts)."]
    if settings.prompts is None:
        raise InputError("No prompts. Name a file with --prompts, or as 'prompts' in opd-diag.toml of the run folder.")
    everything = load_prompts(settings.prompts)
    chosen = everything[: settings.max_prompts]
    left = len(everything) - len(chosen)
    notes = [f"The first {len(chosen)} of {len(everything)} prompts were used (--max-prompts)."] if left else []
    kwargs, view = settings.chat_template_kwargs, view_of(settings)
    encoded = encode_prompts(chosen, tokenizer, template_kwargs=kwargs, teacher=view)
    return encoded, notes


def near_of(
    settings: Settings, given: Given, checkpoints: Sequence[Checkpoint], teacher: Checkpoint, tokenizer: Tokenizer
) -> Near:
    """Give what a trainer recorded near the checkpoints; nothing where ``--rollouts`` names no such file.

    Raises
    ------
    RolloutsError
        None of it can be used, nor anything else that ``--rollouts`` names.
    """
    if not given.files and not given.in_training:
        return Near()
    stand_ins = _of_rollouts(given.stand_ins)
    named = settings.prompts is not None and not stand_ins
    known = KnownPrompts(
        tokenizer,
        load_prompts(str(settings.prompts)) if named else (),
        stand_ins,
        settings.chat_template_kwargs,
        view_of(settings),
    )
    loads = settings.trust_remote_code
    limits = [limits_of(model, trust_remote_code=loads) for model in (checkpoints[0], teacher)]
    rows = [ids for ids, _ in limits if ids is not None]
    room = Room(min([tokenizer.size, *rows]), limits[0][1], limits[1][1])
    try:
        return near_rollouts(settings, given.files, given.in_training, checkpoints, known, room)
    except RolloutsError as error:
        if not given.stand_ins:
            raise
        return Near(notes=(str(error),))


def view_of(settings: Settings) -> TeacherView:
    """Give what the teacher is to see in place of what the student sees."""
    template = None if settings.teacher_template is None else read_template(settings.teacher_template)
    return TeacherView(template=template, system_prompt=settings.teacher_system_prompt)


def _of_rollouts(by_writer: dict[str, tuple[Rollout, ...]]) -> list[EncodedPrompt]:
    """Give the prompts that rollouts answer, by index."""
    unique = {r.prompt_index: r for rollouts in by_writer.values() for r in rollouts}
    return [
        EncodedPrompt(index, Prompt(r.prompt_text, r.prompt_id, r.answer, r.group), r.prompt_ids, r.teacher_prompt_ids)
        for index, r in sorted(unique.items())
    ]


def _refuse_other_view(settings: Settings) -> None:
    if settings.teacher_template or settings.teacher_system_prompt:
        raise InputError(
            "Recorded rollouts bring what the teacher sees with them. Leave --teacher-template and "
            "--teacher-system-prompt out, or leave --rollouts out."
        )
