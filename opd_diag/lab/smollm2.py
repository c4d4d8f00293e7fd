"""The command that distils a real language model: ``python -m opd_diag.lab.smollm2 --run collapsing --out DIR``.

The teacher is SmolLM2-135M-Instruct, the student the same model with layers taken out, the prompts are the word
problems ``gsm_symbolic`` of reasoning-gym. Two runs whose curves on the student's own states look alike: one collapses,
one is mild and recovers the teacher's manner. Weights are never part of the project; ``--model`` or ``--gguf`` say
where they are. Needs ``opd-diag[smollm2]``, and a C compiler where reasoning-gym's dependencies have no wheels.
"""

import argparse
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from opd_diag.errors import InputError
from opd_diag.lab.distillation import Distillation, distil, import_extra, write_manifest
from opd_diag.lab.models import load_model, save_model
from opd_diag.lab.prompts import as_messages
from opd_diag.lab.terminal import Say, run

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: The task of reasoning-gym, and the seeds of what is held out and of what is trained on. The task draws its n-th
#: problem with seed + n, so that the two must lie far apart.
TASK = "gsm_symbolic"
HELD_OUT_SEED, TRAINING_SEED = 0, 1_000_000
MAX_PROMPTS = 24


@dataclass(frozen=True)
class Recipe:
    """One run.

    Attributes
    ----------
    is_removed : callable
        Index of a layer to whether the student lacks it.
    distillation : Distillation
        How long and how fast.
    """

    is_removed: Callable[[int], bool]
    distillation: Distillation


RECIPES = {
    "collapsing": Recipe(
        lambda layer: layer % 3 == 2,
        Distillation(save_at=(5, 10, 20, 40, 80), learning_rate=3e-4, batch_size=8),
    ),
    "mild": Recipe(
        lambda layer: layer in (10, 14, 18, 22),
        Distillation(save_at=(10, 20, 30, 40), learning_rate=3e-5, batch_size=8),
    ),
}


def grow_run(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    say: Say,
    *,
    recipe: Recipe | None = None,
) -> Path:
    """Distil a model that lacks layers from the whole one; everything a report needs lies in the run's folder.

    Parameters
    ----------
    name : str
        Key of `RECIPES` and name of the run's folder.
    model, tokenizer : PreTrainedModel, PreTrainedTokenizerBase
        The teacher.
    out : Path
        Folder that receives the run's folder.
    say : callable
        Receives one line of progress at a time.
    recipe : Recipe, optional
        Instead of ``RECIPES[name]``.

    Returns
    -------
    Path
        The run's folder.
    """
    recipe = recipe or RECIPES[name]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, tokenizer, folder / "teacher")
    removed = [layer for layer in range(model.config.num_hidden_layers) if recipe.is_removed(layer)]
    save_model(without_layers(load_model(folder / "teacher"), removed), tokenizer, folder / "student")
    held_out = draw_problems(MAX_PROMPTS, HELD_OUT_SEED)
    write_problems(held_out, folder / "prompts.jsonl")
    write_manifest(folder, student="student", teacher="teacher", prompts="prompts.jsonl", max_prompts=MAX_PROMPTS)
    n_questions = recipe.distillation.batch_size * recipe.distillation.save_at[-1]
    known = frozenset(problem["question"] for problem in held_out)
    questions = [problem["question"] for problem in draw_problems(n_questions, TRAINING_SEED, known)]
    say(f"{name}: without layers {removed}, {recipe.distillation.save_at[-1]} steps")
    distil(folder / "student", folder / "teacher", questions, recipe.distillation, folder, say)
    return folder


