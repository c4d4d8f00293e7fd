"""A run of its own that may be broken: models, prompts, and recorded rollouts if there are any."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from opd_diag.lab.distillation import write_manifest
from opd_diag.records.rollout import Rollout, load_rollouts, save_rollouts
from opd_diag.runs import find_checkpoints, read_manifest

Rollouts = list[Rollout]


@dataclass(frozen=True)
class Case:
    """Where the parts of the run lie."""

    root: Path

    @property
    def run_dir(self) -> Path:
        """What a report is made of; its manifest names all that follows."""
        return self.root / "run"

    @property
    def student(self) -> Path:
        """The initial student, step 0."""
        return self.root / "student"

    @property
    def teacher(self) -> Path:
        """The teacher."""
        return self.root / "teacher"

    @property
    def prompts(self) -> Path:
        """The prompts file."""
        return self.root / "prompts.jsonl"

    @property
    def rollouts(self) -> Path:
        """Folder of the recorded rollouts; a report reads them where it is there."""
        return self.root / "rollouts"

    @property
    def checkpoints(self) -> list[Path]:
        """Folders of the trained checkpoints, in the order of their steps."""
        return [checkpoint.path for checkpoint in find_checkpoints(self.run_dir)]

    @property
    def students(self) -> list[Path]:
        """Folders of all students, step 0 first."""
        return [self.student, *self.checkpoints]

    @property
    def models(self) -> list[Path]:
        """Folders of all models, the teacher last."""
        return [*self.students, self.teacher]

    def writer(self, rollout: Rollout) -> Path:
        """Give the folder of the model that a recorded rollout says wrote it."""
        step = rollout.provenance.step
        return self.teacher if step is None else self.student if step == 0 else self.run_dir / f"checkpoint-{step}"

    def change_rollouts(self, change: Callable[[Rollouts], Rollouts]) -> None:
        """Rewrite each file of recorded rollouts."""
        for path in sorted(self.rollouts.glob("*.jsonl")):
            save_rollouts(path, change(load_rollouts(path)))


def copied_case(run: Path, root: Path, prompts: Sequence[str] | None = None) -> Case:
    """Copy a grown run, with all that its manifest names, into one folder.

    Parameters
    ----------
    run
        Folder of the run, as `opd_diag.lab.collapse` grows it.
    root
        The new folder.
    prompts
        Lines of the prompts file; default: all that the run has.
    """
    case, settings = Case(root), read_manifest(run).settings
    shutil.copytree(run, case.run_dir)
    shutil.copytree(settings["student"], case.student)
    shutil.copytree(settings["teacher"], case.teacher)
    lines = Path(settings["prompts"]).read_text(encoding="utf-8").splitlines() if prompts is None else prompts
    case.prompts.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    write_manifest(case.run_dir, student="../student", teacher="../teacher", prompts="../prompts.jsonl")
    return case


def record_rollouts(case: Case, sampled: Path) -> None:
    """Let the run bring its rollouts with it, as a trainer would have recorded them.

    Parameters
    ----------
    case
        Its manifest is made to name them.
    sampled
        Folder of rollouts that a report on this very run sampled.
    """
    case.rollouts.mkdir()
    for path in sorted(sampled.glob("*.jsonl")):
        if path.name != "start.jsonl":  # a copy of the first checkpoint's
            rollouts = load_rollouts(path)
            recorded = [replace(r, provenance=replace(r.provenance, origin="recorded", seed=None)) for r in rollouts]
            save_rollouts(case.rollouts / path.name, recorded)
    manifest = case.run_dir / "opd-diag.toml"
    manifest.write_text('rollouts = "../rollouts"\n' + manifest.read_text(encoding="utf-8"), encoding="utf-8")


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Rewrite the weights of a model folder."""
    path = folder / "model.safetensors"
    weights = {name: tensor.clone().contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(weights, path, metadata={"format": "pt"})


def write_weights(folder: Path, model: PreTrainedModel) -> None:
    """Put the weights of a model into its folder, in the precision of those that lie there; nothing else is written."""
    new = model.state_dict()
    change_weights(folder, lambda weights: {name: new[name].to(old.dtype) for name, old in weights.items()})
