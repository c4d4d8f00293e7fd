"""Which trainer wrote a log, told by its names for things, and how many updates its steps stand for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from opd_diag.runs.logged.finding import LogFormat


@dataclass(frozen=True)
class Trainer:
    """One trainer as its logs show it."""

    name: str
    """As pages write it."""
    formats: tuple[LogFormat, ...]
    """Formats of log that it writes."""
    signs: tuple[str, ...] = ()
    """Names, and where they end in a slash beginnings of names, one of which is in every log of it; empty: its format
    tells it."""
    first_step: int = 1
    """What it calls the step of its first update: 0 or 1."""
    before_update: tuple[str, ...] = ()
    """Beginnings of names of what it measures before the update of the step it logs them under."""
    prefix: str = ""
    """What TensorBoard's tags have before its names."""
    aliases: tuple[str, ...] = ()
    """Trainers whose names for things it shares."""

    def updates(self, step: int, key: str) -> int:
        """Give the updates that were finished when `key` was logged under `step`.

        What is measured in the course of an update belongs to it: it was finished when the number was written, and what
        was measured came before.

        Examples
        --------
        >>> counts_from_0 = Trainer("any", (), first_step=0, before_update=("test/",))
        >>> counts_from_0.updates(4, "loss"), counts_from_0.updates(4, "test/accuracy"), UNKNOWN.updates(4, "loss")
        (5, 4, 4)
        """
        return step if key.startswith(self.before_update) else step + 1 - self.first_step

    def wrote(self, form: LogFormat, keys: Collection[str]) -> bool:
        """Whether a log of a format with these names may be its."""
        beginnings = tuple(sign for sign in self.signs if sign.endswith("/"))
        signed = any(key in self.signs or key.startswith(beginnings) for key in keys)
        return form in self.formats and (signed or not self.signs)

    def plain(self, key: str) -> str:
        """Give a name as the trainer has it, without what TensorBoard's tags put before it."""
        return key.removeprefix(self.prefix)


TRAINERS: tuple[Trainer, ...] = (
    Trainer("thunlp/OPD", ("verl", "tensorboard"), ("val-topk/",), aliases=("verl",)),
    Trainer("verl", ("verl",)),
    Trainer("verl", ("tensorboard",), ("training/global_step", "actor/distillation/")),
    Trainer("ROLL", ("worker_state",), first_step=0, before_update=("val",)),
    Trainer("ROLL", ("tensorboard",), ("system/step",), first_step=0, before_update=("val",)),
    Trainer("slime", ("tensorboard",), ("rollout/step", "train/step"), first_step=0),
    Trainer("NeMo-RL", ("tensorboard",), ("train/global_valid_toks", "timing/train/")),
    Trainer("SkyRL", ("tensorboard",), ("trainer/global_step",)),
    Trainer("AReaL", ("tensorboard",), ("ppo_actor/",), first_step=0),
    Trainer("tinker", ("metrics",), ("progress/batch",), first_step=0, before_update=("test/",)),
    Trainer("prime-rl", ("metrics",)),
    Trainer("ms-swift", ("logging",), aliases=("TRL",)),
    Trainer("LLaMA-Factory", ("trainer_log",)),
    Trainer("torchtune", ("torchtune",)),
    Trainer("Hugging Face", ("trainer_state",), aliases=("TRL", "ms-swift")),
    Trainer("Hugging Face", ("tensorboard",), ("train/epoch",), prefix="train/", aliases=("TRL", "ms-swift")),
)
"""In order: the first that fits wrote the log. slime and ROLL count rollouts, as the names of their checkpoints do."""

UNKNOWN = Trainer("an unknown trainer", ())
"""A log that none fits: its steps are taken as they are, and its names mean nothing to us."""


def trainer_of(form: LogFormat, keys: Collection[str]) -> Trainer:
    """Tell who wrote a log of a format with these names.

    Examples
    --------
    >>> trainer_of("metrics", ["step", "progress/batch"]).name, trainer_of("metrics", ["ref_kl/mean"]).name
    ('tinker', 'prime-rl')
    """
    return next((trainer for trainer in TRAINERS if trainer.wrote(form, keys)), UNKNOWN)
