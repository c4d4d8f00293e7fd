"""What a trainer's name for a metric is in ours: one entry a name, with its sign and how its definition differs.

A name that no entry has is kept under its own. One that looks like a metric of ours and is none has an entry that says
why. To add one: read the trainer's source, and give it a line in the table of that trainer in `entries.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from opd_diag.runs.logged.entries import ENTRIES, Entry
from opd_diag.runs.logged.trainers import Trainer


def entry_for(trainer: Trainer, key: str, keys: Collection[str], options: Mapping[str, Any]) -> Entry | None:
    """Give the entry of a name in a log; None where it means nothing to us.

    Parameters
    ----------
    trainer
        Who wrote the log.
    key
        The name.
    keys
        All names in the log.
    options
        Training arguments as far as they are known (:func:`known_options`).

    Examples
    --------
    >>> from opd_diag.runs.logged.trainers import trainer_of
    >>> entry_for(trainer_of("metrics", ["ref_kl/mean"]), "ref_kl/mean", ["ref_kl/mean"], {}).factor
    -1.0
    """
    names, plain = {trainer.name, *trainer.aliases}, [trainer.plain(k) for k in keys]
    mine = (e for e in ENTRIES if e.trainer in names and e.key == trainer.plain(key))
    return next((entry for entry in mine if entry.holds(plain, options)), None)


def known_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Give what entries ask of training arguments; empty unless they are those of TRL's ``DistillationTrainer``.

    Examples
    --------
    >>> distillation = {"beta": 1.0, "teacher_model_name_or_path": None}
    >>> known_options(distillation), known_options(distillation | {"lmbda": 0.5})
    ({'beta': 1.0}, {})
    """
    theirs = {"beta", "teacher_model_name_or_path"} <= set(arguments)
    others = {"lmbda", "loss_top_k", "num_generations"} & set(arguments)  # in which beta means something else
    return {"beta": arguments["beta"]} if theirs and not others else {}
