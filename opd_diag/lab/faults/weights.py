"""Faults of weights and their config: whole models exchanged, rows permuted, logits scaled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from opd_diag.lab.faults.case import Case, change_weights, write_weights
from opd_diag.lab.tokenizer import ASSISTANT, load_tokenizer

EMBEDDING, HEAD, LAST_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
WEIGHTS = "model.safetensors"


def freeze(case: Case, seed: int) -> None:
    """Give every checkpoint the weights of step 0: nothing was trained."""
    for folder in case.checkpoints:
        shutil.copyfile(case.student / WEIGHTS, folder / WEIGHTS)


def reverse(case: Case, seed: int) -> None:
    """Exchange step 0 and the last checkpoint: the student unlearns."""
    _exchange(case.student / WEIGHTS, case.checkpoints[-1] / WEIGHTS)


def scale_logits(case: Case, seed: int, *, factor: float) -> None:
    """Multiply the logits of every trained checkpoint: it is surer, or less sure, and nothing else.

    Parameters
    ----------
    case, seed
        The run; nothing is drawn.
    factor
        Above 1: surer. The last norm is scaled, after which only the head comes, so that the embedding stays.
    """
    for folder in case.checkpoints:
        change_weights(folder, lambda weights: weights | {LAST_NORM: weights[LAST_NORM] * factor})


def permute_ids(case: Case, seed: int) -> None:
    """Permute the rows of the teacher's embedding and head: the same tokenizer, another map of ids."""

    def permuted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        order = torch.randperm(len(weights[EMBEDDING]), generator=torch.Generator().manual_seed(seed))
        return {name: w[order] if name in (EMBEDDING, HEAD) else w for name, w in weights.items()}

    change_weights(case.teacher, permuted)


def teach_other_stop(case: Case, seed: int, *, is_told: bool = True) -> None:
    """Let the teacher end its responses with another token than the student does.

    Its head is no longer its embedding: the rows of the two tokens change places in the head alone, so that it reads
    prompts as before.

    Parameters
    ----------
    case, seed
        The run; nothing is drawn.
    is_told
        Whether its generation settings name that token, as those of a model trained so would.
    """
    tokenizer = load_tokenizer(case.teacher)
    end, other = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(ASSISTANT)

    def exchanged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        head = weights.get(HEAD, weights[EMBEDDING]).clone()
        head[[end, other]] = head[[other, end]]
        return weights | {HEAD: head}

    change_weights(case.teacher, exchanged)
    change_config(case.teacher / "config.json", tie_word_embeddings=False)
    if is_told:
        change_config(case.teacher / "config.json", eos_token_id=other)
        change_config(case.teacher / "generation_config.json", eos_token_id=other)


def teach_by_student(case: Case, seed: int) -> None:
    """Make the teacher a copy of step 0, and the checkpoints too: there was nothing to learn, and nothing came."""
    shutil.rmtree(case.teacher)
    shutil.copytree(case.student, case.teacher)
    freeze(case, seed)


def forget_everything(case: Case, seed: int) -> None:
    """Put random weights in the place of the teacher's."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(case.teacher), dtype=torch.float32)
    write_weights(case.teacher, model)


def change_config(path: Path, **values: Any) -> None:
    """Rewrite single entries of a JSON file."""
    record = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _exchange(one: Path, other: Path) -> None:
    aside = one.with_suffix(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
