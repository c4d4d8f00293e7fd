"""What a report must know of a trainer of TRL, read off it: its sampling, its loss, its teacher and its prompts."""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from opd_diag.errors import InputError
from opd_diag.records.settings import Settings

_NEUTRAL = {"top_k": (0, None, -1), "min_p": (0, 0.0, None), "repetition_penalty": (1.0, None)}
"""Values of further rules of sampling that change nothing."""


class KnownTrainer:
    """What is known of a trainer of TRL."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.args = trainer, trainer.args
        self.generation = getattr(trainer, "generation_config", None)

    @property
    def tokenizer(self) -> Any:
        """Of the student; of a processor, the one in it."""
        return getattr(self.trainer.processing_class, "tokenizer", self.trainer.processing_class)

    @property
    def teacher_model(self) -> Any:
        """The transformers model of the teacher; None where the trainer has none."""
        model = getattr(self.trainer, "teacher_model", None)
        return None if model is None else self.trainer.accelerator.unwrap_model(model)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a response."""
        own = getattr(self.trainer, "eos_token_ids", None) or getattr(self.generation, "eos_token_id", None) or []
        ids = {*(own if isinstance(own, list) else [own]), self.tokenizer.eos_token_id}
        return tuple(sorted(i for i in ids if i is not None))

    @property
    def max_new_tokens(self) -> int | None:
        """Length at which a response is cut."""
        return getattr(self.trainer, "max_completion_length", None) or getattr(self.generation, "max_new_tokens", None)

    @property
    def temperature(self) -> float:
        """Of sampling; NaN where it is not known, or what joins it may be another one."""
        options = getattr(self.args, "generation_kwargs", None) or {}
        return math.nan if "temperature" in options else self._number("temperature")

    @property
    def top_p(self) -> float:
        """Of sampling; NaN where it is not known, and where further rules join it."""
        others = [getattr(self.trainer, name, None) not in neutral for name, neutral in _NEUTRAL.items()]
        return math.nan if any(others) or getattr(self.args, "generation_kwargs", None) else self._number("top_p")

    def settings(self, teacher: str | Path | None) -> dict[str, Any]:
        """Give the settings of a report that follow from it, the student and the prompts left out.

        Raises
        ------
        InputError
            There is a teacher, and nothing says where it comes from.
        """
        most = self.max_new_tokens
        return {
            "teacher": self._teacher(teacher),
            **self._loss(),
            "chat_template_kwargs": getattr(self.trainer, "chat_template_kwargs", None) or None,
            "temperature": None if math.isnan(self.temperature) else self.temperature,
            "top_p": None if math.isnan(self.top_p) else self.top_p,
            "max_new_tokens": None if most is None else min(most, Settings.max_new_tokens),
        }

    def _loss(self) -> dict[str, Any]:
        """Give what the logged loss is, where it is the mean divergence over the sampled tokens and whole vocabulary.

        That of ``GKDTrainer`` is not: TRL 1.16 divides the sum over the sampled tokens by the number of tokens that the
        data set's own responses have.
        """
        gkd = hasattr(self.trainer, "lmbda")
        unknown = gkd or math.isnan(self.temperature) or getattr(self.args, "loss_top_k", None)
        if self.teacher_model is None or unknown:
            return {}
        heated = None if self.temperature == 1.0 else self.temperature
        return {
            "beta": getattr(self.trainer, "beta", None),
            "student_temperature": heated,
            "teacher_temperature": heated,
        }

    def _teacher(self, given: str | Path | None) -> str | None:
        if given is None and self.teacher_model is None:
            return None
        config = getattr(self.teacher_model, "config", None)
        adapted = hasattr(self.teacher_model, "peft_config")  # its configuration names the base alone
        name = str(given) if given is not None else "" if adapted else getattr(config, "name_or_path", "")
        if not name:
            raise InputError(
                "The teacher does not say where it was loaded from. Name its folder or hub id: "
                'record(trainer, teacher="org/name").'
            )
        local = given is not None or os.path.exists(os.path.expanduser(name))
        revision = None if local else getattr(config, "_commit_hash", None) or self._teacher_revision()
        return f"{name}@{revision}" if revision else name

    def _teacher_revision(self) -> str | None:
        """Give the revision that the trainer's arguments name; a model of transformers 5.23 itself knows of none."""
        options = getattr(self.args, "teacher_model_init_kwargs", None) or {}
        return options.get("revision") or getattr(self.args, "teacher_model_revision", None)

    def prompts(self, most: int) -> list[dict[str, Any]]:
        """Give prompts of the training set, at most so many, as records of a prompts file.

        Of a data set with a length they are drawn at random, of a stream they are the first.

        Raises
        ------
        InputError
            No row has a prompt that is text or messages of text.
        """
        if not most:
            return []
        rows = self.trainer.train_dataset
        records = _unique(record for row in _some(rows, most) if (record := _record(row)) is not None)
        if not records:
            raise InputError(
                "No prompt of the training set can be written: expected a column 'prompt' (text, or messages of text) "
                "or 'messages'. Call record(trainer, n_prompts=0) to report on the prompts that are recorded."
            )
        return records

    def _number(self, name: str) -> float:
        value = getattr(self.trainer, name, None)
        value = getattr(self.generation, name, None) if value is None else value
        return math.nan if value is None else float(value)


def _some(rows: Any, most: int) -> Iterable[Mapping[str, Any]]:
    if not hasattr(rows, "__len__"):
        return itertools.islice(iter(rows), most)
    chosen = sorted(random.Random(0).sample(range(len(rows)), min(most, len(rows))))
    return (rows[index] for index in chosen)


def _record(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give a row as a record of a prompts file; None where it has no prompt of text."""
    content: Any = row.get("prompt") or row.get("messages")
    if not row.get("prompt") and content and content[-1].get("role") == "assistant":
        content = content[:-1]
    if isinstance(content, list):
        content = [{"role": message["role"], "content": message["content"]} for message in content]
        content = content if content and all(isinstance(message["content"], str) for message in content) else None
    if not content:
        return None
    answer = row.get("answer")
    return {"prompt": content} | ({"answer": answer} if isinstance(answer, (str, int, float)) else {})


def _unique(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({repr(record["prompt"]): record for record in records}.values())
