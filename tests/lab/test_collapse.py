"""Two steps of every kind of run, from the bundled models."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from opd_diag.errors import InputError
from opd_diag.lab import collapse
from opd_diag.lab.collapse import KINDS, Kind, grow_runs
from opd_diag.lab.distillation import Distillation
from opd_diag.lab.models import load_model
from opd_diag.runs import find_checkpoints, read_manifest

# TRL 1.16 still says gradient where transformers 5.23 says activation checkpointing (trl/models/utils.py, its config).
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
]

DATA = Path(__file__).parents[2] / "data"
SHORT = {
    "healthy": Kind("new", Distillation((1, 2), KINDS["healthy"].distillation.learning_rate, batch_size=4)),
    "collapsing": Kind("other", Distillation((1, 2), KINDS["collapsing"].distillation.learning_rate, batch_size=4)),
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    out, said = tmp_path_factory.mktemp("collapse"), []
    runs = grow_runs(DATA, out, [0, 1], said.append, kinds=SHORT, held_out_per_operation=2)
    assert [run.name for run in runs] == ["healthy-0", "collapsing-0", "healthy-1", "collapsing-1"]
    assert said[0] == "healthy-0: 2 steps"
    return out


def first_weights(folder):
    return load_model(folder).get_input_embeddings().weight.detach()


@pytest.mark.parametrize(("name", "teacher"), [("healthy-0", "new"), ("collapsing-1", "other")])
def test_run_holds_all_that_a_report_needs(grown, name, teacher):
    run = grown / name
    settings = read_manifest(run).settings
    seed = name[-1]
    assert Path(settings["student"]).resolve() == (grown / "student").resolve()
    assert Path(settings["teacher"]).resolve() == (grown / "teachers" / teacher).resolve()
    assert Path(settings["prompts"]).resolve() == (grown / f"prompts-{seed}.jsonl").resolve()
    assert [(c.step, c.blocker) for c in find_checkpoints(run)] == [(1, None), (2, None)]
    lines = [json.loads(line) for line in (grown / f"prompts-{seed}.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert all(line["answer"].isdecimal() for line in lines)


def test_models_are_those_of_the_data_folder(grown):
    for folder in ("student", "teachers/new", "teachers/other"):
        assert (grown / folder / "model.safetensors").read_bytes() == (DATA / folder / "model.safetensors").read_bytes()


def test_seeds_differ_in_prompts_and_in_what_is_learned(grown):
    assert (grown / "prompts-0.jsonl").read_text() != (grown / "prompts-1.jsonl").read_text()
    one, other = (first_weights(grown / f"healthy-{seed}" / "checkpoint-2") for seed in (0, 1))
    assert not torch.equal(one, other)


def test_the_collapsing_recipe_moves_the_student_much_further(grown):
    start = first_weights(grown / "student")
    moved = {
        name: (first_weights(grown / f"{name}-0" / "checkpoint-2") - start).abs().max().item()
        for name in ("healthy", "collapsing")
    }
    assert moved["healthy"] > 0
    assert moved["collapsing"] > 20 * moved["healthy"]


def test_kinds_say_which_teacher_and_how_fast():
    assert {name: kind.teacher for name, kind in KINDS.items()} == {
        "healthy": "new",
        "collapsing": "other",
        "idle": "same",
        "rough": "other",
    }
    gentle = {KINDS[name].distillation.learning_rate for name in ("healthy", "idle", "rough")}
    assert gentle == {Distillation().learning_rate}
    assert KINDS["collapsing"].distillation.learning_rate > 50 * Distillation().learning_rate


def test_missing_models_are_named(tmp_path):
    with pytest.raises(InputError, match=r"student, teachers/new.*--data"):
        grow_runs(tmp_path, tmp_path / "out", [0], lambda line: None, kinds={"healthy": SHORT["healthy"]})
    assert not (tmp_path / "out").exists()


def test_wrong_input_ends_in_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["collapse", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    threads = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit) as ended:
            collapse.main()
    finally:
        torch.set_num_threads(threads)
    assert ended.value.code == 2
    assert "Expected models in" in capsys.readouterr().err
