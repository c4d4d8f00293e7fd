"""Weights that are broken in one way, and in no other."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from lab.faults.conftest import DATA, changed, contents
from opd_diag.lab.faults import weights as faults
from opd_diag.lab.models import load_model

CHECKPOINTS = {f"run/checkpoint-{step}/model.safetensors" for step in (20, 40, 80, 160)}
IDS = torch.tensor([[1, 17, 300, 3, 2, 260, 301, 44]])


@torch.no_grad()
def logits(folder):
    return load_model(folder)(IDS).logits[0]


def planted(case, plant, seed=0):
    before = contents(case)
    plant(case, seed)
    return changed(case, before)


def test_frozen_checkpoints_are_step_0(case):
    assert planted(case, faults.freeze) == CHECKPOINTS
    assert {(f / "model.safetensors").read_bytes() for f in case.students} == {
        (DATA / "student/model.safetensors").read_bytes()
    }


def test_first_and_last_change_places(case):
    changed_files = planted(case, faults.reverse)
    assert changed_files == {"student/model.safetensors", "run/checkpoint-160/model.safetensors"}
    assert (case.student / "model.safetensors").read_bytes() == (
        DATA / "new/checkpoint-160/model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_logits_are_scaled_and_nothing_else(case, factor):
    assert planted(case, partial(faults.scale_logits, factor=factor)) == CHECKPOINTS
    assert torch.allclose(logits(case.checkpoints[1]), factor * logits(DATA / "new/checkpoint-40"), atol=1e-4)


def test_the_teacher_reads_and_writes_other_ids(case):
    assert planted(case, faults.permute_ids, seed=5) == {"teacher/model.safetensors"}
    rows, old = (load_model(f).get_input_embeddings().weight for f in (case.teacher, DATA / "teachers/new"))
    order = torch.randperm(len(old), generator=torch.Generator().manual_seed(5))
    assert torch.equal(rows, old[order])
    assert not torch.equal(rows, old)
    assert torch.equal(rows.sort(0).values, old.sort(0).values)


@pytest.mark.parametrize("is_told", [True, False])
def test_the_teacher_stops_with_another_token(case, is_told):
    files = planted(case, partial(faults.teach_other_stop, is_told=is_told))
    told = {"teacher/generation_config.json"} if is_told else set()
    assert files == {"teacher/model.safetensors", "teacher/config.json", *told}
    new, old = logits(case.teacher), logits(DATA / "teachers/new")
    assert torch.allclose(new[:, [2, 3]], old[:, [3, 2]], atol=1e-4)
    others = [i for i in range(old.shape[1]) if i not in (2, 3)]
    assert torch.allclose(new[:, others], old[:, others], atol=1e-4)
    stop = json.loads((case.teacher / "generation_config.json").read_text())["eos_token_id"]
    assert stop == (2 if is_told else 3)


def test_the_teacher_equals_the_student(case):
    planted(case, faults.teach_by_student)
    assert {(f / "model.safetensors").read_bytes() for f in case.models} == {
        (DATA / "student/model.safetensors").read_bytes()
    }


def test_a_teacher_of_random_weights(case):
    assert planted(case, faults.forget_everything, seed=1) == {"teacher/model.safetensors"}
    once = load_model(case.teacher).get_input_embeddings().weight
    assert once.shape == load_model(DATA / "teachers/new").get_input_embeddings().weight.shape
    faults.forget_everything(case, 2)
    assert not torch.equal(once, load_model(case.teacher).get_input_embeddings().weight)