def without_layers(model: PreTrainedModel, removed: list[int]) -> PreTrainedModel:
    """Copy a model without some of its layers; the others move up and are numbered anew.

    Raises
    ------
    InputError
        If a layer is to be removed that the model does not have, or if none would be left.
    """
    n_layers = model.config.num_hidden_layers
    kept = [layer for layer in range(n_layers) if layer not in removed]
    if not set(removed) <= set(range(n_layers)) or not kept:
        raise InputError(
            f"Expected to remove some of the layers 0 to {n_layers - 1}, found {removed}. Name layers of the model."
        )
    student = copy.deepcopy(model)
    student.model.layers = torch.nn.ModuleList(student.model.layers[layer] for layer in kept)
    for index, layer in enumerate(student.model.layers):
        layer.self_attn.layer_idx = index  # its place in the key-value cache
    student.config.num_hidden_layers = len(kept)
    if getattr(student.config, "layer_types", None):
        student.config.layer_types = [student.config.layer_types[layer] for layer in kept]
    return student


def draw_problems(n: int, seed: int, known: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """Draw `n` different word problems whose questions are not among `known`.

    Parameters
    ----------
    n : int
        How many.
    seed : int
        Of the problems.
    known : frozenset of str
        Questions that must not occur.

    Returns
    -------
    list of dict
        As reasoning-gym gives them: ``question``, ``answer`` and more.
    """
    gym = import_extra("reasoning_gym", "smollm2")
    dataset = gym.create_dataset(TASK, size=2 * n + 100, seed=seed)
    problems: dict[str, dict[str, Any]] = {}
    for problem in dataset:
        if problem["question"] not in known:
            problems.setdefault(problem["question"], problem)
        if len(problems) == n:
            break
    return list(problems.values())


def write_problems(problems: list[dict[str, Any]], path: Path) -> None:
    """Write problems as a prompts file: one JSON object a line with id, prompt and answer."""
    lines = [
        json.dumps({"id": f"gsm-{index:03d}", "prompt": as_messages(p["question"]), "answer": p["answer"]})
        for index, p in enumerate(problems)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_teacher(model: str, gguf: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the whole model in float32 from a folder, a hub id, or a GGUF file, from which transformers rebuilds it."""
    if gguf is None:
        return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), AutoTokenizer.from_pretrained(model)
    import_extra("gguf", "smollm2")
    if not gguf.is_file():
        raise InputError(f"Expected a GGUF file at {gguf}, found none. Correct --gguf.")
    place: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    rebuilt = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    config = copy.deepcopy(rebuilt.config)
    if hasattr(config, "quantization_config"):  # the weights are numbers again and shall be saved as such
        del config.quantization_config
    plain = type(rebuilt)(config)
    plain.load_state_dict(rebuilt.state_dict())
    return plain.eval(), AutoTokenizer.from_pretrained(**place)


def shortened(recipe: Recipe, steps: int | None) -> Recipe:
    """End a recipe after `steps` steps; None leaves it as it is."""
    if steps is None:
        return recipe
    if steps < 1:
        raise InputError(f"Expected a number of steps of at least 1, found {steps}. Correct --steps.")
    kept = (*(step for step in recipe.distillation.save_at if step < steps), steps)
    return replace(recipe, distillation=replace(recipe.distillation, save_at=kept))


def main() -> None:
    """Read the command line and distil."""
    parser = argparse.ArgumentParser(prog="python -m opd_diag.lab.smollm2", description=__doc__)
    parser.add_argument("--model", default=MODEL, help=f"folder or hub id of the whole model (default {MODEL})")
    parser.add_argument("--gguf", type=Path, help="GGUF file to rebuild the whole model from, instead of --model")
    parser.add_argument("--run", choices=sorted(RECIPES), required=True, help="which of the two runs")
    parser.add_argument("--out", type=Path, required=True, help="folder that receives the run's folder")
    parser.add_argument("--steps", type=int, help="end after so many steps (default: the recipe's)")
    run(parser, _distil)


def _distil(options: argparse.Namespace, say: Say) -> None:
    recipe = shortened(RECIPES[options.run], options.steps)
    model, tokenizer = load_teacher(options.model, options.gguf)
    grow_run(options.run, model, tokenizer, options.out, say, recipe=recipe)


if __name__ == "__main__":
    main()
