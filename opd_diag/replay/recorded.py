"""Recorded rollouts that stand in for sampling: whose they are, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from opd_diag.errors import RolloutsError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Rollout, load_rollouts
from opd_diag.records.settings import Settings
from opd_diag.runs import fingerprint
from opd_diag.runs.digests import Digests

TEACHER_LABEL = "teacher"
"""What records call the teacher, whatever its folder."""


def recorded_rollouts(
    settings: Settings, checkpoints: Sequence[Checkpoint], teacher: Checkpoint, digests: Digests
) -> tuple[dict[str, tuple[Rollout, ...]], list[str]]:
    """Read ``--rollouts``, a file or a folder of them, and keep those that this run can use.

    Returns
    -------
    dict, list
        Rollouts by the label of the checkpoint (or the teacher) that wrote them, empty without ``--rollouts``; and
        what a reader must know.

    Raises
    ------
    RolloutsError
        They are of other weights, of several sets of prompts, or of none of these checkpoints.
    """
    if settings.rollouts is None:
        return {}, []
    path = Path(settings.rollouts)
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise RolloutsError(f"No .jsonl file in {path}. Expected rollouts as opd-diag writes them to rollouts/.")
    writers = {c.label: c for c in (*checkpoints, *([teacher] if "teacher" in settings.states else []))}
    by_label: dict[str, dict[tuple[int, int], Rollout]] = {}
    written = set()
    for rollout in (r for file in files for r in load_rollouts(file)):
        label = rollout.provenance.weights
        written.add(label)
        if label in writers and rollout.prompt_index < settings.max_prompts:
            # start.jsonl repeats the first checkpoint's own file: one copy is enough
            by_label.setdefault(label, {})[rollout.prompt_index, rollout.rollout_index] = rollout
    keys = {label: fingerprint(writers[label], digests) for label in by_label}
    notes = _without_another_teachers(path, by_label, keys)
    _refuse_foreign(path, by_label, keys)
    if not by_label:
        raise RolloutsError(
            f"The rollouts in {path} were written by {', '.join(sorted(written))}, the run has "
            f"{', '.join(c.label for c in checkpoints)}. Leave --rollouts out to sample new ones."
        )
    return {label: tuple(chosen[key] for key in sorted(chosen)) for label, chosen in by_label.items()}, notes


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
