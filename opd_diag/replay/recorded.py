"""What ``--rollouts`` names: rollouts that stand in for sampling, and files that a trainer recorded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from opd_diag.errors import RolloutsError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Rollout, in_training, load_rollouts
from opd_diag.records.settings import Settings
from opd_diag.runs import fingerprint
from opd_diag.runs.digests import Digests
from opd_diag.runs.recorded import RecordedFile, find_recorded, recorded_file
from opd_diag.runs.recorded.formats import KNOWN
from opd_diag.runs.recorded.lines import first_fields

TEACHER_LABEL = "teacher"
"""What records call the teacher, whatever its folder."""

OURS = "opd-diag"
"""Name of our own format."""


@dataclass(frozen=True)
class Given:
    """What ``--rollouts`` gives; empty without it."""

    stand_ins: dict[str, tuple[Rollout, ...]] = field(default_factory=dict)
    """Rollouts by the label of the checkpoint (or the teacher) that wrote them; they stand in for sampling."""
    in_training: tuple[Rollout, ...] = ()
    """Rollouts of ours that are of weights in training (:func:`~opd_diag.records.rollout.in_training`)."""
    files: tuple[RecordedFile, ...] = ()
    """Files of trainers."""
    notes: tuple[str, ...] = ()
    """What a reader must know."""


def given_rollouts(
    settings: Settings,
    checkpoints: Sequence[Checkpoint],
    teacher: Checkpoint,
    digests: Digests,
    teacher_key: str | None = None,
) -> Given:
    """Look into ``--rollouts``, a file or a folder of them, and keep what this run can use; read those of ours alone.

    `teacher_key` is that of a teacher whose weights are not here.

    Raises
    ------
    RolloutsError
        They are of no known format, of other weights, of several sets of prompts, or of none of these checkpoints.
    """
    if settings.rollouts is None:
        return Given()
    path = Path(settings.rollouts)
    ours, files = _files(path)
    writers = {c.label: c for c in (*checkpoints, *([teacher] if "teacher" in settings.states else []))}
    by_label: dict[str, dict[tuple[int, int], Rollout]] = {}
    written, others = set(), []
    for rollout in (r for file in ours for r in load_rollouts(file)):
        label, step = rollout.provenance.weights, rollout.provenance.step
        written.add(label)
        if step is not None and label == in_training(step):
            others.append(rollout)
        elif label in writers and rollout.prompt_index < settings.max_prompts:
            # start.jsonl repeats the first checkpoint's own file: one copy is enough
            by_label.setdefault(label, {})[rollout.prompt_index, rollout.rollout_index] = rollout
    keys = {
        label: teacher_key if teacher_key and label == TEACHER_LABEL else fingerprint(writers[label], digests)
        for label in by_label
    }
    notes = _without_another_teachers(path, by_label, keys)
    _refuse_foreign(path, by_label, keys)
    if not by_label and not others and not files:
        raise RolloutsError(
            f"The rollouts in {path} were written by {', '.join(sorted(written))}, the run has "
            f"{', '.join(c.label for c in checkpoints)}. Leave --rollouts out to sample new ones."
        )
    stand_ins = {label: tuple(chosen[key] for key in sorted(chosen)) for label, chosen in by_label.items()}
    return Given(stand_ins, tuple(others), tuple(files), tuple(notes))


def _files(path: Path) -> tuple[list[Path], list[RecordedFile]]:
    """Tell files of ours and of trainers apart, by names and first lines."""
    if not path.is_dir():
        file = _told(path)
        return ([path], []) if file is None or file.format == OURS else ([], [file])
    found = find_recorded(path)
    files = [file for file in found if file.format != OURS]
    ours = {file.path.absolute() for file in found if file.format == OURS}
    beside = {entry.absolute() for entry in path.glob("*.jsonl")} - {file.path.absolute() for file in files}
    # what lies in a folder of rollouts must be rollouts; what lies in that of a run need not
    strict = all(file.path.parent == path.absolute() for file in found) and not files
    ours |= {entry for entry in beside if strict or _is_ours(entry)}
    if not ours and not files:
        raise RolloutsError(f"No rollouts in {path}. {KNOWN} Name their file or folder with --rollouts.")
    return sorted(ours), files


def _told(path: Path) -> RecordedFile | None:
    """Tell what one file is; None where it looks like rollouts of ours that have a fault."""
    try:
        return recorded_file(path)
    except RolloutsError:
        with suppress(OSError):  # what cannot be read is told by the error there is
            if path.is_file() and path.suffix == ".jsonl" and "prompt_index" in first_fields(path):
                return None
        raise


def _is_ours(path: Path) -> bool:
    try:
        return recorded_file(path).format == OURS
    except RolloutsError:
        return False


def _without_another_teachers(
    path: Path, by_label: dict[str, dict[tuple[int, int], Rollout]], keys: Mapping[str, str]
) -> list[str]:
    """Take out responses of another teacher: the students' beside them are as good for this one."""
    theirs = by_label.get(TEACHER_LABEL, {})
    if all(r.provenance.weights_key in ("", keys[TEACHER_LABEL]) for r in theirs.values()):
        return []
    del by_label[TEACHER_LABEL]
    return [f"The teacher's responses in {path} are of another teacher and were not used."]


def _refuse_foreign(path: Path, by_label: dict[str, dict[tuple[int, int], Rollout]], keys: Mapping[str, str]) -> None:
    """Refuse rollouts of other weights under the same label, two prompts under one index, no states."""
    empty = [label for label, rollouts in by_label.items() if not any(r.state_positions for r in rollouts.values())]
    if empty:
        raise RolloutsError(
            f"The rollouts of {empty[0]} in {path} hold no response token. Take them out to have new ones sampled."
        )
    prompts: dict[int, tuple[tuple[int, ...], ...]] = {}
    for label, rollouts in by_label.items():
        for rollout in rollouts.values():
            if rollout.provenance.weights_key not in ("", keys[label]):
                raise RolloutsError(
                    f"The rollouts of {label} in {path} were written by other weights than the {label} of this run, "
                    "or by an opd-diag that knew weights by another key. Give rollouts of this very run, or leave "
                    "--rollouts out to sample new ones."
                )
            seen = rollout.prompt_ids, rollout.teacher_prompt_ids
            if prompts.setdefault(rollout.prompt_index, seen) != seen:
                raise RolloutsError(
                    f"The rollouts in {path} have two different prompts numbered {rollout.prompt_index}. Give rollouts "
                    "of one set of prompts."
                )


def not_used(settings: Settings, run_dir: Path) -> list[str]:
    """Say which responses lie recorded in the run folder where ``--rollouts`` names nothing."""
    if settings.rollouts is not None:
        return []
    try:
        found = [file for file in find_recorded(run_dir) if not file.evaluation]
    except RolloutsError:  # it can be read only in part, and none of this was asked for
        return []
    if not found:
        return []
    n, formats = len(found), ", ".join(dict.fromkeys(file.format for file in found))
    return [
        f"The run folder holds {n} {'file' if n == 1 else 'files'} of responses that the trainer recorded ({formats}). "
        f"Responses were sampled anew; to score the recorded ones too, add --rollouts {shlex.quote(str(run_dir))}."
    ]
