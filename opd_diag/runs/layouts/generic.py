"""Folders of no known trainer: what a user lists, model folders side by side, and one model alone."""

from __future__ import annotations

import re
from collections import defaultdict

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.layouts.hf import STEP, finished_step
from opd_diag.runs.layouts.run import DIGITS, Run, checkpoint_at

_NUMBER = re.compile(r"\d+(?:\.\d+)*", re.ASCII)
_SIZE = re.compile(r"\d+(?:\.\d+)*[bBmMkK](?![a-zA-Z])", re.ASCII)
"""As in Qwen2.5-7B: no step."""


def listed(run: Run) -> list[Checkpoint]:
    """Give what the manifest lists as ``[[checkpoints]]``, or ``--steps`` does, in order of step."""
    return [
        checkpoint_at(folder, run.classified(folder), f"step {step}", step, tokenizers=(run.folder,), disk=run.disk)
        for step, folder in sorted(run.listed)
    ]


def generic_hf(run: Run) -> list[Checkpoint]:
    """Give the model folders directly in the run folder; their step is the one number that differs between names.

    Without such a number, or where it stands twice, steps are unknown and names order them. A link to a model folder
    beside it is left out. The run folder itself is no model, or there are at least two and their steps are known.
    """
    models = {}
    for name in run.disk.folders(run.folder):
        weights = None if name.startswith((".", "tmp")) else run.classified(run.folder / name)
        if weights is not None and weights.files:
            models[name] = weights
    entries = run.disk.entries(run.folder)
    there = {(run.folder / name).resolve(): name for name in models if not entries[name].is_link}
    names = [n for n in models if not entries[n].is_link or (run.folder / n).resolve() not in there]
    steps = step_numbers(names)
    own = run.classified(run.folder)
    if own is not None and own.files and len(steps) < 2:
        return []
    found = []
    for name in sorted(names, key=lambda name: (name not in steps, steps.get(name, 0), natural(name))):
        step = run.updates(steps[name], base=1) if name in steps else None
        label = name if step is None else f"step {step}"
        folder = run.folder / name
        found.append(checkpoint_at(folder, models[name], label, step, tokenizers=(run.folder,), disk=run.disk))
    if own is not None and own.files:
        note = "The model in the run folder itself."
        found.append(checkpoint_at(run.folder, own, "final", None, note=note, disk=run.disk))
    return found


def single(run: Run) -> list[Checkpoint]:
    """Give the run folder itself when weights lie in it.

    The step is what ``trainer_state.json`` says, else that of its name ``checkpoint-N``, else unknown.
    """
    weights = run.classified(run.folder)
    if weights is None or not weights.files:
        return []
    name = run.folder.resolve().name
    step, own = finished_step(run.folder, run), STEP.fullmatch(name)
    if step is None and own:
        step = run.updates(int(own[1]), base=1)
    label = name or "model" if step is None else f"step {step}"
    return [checkpoint_at(run.folder, weights, label, step, tokenizers=(run.folder / "huggingface",), disk=run.disk)]


def step_numbers(names: list[str]) -> dict[str, int]:
    """Give the step of each name: of those that differ in one whole number alone, that number.

    Where there are two such series, or names differ in more than one number, or two have the same, no step is known.
    Versions (2.5) and sizes (7B) are no steps.

    Examples
    --------
    >>> step_numbers(["iter_20", "iter_100", "best"])
    {'iter_20': 20, 'iter_100': 100}
    >>> step_numbers(["epoch1-step20", "epoch2-step40"])
    {}
    >>> step_numbers(["Qwen2.5-7B", "Qwen2.5-14B"])
    {}
    """
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        alike[_around(name)].append(name)
    series = [group for group in alike.values() if len(group) > 1]
    if len(series) != 1:
        return {}
    (group,) = series
    numbers = [_numbers(name) for name in group]
    varying = [i for i, values in enumerate(zip(*numbers, strict=True)) if len(set(values)) > 1]
    if len(varying) != 1:
        return {}
    values = [own[varying[0]] for own in numbers]
    whole = all(value.isdecimal() and len(value) <= DIGITS for value in values)
    if not whole or len({int(value) for value in values}) < len(values):
        return {}
    return {name: int(value) for name, value in zip(group, values, strict=True)}


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Give a key that orders names as people do: step-9 before step-10.

    Examples
    --------
    >>> sorted(["step-10", "step-9", "final"], key=natural)
    ['final', 'step-9', 'step-10']
    """
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _numbers(name: str) -> list[str]:
    return _NUMBER.findall(_SIZE.sub("", name))


def _around(name: str) -> tuple[str, ...]:
    return tuple(_NUMBER.split(_SIZE.sub("", name)))
