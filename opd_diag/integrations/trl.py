"""TRL: the responses its trainers sample, tapped as ids, and what a report of the run must know besides."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

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
    recording stops with a warning. With ``push_to_hub`` the trainer uploads ``output_dir`` as a whole, these files too.

    Parameters
    ----------
    trainer
        ``DistillationTrainer``, ``GKDTrainer``, ``GRPOTrainer``, ``RLOOTrainer``, or one built on them. Of GKD the
        student's responses are recorded, neither the teacher's nor those of the data set.
    teacher
        Folder or hub id of the teacher, ``org/name@revision`` where it is not the default revision; default: as the
        trainer and its teacher name it.
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

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            recording.end()

    trainer.add_callback(Callback())
    setattr(trainer, _RECORDING, recording)
    return recorder


class _Recording:
    """One process of a trainer that is recorded.

    Processes speak to each other at the end of an update alone, where all of them come by: which of them samples, holds
    an image or cannot write may differ.
    """

    def __init__(self, trainer: Any, recorder: Recorder, every: int) -> None:
        self.trainer, self.recorder, self.every = trainer, recorder, every
        self.saved = 0
        """Step of the checkpoint saved last."""
        self.batches: list[dict[str, Any]] = []
        """What this process sampled since the last update."""
        self.failed = False
        """Whether this process cannot go on recording; the others learn of it at the end of the update."""
        self.stopped = False
        """Whether nothing more is recorded, as all processes know."""

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
            if self.failed or self.stopped:
                return made
            if name == _OF_MODEL:
                self._take(self._of_model(made, *args, **kwargs))
            elif self.trainer.model.training:  # an evaluation samples in the same way
                self._take(made)
            return made

        setattr(self.trainer, name, tapped)

    def _of_model(self, made: Any, model: Any, inputs: Any, *_: Any, **__: Any) -> dict[str, Any] | None:
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

    def _due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.saved

    def _take(self, batch: dict[str, Any] | None) -> None:
        if batch is None or not self._due(self.trainer.state.global_step):
            return
        if "pixel_values" in batch:
            self._fail("The prompts hold images, which are no ids: nothing more is recorded.")
            return
        columns = {name: batch[name] for name in Recorder.COLUMNS if batch.get(name) is not None}
        self.batches.append({name: column.to("cpu", copy=True) for name, column in columns.items()})

    def _gathered(self) -> list[tuple[bool, list[dict[str, Any]]]]:
        """Give what every process has to say: whether it failed, and what it sampled; all of them must come here."""
        mine = self.failed, self.batches
        if self.trainer.accelerator.num_processes == 1:
            return [mine]
        from accelerate.utils import gather_object

        everyone: list[tuple[bool, list[dict[str, Any]]]] = gather_object([mine])
        return everyone

    def begin(self, settings: dict[str, Any], prompts: list[dict[str, Any]], *, save_student: bool) -> None:
        """Save the weights before the first update, and write what a report must know."""
        step, folder = self.trainer.state.global_step, self.recorder.folder / "student"
        self.saved, self.batches = step, []  # training begins at step 0 or goes on from a checkpoint
        missing = f"training goes on from step {step}" if step else ""
        if save_student and not step:
            missing = self._save_student(folder)
        if not self.trainer.accelerator.is_main_process:
            return
        try:
            self.recorder.begin(step)
            if save_student and any(folder.glob("*.safetensors")):
                settings = {"student": folder, **settings}
            elif save_student:
                _warn(
                    f"The weights before the first update are not in {folder}: {missing}. Name the initial student to "
                    "reports with --student."
                )
            if prompts:
                settings = {**settings, "prompts": self.recorder.write_prompts(prompts)}
            if not self.recorder.write_manifest(settings):
                _warn(f"{self.recorder.run_dir / 'opd-diag.toml'} is there already and was left as it is.")
        except (OpdDiagError, OSError) as error:
            self._fail(f"{error} Nothing is recorded.")

    def _save_student(self, folder: Path) -> str:
        """Save the weights in place of those of an earlier run, and give the reason where they are not there after."""
        accelerator = self.trainer.accelerator
        if accelerator.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
        accelerator.wait_for_everyone()
        try:
            self.trainer.save_model(str(folder), _internal_call=True)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            return str(error)
        return "training saves its weights in shards alone"

    def write(self) -> None:
        """Write the responses of the weights before this update, those of all processes by the main one."""
        step = self.trainer.state.global_step - 1
        if self.stopped or not self._due(step):
            return
        everyone, self.batches = self._gathered(), []
        self.stopped = any(failed for failed, _ in everyone)
        if self.stopped or not self.trainer.accelerator.is_main_process:
            return
        try:
            for _, batches in everyone:
                for batch in batches:
                    self.recorder.take_padded(step, batch)
            self.recorder.write()
        except OpdDiagError as error:
            self._fail(f"{error} Nothing more is recorded.")

    def end(self) -> None:
        """Say so where nothing was recorded at all."""
        main = self.trainer.accelerator.is_main_process
        if main and not self.stopped and not self.failed and not any(self.recorder.rollouts_dir.glob("*.jsonl")):
            _warn("Nothing was recorded: the student sampled no response, or in a way that is not known here.")

    def _fail(self, why: str) -> None:
        self.failed = True
        _warn(why)


def _warn(text: str) -> None:
    warnings.warn(f"opd-diag: {text}", stacklevel=3)
