"""What a layout is given and what it makes of it: a folder with all that is known of it, and checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.disk import Disk
from opd_diag.runs.holdings import Place, Weights
from opd_diag.runs.weights import classify_weights, has_tokenizer

DIGITS = 15
"""Of a step at most; a longer number is none."""

_UNFINISHED = re.compile(r"(?:tmp-|tmp_|old_|\.tmp-)(.+)|(.+)\.tmp")


@dataclass(frozen=True)
class Run:
    """A folder as layouts look at it."""

    folder: Path
    disk: Disk = field(default_factory=Disk)
    base_model: str | None = None
    """Model under the adapters, in place of what each names."""
    student: str | None = None
    """The initial student, whose config serves weights that come without one."""
    listed: tuple[tuple[int, Path], ...] = ()
    """(step, folder) of what the manifest or ``--steps`` lists."""
    step_base: int | None = None
    """What the trainer numbers the first update; None: as the layout says."""

    def at(self, folder: Path) -> Run:
        """Give the same for another folder."""
        return replace(self, folder=folder)

    def updates(self, number: int, base: int) -> int:
        """Give how many updates were finished where a trainer that starts at `base` saved as `number`."""
        return number + 1 - (base if self.step_base is None else self.step_base)

    def step_folders(self, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
        """Give (number, folder) of the step folders with anything in them, lowest number first.

        Parameters
        ----------
        pattern
            Of the whole name; its last group is the number.

        Raises
        ------
        OSError
            The run folder cannot be listed.
        """
        entries = self.disk.entries(self.folder)
        matches = ((pattern.fullmatch(name), name) for name in entries)
        found = [(int(m[m.re.groups]), name) for m, name in matches if m and len(m[m.re.groups]) <= DIGITS]
        folders = [(number, self.folder / name) for number, name in sorted(found) if entries[name].is_folder]
        return [(number, folder) for number, folder in folders if not self.disk.is_empty(folder)]

    def classified(self, folder: Path, out: str | None = None, configs: Sequence[Place] = ()) -> Weights | None:
        """Tell what `folder` holds; a config that is not there comes from `configs`, the base model or the student."""
        known = tuple(place for place in (self.base_model, self.student) if place)
        return classify_weights(folder, self.base_model, configs=(*configs, *known), out=out, disk=self.disk)


@dataclass(frozen=True)
class Layout:
    """One way to lay out a run."""

    name: str
    """For ``--layout``."""
    family: str
    """Of layouts that one run may mix."""
    shows: str
    """What it is recognised by, for messages; empty: not looked for."""
    find: Callable[[Run], list[Checkpoint]]
    """From a run to its checkpoints in order; an empty list when the run is laid out otherwise."""
    steps: re.Pattern[str] | None = None
    """Names of its step folders; the last group is the number."""
    base: int = 1
    """What the trainer numbers the first update: 0 or 1."""
    pointer: str | None = None
    """Text file in the run folder with the number that was saved last."""
    caveat: str | None = None
    """What every reader of such a run must know; with `base` 0, of how it counts, unless ``--step-base`` says 1."""


def student_in(
    run: Run, folders: Iterable[Path], *, out: str | None = None, configs: Sequence[Place] = ()
) -> tuple[Path, Weights] | None:
    """Choose among folders that may hold a student's weights: the first that loads, else the first with any sign of it.

    Parameters
    ----------
    run
        What is known.
    folders
        Best first; those that are not there are passed over.
    out, configs
        As of :func:`~opd_diag.runs.weights.classify_weights`.
    """
    there = [folder for folder in folders if run.disk.names(folder)]
    found = [(folder, weights) for folder in there if (weights := run.classified(folder, out, configs))]
    worth = sorted(found, key=lambda pair: (pair[1].blocker is not None, pair[1].code == "NO_WEIGHTS"))
    if not worth:
        return None
    (folder, weights), better = worth[0], found[0][1]
    if weights is not better and better.code not in (None, "NO_WEIGHTS"):
        note = f"{found[0][0].name} beside it cannot be used: {better.blocker}"
        weights = replace(weights, note=" ".join(part for part in (weights.note, note) if part))
    return folder, weights


def checkpoint_at(
    folder: Path,
    weights: Weights | None,
    label: str,
    step: int | None,
    *,
    tokenizers: Sequence[Path] = (),
    complete: bool | None = None,
    note: str | None = None,
    disk: Disk | None = None,
) -> Checkpoint:
    """Make the record of one checkpoint from what its folder holds.

    Parameters
    ----------
    folder, weights
        The folder and what :func:`~opd_diag.runs.weights.classify_weights` says of it.
    label, step
        As in the record.
    tokenizers
        Where else to look for a tokenizer, best first.
    complete, note
        As in the record.
    disk
        What is known of the disk.
    """
    disk = disk or Disk()
    if weights is None:
        way_out = "Save the model into it with save_pretrained, or remove the folder."
        blocker = f"It holds no Hugging Face weights; found {first_names(disk, folder)}."
        weights = Weights("full").blocked("NO_WEIGHTS", blocker, way_out)
    config = weights.config
    places = [place for place in (folder, weights.folder, config, *tokenizers) if place is not None]
    known = next((str(place) for place in places if has_tokenizer(place, disk)), None)
    if known is None and config is not None and not disk.names(config):
        known = str(config)  # a hub id
    mend = weights.way_out
    return Checkpoint(
        label=label,
        step=step,
        path=weights.folder or folder,
        kind=weights.kind,
        base_model=weights.base_model,
        config=config,
        tokenizer=known,
        complete=False if weights.code == "INCOMPLETE_WEIGHTS" else complete,
        code=weights.code,
        blocker=weights.blocker,
        way_out=mend.replace("'STEP=", f"'{step}=") if mend and step is not None else mend,
        note=" ".join(part for part in (weights.note, note) if part) or None,
        files=weights.files,
    )


def skipped(run: Run, steps: re.Pattern[str], used: Sequence[Checkpoint] = ()) -> list[str]:
    """Name what looks like a step and holds nothing to load, each with the reason in brackets.

    Parameters
    ----------
    run
        The folder.
    steps
        Names of its step folders.
    used
        Checkpoints that were found in it.
    """
    inside = {path for c in used for path in (c.path, *c.path.parents)}
    found = []
    for name, entry in sorted(run.disk.entries(run.folder).items()):
        folder = run.folder / name
        unfinished = _UNFINISHED.fullmatch(name)
        if unfinished and steps.fullmatch(unfinished[1] or unfinished[2]):
            found.append(f"{name} (an unfinished save)")
        elif not steps.fullmatch(name) or folder in inside:
            continue
        elif not entry.is_folder:
            found.append(f"{name} (a link to nothing)" if entry.is_link else f"{name} (a file)")
        elif run.disk.is_empty(folder):
            found.append(f"{name} (empty)")
        else:
            found.append(f"{name} (only {first_names(run.disk, folder, 3)})")
    return found


def first_names(disk: Disk, folder: Path, count: int = 10) -> str:
    """List the first names in a folder for a message."""
    names = sorted(disk.names(folder))
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more or "nothing"
