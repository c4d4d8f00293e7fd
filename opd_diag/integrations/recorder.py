"""What a trainer generates, written token-exact as training goes, and what a report of it must know besides."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opd_diag.errors import InputError
from opd_diag.records.files import content_key, write_text
from opd_diag.records.rollout import Provenance, Rollout, StopReason, in_training, save_rollouts
from opd_diag.runs.manifest import MANIFEST_NAME, MODELS, SAMPLING_NAMES

FOLDER = "recorded"
"""Folder in that of the run for all that is recorded but the manifest."""

_HEADER = "# Written by opd_diag.integrations. Delete this line to keep your own changes."
_WAY_OUT = "Make room there, or mend its permissions."
_ROLLOUTS = re.compile(r"step-(\d+)\.jsonl", re.ASCII)


class Recorder:
    """Writes the responses of a training run where ``opd-diag report`` finds them, as the ids that were sampled.

    One file for the weights of each optimiser step, ``recorded/rollouts/step-000040.jsonl``, whole or not at all. Any
    trainer can use it: :func:`opd_diag.integrations.record` does for TRL, ``TRAINERS.md`` shows verl.

    Parameters
    ----------
    run_dir
        Folder of the run, where its checkpoints are.
    stop_ids
        Ids that end a response.
    max_new_tokens
        Length at which a response is cut; None: not known, and a response without a stop token ended in an unknown way.
    temperature, top_p
        Of sampling. NaN: not known, or joined by other rules (top-k, a penalty), so that responses are no plain sample.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> recorder = Recorder(folder.name, stop_ids=(0,), max_new_tokens=3, temperature=1.0, top_p=1.0)
    >>> recorder.take(40, [5, 6], [7, 0])
    >>> recorder.take(40, [5, 6], [7, 7, 7])
    >>> recorder.write().name
    'step-000040.jsonl'
    >>> from opd_diag import load_rollouts
    >>> [(r.rollout_index, r.stop_reason) for r in load_rollouts(recorder.rollouts_dir / "step-000040.jsonl")]
    [(0, 'stop'), (1, 'length')]
    >>> folder.cleanup()
    """

    COLUMNS = (
        "prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "sampling_per_token_logps",
    )  # fmt: skip
    """Tensors of a padded batch, by the names that TRL has for them."""

    def __init__(
        self,
        run_dir: str | Path,
        *,
        stop_ids: Sequence[int] = (),
        max_new_tokens: int | None = None,
        temperature: float = math.nan,
        top_p: float = math.nan,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.stop_ids = frozenset(stop_ids)
        self.max_new_tokens, self.temperature, self.top_p = max_new_tokens, temperature, top_p
        self._step = -1
        self._taken: list[Rollout] = []
        self._indices: dict[str, int] = {}
        """Of prompts, by the key of their ids."""
        self._times: Counter[str] = Counter()
        """Responses to each prompt by the weights of this step."""

    @property
    def folder(self) -> Path:
        """Folder of all that is recorded but the manifest."""
        return self.run_dir / FOLDER

    @property
    def rollouts_dir(self) -> Path:
        """Folder of the responses."""
        return self.folder / "rollouts"

    def begin(self, step: int) -> None:
        """Forget what an earlier training took or wrote from `step` on; call it before a training that begins there."""
        self._step, self._taken = -1, []
        for file in self.rollouts_dir.glob("*.jsonl"):
            name = _ROLLOUTS.fullmatch(file.name)
            if name and int(name[1]) >= step:
                file.unlink()

    def take(
        self,
        step: int,
        prompt_ids: Sequence[int],
        response_ids: Sequence[int],
        *,
        generated: Sequence[bool] | None = None,
        logprobs: Sequence[float] | None = None,
        reward: float | None = None,
    ) -> None:
        """Take one response; nothing is written before :meth:`write`. One without a token is no response.

        Parameters
        ----------
        step
            Optimiser steps behind the weights that wrote it: 0 before the first update.
        prompt_ids, response_ids
            Without padding; the response with its stop token, if any.
        generated
            Which response tokens the student generated; None: all. The others are tool output, say.
        logprobs
            Of each response token when it was sampled, nats.
        reward
            Of the whole response.
        """
        if step != self._step:
            self._step, self._taken, self._times = step, [], Counter()
        if not len(response_ids):
            return
        key = content_key(list(prompt_ids))[:16]
        self._taken.append(
            Rollout(
                prompt_index=self._indices.setdefault(key, len(self._indices)),
                rollout_index=self._times[key],
                prompt_id=key,
                group=None,
                prompt_ids=tuple(prompt_ids),
                teacher_prompt_ids=tuple(prompt_ids),
                response_ids=tuple(response_ids),
                stop_reason=self._stop_reason(response_ids),
                provenance=Provenance("recorded", in_training(step), "", step, self.temperature, self.top_p, None),
                generated=None if generated is None else tuple(generated),
                sampled_logprobs=None if logprobs is None else tuple(logprobs),
                reward=reward,
            )
        )
        self._times[key] += 1

    def take_padded(self, step: int, batch: Mapping[str, Any]) -> None:
        """Take a batch of padded (B, length) tensors.

        Parameters
        ----------
        step
            As of :meth:`take`.
        batch
            ``prompt_ids``, ``prompt_mask``, ``completion_ids``, ``completion_mask``; masks are 0 at padding. Of a
            response whose mask is 0 throughout, as trainers mark one that was cut and is not learned from, every id up
            to the limit counts.
            Optionally ``tool_mask``, 0 at what the student did not generate, and ``sampling_per_token_logps``.
        """
        columns = {name: batch[name].tolist() for name in self.COLUMNS if batch.get(name) is not None}
        for index in range(len(columns["completion_ids"])):
            row = {name: values[index] for name, values in columns.items()}
            kept = row["completion_mask"] if any(row["completion_mask"]) else self._to_the_limit(row["completion_ids"])
            own = _kept(row.get("tool_mask"), kept)
            self.take(
                step,
                _kept(row["prompt_ids"], row["prompt_mask"]) or [],
                _kept(row["completion_ids"], kept) or [],
                generated=None if own is None or all(own) else [bool(mark) for mark in own],
                logprobs=_kept(row.get("sampling_per_token_logps"), kept),
            )

    def write(self) -> Path | None:
        """Write what was taken of one step, whole or not at all; None where nothing was.

        Raises
        ------
        StoreError
            The folder cannot be written to.
        """
        if not self._taken:
            return None
        path = self.rollouts_dir / f"step-{self._step:06d}.jsonl"
        save_rollouts(path, self._taken, _WAY_OUT)
        return path

    def write_prompts(self, prompts: Sequence[Mapping[str, Any]]) -> Path:
        """Write prompts, one record as of a prompts file each, to be sampled from in a report."""
        path = self.folder / "prompts.jsonl"
        write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in prompts), _WAY_OUT)
        return path

    def write_manifest(self, settings: Mapping[str, Any]) -> bool:
        """Write ``opd-diag.toml`` of the run, unless there is one that is not of this hand.

        Parameters
        ----------
        settings
            By the names of :class:`~opd_diag.records.settings.Settings`; None is left out. Models are folders or hub
            ids; paths are relative to the working directory. Where responses are recorded is added.

        Returns
        -------
        bool
            Whether it was written.
        """
        path = self.run_dir / MANIFEST_NAME
        if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(_HEADER):
            return False
        known = {name: value for name, value in settings.items() if value is not None}
        known["rollouts"] = self.rollouts_dir
        top = [name for name in known if name not in SAMPLING_NAMES]
        lines = [_HEADER, *(self._line(name, known[name]) for name in top)]
        sampling = [self._line(name, known[name]) for name in known if name in SAMPLING_NAMES]
        write_text(path, "\n".join([*lines, *(["", "[sampling]", *sampling] if sampling else []), ""]), _WAY_OUT)
        return True

    def _line(self, name: str, value: Any) -> str:
        if name in MODELS and isinstance(value, str) and os.path.exists(os.path.expanduser(value)):
            value = Path(os.path.expanduser(value)).absolute()
        if isinstance(value, Path):
            inside = value.is_relative_to(self.run_dir)
            value = f"./{value.relative_to(self.run_dir).as_posix()}" if inside else str(value.absolute())
        return f"{name} = {_toml(value)}"

    def _to_the_limit(self, padded: Sequence[int]) -> list[int]:
        """Give the mask of a response of which nothing but the limit tells where padding begins."""
        most = len(padded) if self.max_new_tokens is None else self.max_new_tokens
        return [int(position < most) for position in range(len(padded))]

    def _stop_reason(self, response: Sequence[int]) -> StopReason:
        if response[-1] in self.stop_ids:
            return "stop"
        cut = self.max_new_tokens is not None and len(response) >= self.max_new_tokens
        return "length" if cut else "unknown"


def _kept(row: list[Any] | None, mask: Sequence[int]) -> list[Any] | None:
    return None if row is None else [value for value, mark in zip(row, mask, strict=True) if mark]


def _toml(value: Any) -> str:
    r"""Write a value as TOML has it.

    Examples
    --------
    >>> _toml('a "b"'), _toml(True), _toml(0.5), _toml({"enable_thinking": False})
    ('"a \\"b\\""', 'true', '0.5', '{"enable_thinking" = false}')
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(name))} = {_toml(of)}" for name, of in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (bool, int, float, str)):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    raise InputError(f"{value!r:.80} cannot stand in {MANIFEST_NAME}. Expected text, a number, true or false.")
