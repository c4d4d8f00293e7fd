"""TRL: the responses its trainers sample, tapped as ids, and what a report of the run must know besides."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import transformers

from opd_diag.errors import InputError, OpdDiagError
from opd_diag.integrations.known_trainer import KnownTrainer
from opd_diag.integrations.probe import Probe
from opd_diag.integrations.recorder import Recorder

_RECORDING = "_opd_diag_recording"
"""Attribute of a trainer that is recorded."""

_OF_BATCH, _OF_MODEL = "_generate_and_score_completions", "generate_on_policy_outputs"
"""Methods that sample: of ``DistillationTrainer``, GRPO and RLOO; of ``GKDTrainer``."""


def record(
    trainer: Any,
    *,
    teacher: str | Path | None = None,
    every: int = 1,
    n_prompts: int = 256,
    save_student: bool = True,
    probe: Probe | None = None,
) -> Recorder:
    """Record a run of TRL, so that ``opd-diag report output_dir`` needs no other argument; call it before ``train``.

    Writes into the trainer's ``output_dir``: ``recorded/student`` (the weights before the first update, which trainers
    do not save), ``recorded/rollouts`` (the responses as the ids that were sampled, one file for the weights of each
    step), ``recorded/prompts.jsonl`` (prompts of the training set), and ``opd-diag.toml``, which names all of these,
    the teacher and the loss; a manifest that is there already is left as it is. Training goes on as without it: no
    random number is taken from the generators that training takes them from, and where nothing more can be written,
    recording stops with a warning.

    Parameters
    ----------
    trainer
        ``DistillationTrainer``, ``GKDTrainer``, ``GRPOTrainer``, ``RLOOTrainer``, or one built on them. Of GKD the
        student's responses are recorded, neither the teacher's nor those of the data set.
    teacher
        Folder or hub id of the teacher; default: as the trainer's teacher names itself.
    every
        Record the weights of every so many steps; those of saved checkpoints are recorded always.
    n_prompts
        Most prompts of the training set that are written, drawn at random. 0: none, and a report samples from those
        that were recorded.
    save_student
        Save the weights before the first update; where an adapter is trained, the adapter. Without them nothing can
        be told of what changed before the first checkpoint.
    probe
        What to measure and log as training goes; default: nothing.

    Returns
    -------
    Recorder
        What writes.

    Raises
    ------
    InputError
        The trainer samples in a way that is not known, is recorded already, or its teacher or prompts have no name.

    Examples
    --------
    >>> trainer = trl.DistillationTrainer(model, teacher, args=args, train_dataset=prompts)  # doctest: +SKIP
    >>> opd_diag.integrations.record(trainer)  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP
    """
    if every < 1 or n_prompts < 0:
        raise InputError(f"every must be at least 1 and n_prompts at least 0, found {every} and {n_prompts}.")
    if getattr(trainer, _RECORDING, None) is not None:
        raise InputError("This trainer is recorded already. Call record(trainer) once, before train().")
    known = KnownTrainer(trainer)
    recorder = Recorder(
        Path(trainer.args.output_dir).absolute(),
        stop_ids=known.stop_ids,
        max_new_tokens=known.max_new_tokens,
        temperature=known.temperature,
        top_p=known.top_p,
    )
    recording = _Recording(trainer, recorder, every)
    settings, prompts = known.settings(teacher), known.prompts(n_prompts)
    probing = None if probe is None else probe.prepared(trainer)
    recording.tap()

    class Callback(transformers.TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            recording.begin(settings, prompts, save_student=save_student)
            if probing is not None:
                probing.measure()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            recording.write()
            if probing is not None:
                probing.measure()

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            recording.saved = state.global_step

    trainer.add_callback(Callback())
    setattr(trainer, _RECORDING, recording)
    return recorder


class _Recording:
    """One trainer that is recorded."""

    def __init__(self, trainer: Any, recorder: Recorder, every: int) -> None:
        self.trainer, self.recorder, self.every = trainer, recorder, every
        self.saved = 0
        """Step of the checkpoint saved last."""
        self.stopped = False

    def tap(self) -> None:
        """Put a tap on what samples."""
        name = next((name for name in (_OF_BATCH, _OF_MODEL) if callable(getattr(self.trainer, name, None))), None)
        if name is None:
            raise InputError(
                f"{type(self.trainer).__name__} samples in no way that is known here. Expected DistillationTrainer, "
                "GKDTrainer, GRPOTrainer or RLOOTrainer of TRL, or one built on them; for another trainer, hand its "
                "responses to opd_diag.integrations.Recorder."
            )
        original = getattr(self.trainer, name)

        def tapped(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if self.stopped:
                return made
            if name == _OF_MODEL:
                self._take(self._of_model(made, *args, **kwargs))
            elif self.trainer.model.training:  # an evaluation samples in the same way
                self._take(made)
            return made

        setattr(self.trainer, name, tapped)

    def _of_model(self, made: Any, model: Any, inputs: Any, *_: Any) -> dict[str, Any] | None:
        """Give the batch of ids, mask and labels that ``GKDTrainer`` makes; None of the teacher's."""
        if model is self.trainer.accelerator.unwrap_model(self.trainer.teacher_model):
            return None
        ids, mask = made[0], made[1]
        start = inputs["prompts"].shape[1]
        return {
            "prompt_ids": ids[:, :start],
            "prompt_mask": mask[:, :start],
            "completion_ids": ids[:, start:],
            "completion_mask": mask[:, start:],
        }

    def _take(self, batch: dict[str, Any] | None) -> None:
        step = self.trainer.state.global_step
        if batch is None or (step % self.every and step != self.saved):
            return
        if "pixel_values" in batch:
            self._stop("The prompts hold images, which are no ids: nothing more is recorded.")
            return
        for part in self._gathered(batch):
            self.recorder.take_padded(step, part)

    def _gathered(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Give the batches of all processes to the main one, and nothing to the others."""
        if self.trainer.accelerator.num_processes == 1:
            return [batch]
        from accelerate.utils import gather_object

        mine = {name: batch[name].cpu() for name in Recorder.COLUMNS if batch.get(name) is not None}
        everyone: list[dict[str, Any]] = gather_object([mine])
        return everyone if self.trainer.accelerator.is_main_process else []

    def begin(self, settings: dict[str, Any], prompts: list[dict[str, Any]], *, save_student: bool) -> None:
        """Save the weights before the first update, and write what a report must know."""
        step, folder = self.trainer.state.global_step, self.recorder.folder / "student"
        if save_student and step == 0:
            self.trainer.save_model(str(folder), _internal_call=True)
        if not self.trainer.accelerator.is_main_process:
            return
        try:
            self.recorder.begin(step)
            if save_student and any(folder.glob("*.safetensors")):
                settings = {"student": folder, **settings}
            elif save_student:
                _warn(
                    f"The weights before the first update are not in {folder}: training goes on from step {step}, or "
                    "saves its weights in shards alone. Name the initial student to reports with --student."
                )
            if prompts:
                settings = {**settings, "prompts": self.recorder.write_prompts(prompts)}
            if not self.recorder.write_manifest(settings):
                _warn(f"{self.recorder.run_dir / 'opd-diag.toml'} is there already and was left as it is.")
        except (OpdDiagError, OSError) as error:
            self._stop(f"{error} Nothing is recorded.")

    def write(self) -> None:
        """Write the responses of the weights before this update."""
        try:
            if not self.stopped:
                self.recorder.write()
        except OpdDiagError as error:
            self._stop(f"{error} Nothing more is recorded.")

    def _stop(self, why: str) -> None:
        self.stopped = True
        _warn(why)


def _warn(text: str) -> None:
    warnings.warn(f"opd-diag: {text}", stacklevel=3)
