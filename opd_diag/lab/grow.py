"""The command that grows the bundled runs: ``python -m opd_diag.lab.grow --out data --seed 0``."""

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from opd_diag.lab.distillation import Distillation, distil, write_manifest
from opd_diag.lab.models import STUDENT_SHAPE, TEACHER_SHAPE, Shape, build_model, load_model, save_model
from opd_diag.lab.outcomes import RUNS, write_readme
from opd_diag.lab.pretraining import Schooling, pretrain
from opd_diag.lab.prompts import draw_held_out, draw_training_questions, write_prompts
from opd_diag.lab.terminal import Say, run
from opd_diag.lab.tokenizer import train_tokenizer, world_texts
from opd_diag.lab.world import Curriculum

#: What everybody of the student's pipeline is taught, the same with multiplication, the other pattern.
PIPELINE = Curriculum()
SKILLED = Curriculum(unknown=())
NARRATING = Curriculum(narration_share=1.0, unknown=())


@dataclass(frozen=True)
class Plan:
    """Everything that decides what is grown.

    Attributes
    ----------
    seed : int
        Of all random choices.
    student_shape, teacher_shape : Shape
        Sizes of the models.
    student_steps, teacher_steps, skill_steps : int
        Steps of supervised training of the student, of teachers from scratch, and of teacher *same*
        on its way to teacher *new*.
    distillation : Distillation
        The same for all three runs.
    held_out_per_operation : int
        How many held-out prompts of each operation.
    """

    seed: int = 0
    student_shape: Shape = STUDENT_SHAPE
    teacher_shape: Shape = TEACHER_SHAPE
    student_steps: int = 900
    teacher_steps: int = 900
    skill_steps: int = 300
    distillation: Distillation = field(default_factory=Distillation)
    held_out_per_operation: int = 32


def grow(plan: Plan, out: Path, say: Say) -> None:
    """Grow a student, three teachers and three distillation runs, and describe what happened.

    Parameters
    ----------
    plan : Plan
        What to grow.
    out : Path
        Folder that receives everything; files of the same names are replaced.
    say : callable
        Receives one line of progress at a time.
    """
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(world_texts())
    problems = draw_held_out(plan.held_out_per_operation, plan.seed)
    write_prompts(problems, out / "prompts.jsonl")
    held_out = frozenset(problem.question for problem in problems)
    grow_models(plan, tokenizer, held_out, out, say)
    for name in RUNS:
        grow_run(name, plan, held_out, out, say)
    say("measuring accuracies")
    write_readme(out, problems, plan.distillation.save_at, plan.seed)


def grow_models(plan: Plan, tokenizer: PreTrainedTokenizerBase, held_out: frozenset[str], out: Path, say: Say) -> None:
    """Train the student and the three teachers from the plan and write them in bfloat16."""
    teach = _Teaching(plan, tokenizer, held_out, say)
    teach.from_scratch(out / "student", plan.student_shape, PIPELINE, plan.student_steps, seed=1)
    same = out / "teachers" / "same"
    teach.from_scratch(same, plan.teacher_shape, PIPELINE, plan.teacher_steps, seed=2)
    teach.further(same, out / "teachers" / "new", SKILLED, plan.skill_steps, seed=3)
    teach.from_scratch(out / "teachers" / "other", plan.teacher_shape, NARRATING, plan.teacher_steps, seed=4)


def grow_run(name: str, plan: Plan, held_out: frozenset[str], out: Path, say: Say) -> None:
    """Distil the student from the teacher called `name` and write the run with its manifest."""
    say(f"run {name}: {plan.distillation.save_at[-1]} steps of on-policy distillation")
    n_questions = plan.distillation.batch_size * plan.distillation.save_at[-1]
    questions = draw_training_questions(n_questions, plan.seed, held_out)
    distillation = replace(plan.distillation, seed=plan.seed)
    distil(out / "student", out / "teachers" / name, questions, distillation, out / name)
    write_manifest(out / name, student="../student", teacher=f"../teachers/{name}", prompts="../prompts.jsonl")


@dataclass(frozen=True)
class _Teaching:
    """Supervised training as a plan has it; `seed` tells the models of one plan apart."""

    plan: Plan
    tokenizer: PreTrainedTokenizerBase
    held_out: frozenset[str]
    say: Say

    def from_scratch(self, folder: Path, shape: Shape, curriculum: Curriculum, steps: int, seed: int) -> None:
        """Train a new model and write it."""
        seed += 100 * self.plan.seed
        model = build_model(shape, self.tokenizer, seed)
        self._train(model, folder, Schooling(curriculum, steps, seed=seed))

    def further(self, source: Path, folder: Path, curriculum: Curriculum, steps: int, seed: int) -> None:
        """Train a written model further, more gently, and write the result."""
        schooling = Schooling(curriculum, steps, learning_rate=2e-3, seed=seed + 100 * self.plan.seed)
        self._train(load_model(source), folder, schooling)

    def _train(self, model: torch.nn.Module, folder: Path, schooling: Schooling) -> None:
        def progress(step: int, loss: float) -> None:
            if step % 100 == 0:
                self.say(f"{folder.name}: step {step} of {schooling.steps}, loss {loss:.3f}")

        trained = pretrain(model, self.tokenizer, schooling, held_out=self.held_out, progress=progress)
        save_model(trained, self.tokenizer, folder)


def main() -> None:
    """Read the command line and grow."""
    parser = argparse.ArgumentParser(prog="python -m opd_diag.lab.grow", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives the runs")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default 0)")
    run(parser, lambda options, say: grow(Plan(seed=options.seed), options.out, say))


if __name__ == "__main__":
    main()
